import math

import numpy as np
import torch


def code_by_walking(logits, u):
    codes = []
    for row, number in zip(logits.tolist(), u.tolist(), strict=True):
        weights = [math.exp(score - max(row)) for score in row]
        left, code = number * sum(weights), 0
        while left >= weights[code]:
            left -= weights[code]
            code += 1
        codes.append(code)
    return codes


def code_by_counting(logits, u):
    borders = np.exp(logits.numpy())
    borders = np.cumsum(borders, axis=1) / borders.sum(axis=1, keepdims=True)
    return (borders <= u.numpy()[:, None]).sum(axis=1)


def loss_of_vectors(predict, x0, share, noise):
    keep = torch.stack([share] * x0.shape[-1], dim=2)
    guess = predict(torch.sqrt(keep) * x0 + torch.sqrt(1 - keep) * noise)
    return torch.linalg.vector_norm(guess - noise, dim=-1) ** 2 / x0.shape[-1]


def loss_by_library(predict, x0, share, noise):
    noisy = x0 * share.unsqueeze(-1) ** 0.5 + noise * (1 - share.unsqueeze(-1)) ** 0.5
    return torch.nn.functional.mse_loss(predict(noisy), noise, reduction="none").mean(2)


def walk_backwards(velocity, x, num_steps):
    for left in range(num_steps, 0, -1):
        x = x + velocity(x, left / num_steps) / num_steps
    return x


def walk_by_time(velocity, x, num_steps):
    times = torch.linspace(1, 0, num_steps + 1)
    for now, then in zip(times, times[1:], strict=False):
        x = x - (then - now) * velocity(x, now)
    return x


def step_by_betas(x, predicted_noise, share, share_next, noise, temperature):
    beta = 1 - share / share_next
    token = torch.clip((x - math.sqrt(1 - share) * predicted_noise) / math.sqrt(share), -5, 5)
    of_token = beta * math.sqrt(share_next) / (1 - share)
    of_old = (1 - share_next) * math.sqrt(1 - beta) / (1 - share)
    return of_token * token + of_old * x + temperature * math.sqrt(beta * (1 - share_next) / (1 - share)) * noise


def step_from_noise(x, predicted_noise, share, share_next, noise, temperature):
    x, guess = x.numpy(), predicted_noise.numpy()
    token = np.minimum(np.maximum((x - np.sqrt(1 - share) * guess) / np.sqrt(share), -5), 5)
    fresh = (1 - share_next) * (1 - share / share_next) / (1 - share)             # variance
    rest = (x - np.sqrt(share) * token) / np.sqrt(1 - share)                      # noise that fits the token
    return np.sqrt(share_next) * token + np.sqrt(1 - share_next - fresh) * rest + (
        temperature * np.sqrt(fresh) * noise.numpy())


ANSWERS = {
    "draw_code": [code_by_walking, code_by_counting],
    "diffusion_loss": [loss_of_vectors, loss_by_library],
    "euler_walk": [walk_backwards, walk_by_time],
    "denoise_step": [step_by_betas, step_from_noise],
}
