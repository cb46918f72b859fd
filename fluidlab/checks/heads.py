"""Checks of notebook 04: a code from one uniform number, the diffusion loss, a flow's walk, a step with temperature."""

import torch
from torch import Tensor

from fluidlab.checks.check import Check
from fluidlab.model.heads.diffusion import CosineDiffusion
from fluidlab.model.heads.flow import RectifiedFlow


def _piece_of(pieces: Tensor, u: Tensor) -> Tensor:
    """Pieces (B, V) lie side by side: the number of the one that u (B,) falls into, at most V - 1."""
    return (pieces.cumsum(dim=-1) <= u[:, None]).sum(dim=-1).clamp(max=pieces.shape[1] - 1)


def _draw_code(logits, u):
    return _piece_of(logits.softmax(dim=-1), u)


_LOGITS = torch.tensor([[1.0, 3.0, 2.0, 0.5], [2.0, 0.0, 1.0, 1.5], [-1.0, 0.5, 0.2, 1.4]])

check_draw_code = Check(
    "draw_code", _draw_code,
    cases={"two codes": (torch.tensor([[0.0, 1.0], [0.0, 1.0]]), torch.tensor([0.2, 0.6])),
           "three tokens": (_LOGITS, torch.tensor([0.85, 0.1, 0.4])),
           "three tokens and other numbers": (_LOGITS, torch.tensor([0.02, 0.7, 0.97])),
           "a number where one piece ends and the next begins": (torch.zeros(1, 2), torch.tensor([0.5]))},
    mistakes={
        "the likeliest code, whatever u is: then nothing is drawn; u decides into which piece it falls.":
            lambda logits, u: logits.argmax(dim=-1),
        "the scores are summed up as they are: the softmax has to make probabilities of them first.":
            _piece_of,
        "u is compared with each probability alone: the pieces lie side by side, so sum them up first.":
            lambda logits, u: (logits.softmax(dim=-1) > u[:, None]).int().argmax(dim=-1),
        "one too low: the code is the first whose sum exceeds u, not the last whose sum does not.":
            lambda logits, u: _draw_code(logits, u) - 1,
        "one too high: codes are counted from 0.": lambda logits, u: _draw_code(logits, u) + 1,
        "the softmax runs over the batch: the V codes of one token must add up to 1, and they are the last dimension.":
            lambda logits, u: (logits.softmax(dim=0).cumsum(dim=-1) <= u[:, None]).sum(dim=-1),
        "these are ranks: the pieces were sorted by size; they must lie in the order of the codes.":
            lambda logits, u: _draw_code(logits.sort(dim=-1, descending=True).values, u),
        "all tokens are drawn with the first u: each has its own.":
            lambda logits, u: _draw_code(logits, u[:1].expand(len(u))),
        "u lies where a piece ends, and there the sum does not exceed it: the next code begins.":
            lambda logits, u: (logits.softmax(dim=-1).cumsum(dim=-1) < u[:, None]).sum(dim=-1),
        "these are the codes whose end lies above u: count those whose end lies at or below it.":
            lambda logits, u: (logits.softmax(dim=-1).cumsum(dim=-1) > u[:, None]).sum(dim=-1),
        "u meets the codes instead of the tokens: (B,) must become a column, u[:, None].":
            lambda logits, u: (logits.softmax(dim=-1).cumsum(dim=-1) <= u).sum(dim=-1),
    })


def _noisy(x0, share, noise):
    return share[..., None].sqrt() * x0 + (1 - share[..., None]).sqrt() * noise


def _diffusion_loss(predict, x0, share, noise):
    return (predict(_noisy(x0, share, noise)) - noise).square().mean(dim=-1)


def _half(x: Tensor) -> Tensor:
    return x / 2


def _waves(B: int, N: int, C: int, phase: float) -> Tensor:
    """Numbers (B, N, C) between -2 and 2 that repeat nowhere."""
    return 2 * torch.sin(torch.arange(B * N * C).view(B, N, C) * 1.7 + phase)


def _loss_case(predict, shares: list) -> tuple:
    """B = N = C, so that a forgotten dimension gives wrong numbers and not an error."""
    shares = torch.tensor(shares)
    size = len(shares)
    return predict, _waves(size, size, size, 0.3), shares, _waves(size, size, size, 2.0)


check_diffusion_loss = Check(
    "diffusion_loss", _diffusion_loss,
    cases={"one token of one number": _loss_case(_half, [[0.36]]),
           "2 images of 2 tokens": _loss_case(torch.tanh, [[0.9, 0.2], [0.5, 0.01]]),
           "3 images of 3 tokens": _loss_case(_half, [[0.9, 0.2, 0.4], [0.5, 0.01, 0.7], [0.3, 0.6, 0.99]])},
    mistakes={
        "the roots are missing: the share is one of the variance, so token and noise are multiplied by square roots.":
            lambda predict, x0, share, noise: (
                predict(share[..., None] * x0 + (1 - share[..., None]) * noise) - noise).square().mean(dim=-1),
        "token and noise are exchanged: the share belongs to the token, 1 - share to the noise.":
            lambda predict, x0, share, noise: _diffusion_loss(predict, x0, 1 - share, noise),
        "the guess is compared with the clean token: what has to be guessed is the noise.":
            lambda predict, x0, share, noise: (predict(_noisy(x0, share, noise)) - x0).square().mean(dim=-1),
        "the guess is made from the clean token: the network must only see the noisy one.":
            lambda predict, x0, share, noise: (predict(x0) - noise).square().mean(dim=-1),
        "the channels are summed: the loss of a token is their mean, or it would grow with the number of channels.":
            lambda predict, x0, share, noise: (predict(_noisy(x0, share, noise)) - noise).square().sum(dim=-1),
        "the mean goes over the tokens: each token has a loss of its own, so the mean goes over the last dimension.":
            lambda predict, x0, share, noise: (predict(_noisy(x0, share, noise)) - noise).square().mean(dim=1),
        "one number for everything: the loss of each token is asked for, (B, N); which tokens count is decided later.":
            lambda predict, x0, share, noise: _diffusion_loss(predict, x0, share, noise).mean(),
        "the error is not squared.":
            lambda predict, x0, share, noise: (predict(_noisy(x0, share, noise)) - noise).abs().mean(dim=-1),
        "the share meets the wrong dimension: (B, N) must become (B, N, 1), or it is read as one share per channel.":
            lambda predict, x0, share, noise: (
                predict(share.sqrt() * x0 + (1 - share).sqrt() * noise) - noise).square().mean(dim=-1),
        "the root stands in the wrong place: the noise is multiplied by the root of 1 - share, not by 1 - the root.":
            lambda predict, x0, share, noise: (predict(
                share[..., None].sqrt() * x0 + (1 - share[..., None].sqrt()) * noise) - noise).square().mean(dim=-1),
    })


def _euler_walk(velocity, x, num_steps):
    """The package's walk begins at temperature x noise: with temperature 0 at the origin, which is put at x here."""
    def moved(from_x, t):
        return velocity(x + from_x, t / 1000)
    return x + RectifiedFlow("euler").sample(moved, x.shape, num_steps, 0.0, torch.Generator())


def _walk(time=lambda i, num_steps: 1 - i / num_steps, factor=1.0, more=0):
    """A walk that asks at other times, whose steps are longer by a factor, or that takes more steps."""
    def walk(velocity, x, num_steps):
        for i in range(num_steps + more):
            x = x + factor * velocity(x, time(i, num_steps)) / num_steps
        return x
    return walk


def _curved(x: Tensor, t: float) -> Tensor:
    return (1 + t) * torch.cos(x) + t ** 2


def _shrinking(x: Tensor, t: float) -> Tensor:
    return -x * (0.5 + t)


check_euler_walk = Check(
    "euler_walk", _euler_walk,
    cases={"a single step": (_curved, torch.tensor([[0.5, -1.0]]), 1),
           "4 steps": (_curved, torch.tensor([[0.5, -1.0], [2.0, 0.1]]), 4),
           "9 steps towards 0": (_shrinking, torch.tensor([[1.5, -1.0], [2.0, 0.3]]), 9)},
    mistakes={
        "time runs from 0 to 1: the walk begins in noise, at t = 1, and ends at t = 0.":
            _walk(lambda i, num_steps: i / num_steps),
        "it walks away from the data: the velocity points towards the token, so it is added.": _walk(factor=-1.0),
        "every step goes all the way: it covers 1 / num_steps of the time, so the velocity is divided by num_steps.":
            lambda velocity, x, num_steps: _walk(factor=num_steps)(velocity, x, num_steps),
        "the velocity is asked for at the end of each step: Euler asks at its beginning, the first time at t = 1.":
            _walk(lambda i, num_steps: 1 - (i + 1) / num_steps),
        "the time stands still: the velocity has to be told t, which falls from step to step.":
            _walk(lambda i, num_steps: 1.0),
        "the velocity is asked for once: it has to be asked for anew in each step, at the new place and time.":
            lambda velocity, x, num_steps: x + velocity(x, 1.0),
        "a step is missing: the last one begins at t = 1 / num_steps and ends at 0.": _walk(more=-1),
        "a step too many: at t = 0 the walk has arrived.": _walk(more=1),
        "the times are spread from 1 to 0 with 0 among them: the last step begins at 1 / num_steps.":
            _walk(lambda i, num_steps: 1 - i / max(1, num_steps - 1)),
        "the velocity is always asked for where the walk began: it has to be that of the place reached by then.":
            lambda velocity, x, num_steps: x + sum(
                velocity(x, 1 - i / num_steps) for i in range(num_steps)) / num_steps,
    })


def _denoise_step(x, predicted_noise, share, share_next, noise, temperature):
    process = CosineDiffusion(2)
    process.alphas = torch.tensor([share_next, share], dtype=torch.float64)
    return process.step(x, process.clean(x, predicted_noise, 1), 1, 0, temperature * noise)


def _step(clip=lambda x0: x0.clamp(-5, 5), swapped=False, end=lambda mean, variance, noise, temperature:
          mean + temperature * variance ** 0.5 * noise):
    """The step with another bound, with the two shares of its mean exchanged, or with another last line."""
    def step(x, predicted_noise, share, share_next, noise, temperature):
        kept = share / share_next
        x0 = clip((x - (1 - share) ** 0.5 * predicted_noise) / share ** 0.5)
        old, new = (x0, x) if swapped else (x, x0)
        mean = (share_next ** 0.5 * (1 - kept) * new + kept ** 0.5 * (1 - share_next) * old) / (1 - share)
        return end(mean, (1 - share_next) / (1 - share) * (1 - kept), noise, temperature)
    return step


def _step_case(share, share_next, temperature, scale=1.0):
    x, guess, noise = (scale * _waves(1, 3, 2, 0.4)[0], _waves(1, 3, 2, 1.1)[0], _waves(1, 3, 2, 2.3)[0])
    return x, guess, share, share_next, noise, temperature


check_temperature = Check(
    "denoise_step", _denoise_step,
    cases={"a step in the middle": _step_case(0.3, 0.6, 1.0),
           "temperature 0.5": _step_case(0.3, 0.6, 0.5),
           "temperature 0": _step_case(0.5, 0.8, 0.0),
           "the last step, to share 1": _step_case(0.9, 1.0, 0.7),
           "the first step, where the guess is magnified": _step_case(1e-4, 0.02, 0.8, 1.5)},
    mistakes={
        "the temperature is on the mean: it scales the fresh noise alone.":
            _step(end=lambda mean, variance, noise, temperature: temperature * (mean + variance ** 0.5 * noise)),
        "the temperature scales the guessed noise: it scales the fresh one, and the guess stays as it is.":
            lambda x, guess, share, share_next, noise, temperature: _step()(
                x, temperature * guess, share, share_next, noise, 1.0),
        "the temperature is ignored: multiply the fresh noise by it.":
            _step(end=lambda mean, variance, noise, temperature: mean + variance ** 0.5 * noise),
        "the temperature stands under the root: it multiplies the standard deviation, not the variance.":
            _step(end=lambda mean, variance, noise, temperature: mean + (temperature * variance) ** 0.5 * noise),
        "the root of the variance is missing: noise is multiplied by a standard deviation.":
            _step(end=lambda mean, variance, noise, temperature: mean + temperature * variance * noise),
        "the fresh noise comes at full strength: multiply it by the standard deviation of the step.":
            _step(end=lambda mean, variance, noise, temperature: mean + temperature * noise),
        "the guessed token is not clipped: bound it to -5 .. 5 before it enters the mean.": _step(clip=lambda x0: x0),
        "the wrong thing is clipped: it is the guessed token that is bounded, not the result.":
            lambda *question: _step(clip=lambda x0: x0)(*question).clamp(-5, 5),
        "guessed token and old value are exchanged in the mean: near the end nearly all comes from the guessed token.":
            _step(swapped=True),
        "the guessed noise stands where the guessed token belongs: take it out of x first, by the formula for x0.":
            lambda x, guess, share, *rest: _step(clip=lambda x0: guess.clamp(-5, 5))(x, guess, share, *rest),
        "the roots are missing in the guessed token: token and noise were mixed by the roots of share and 1 - share.":
            lambda x, guess, share, *rest: _step(clip=lambda x0: ((x - (1 - share) * guess) / share).clamp(-5, 5))(
                x, guess, share, *rest),
        "the guessed token is bounded to -1 .. 1: tokens are no pixels, the bounds are -5 and 5.":
            _step(clip=lambda x0: x0.clamp(-1, 1)),
    })
