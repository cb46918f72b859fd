import math

import torch


def rate_of_angles(step, steps, warmup, peak, floor):
    if step < warmup:
        return (step + 1) * peak / warmup
    half_angle = math.pi / 2 * (step - warmup) / (steps - warmup)
    return peak * floor + peak * (1 - floor) * math.cos(half_angle) ** 2          # (1 + cos 2a) / 2 = cos^2 a


def rate_between(step, steps, warmup, peak, floor):
    climb = min(1.0, (step + 1) / max(warmup, 1))
    done = max(0, step - warmup) / (steps - warmup)
    low = floor * peak
    return climb * (low + (peak - low) * 0.5 * (1 + math.cos(math.pi * done)))


def clip_as_one_vector(gradients, limit):
    norm = torch.cat([g.flatten() for g in gradients if g is not None]).norm()
    return [g if g is None else g / torch.clamp(norm / limit, min=1) for g in gradients], norm


def clip_number_by_number(gradients, limit):
    squares = 0.0
    for gradient in gradients:
        for number in ([] if gradient is None else gradient.flatten().tolist()):
            squares += number * number
    length = math.sqrt(squares)
    if length <= limit:
        return list(gradients), length
    return [g if g is None else g * limit / length for g in gradients], length


ANSWERS = {
    "mean_over_hidden": [
        lambda losses, hidden: losses[hidden].mean(),
        lambda losses, hidden: torch.where(hidden, losses, torch.nan).nanmean()],
    "rate": [rate_of_angles, rate_between],
    "ema_update": [
        lambda mean, weights, decay, n: [
            old + (1 - min(decay, (n + 1) / (n + 10))) * (new - old) for old, new in zip(mean, weights, strict=True)],
        lambda mean, weights, decay, n: tuple(torch._foreach_lerp(mean, weights, max(1 - decay, 9 / (10 + n))))],
    "clip_gradients": [clip_as_one_vector, clip_number_by_number],
}
