"""Tokens of two numbers, whose whole distribution can be looked at, codes for them, and how far two clouds are apart.

The toy distributions have zero mean and unit variance per channel, as the tokens of a VAE have after normalisation, so
that a head meets them under the conditions it was built for.
"""

import math

import torch
from torch import Tensor

SHAPES = ("moons", "spiral", "pinwheel")


def toy_tokens(condition: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Draw one two-dimensional token for each condition.

    Args:
        condition: (B,) long, indices into `SHAPES`.
        generator: of a CPU; the same generator gives the same tokens.

    Returns:
        (B, 2) float32; over many draws of one condition mean 0 and variance 1 in each channel, within 0.1.

    Raises:
        ValueError: a condition that is no index into `SHAPES`.
    """
    if condition.numel() and not 0 <= int(condition.min()) <= int(condition.max()) < len(SHAPES):
        raise ValueError(f"condition must lie in 0..{len(SHAPES) - 1}, got {int(condition.min())} to "
                         f"{int(condition.max())}.")
    B = len(condition)
    u = torch.rand(B, generator=generator)                                           # (B,) place along the shape
    arm = torch.randint(60, (B,), generator=generator)                               # (B,) divides by 2, 3, 4 and 5
    noise = torch.randn(B, 2, generator=generator)                                   # (B, 2)
    drawn = torch.stack([_moons(u, arm, noise), _spiral(u, arm, noise), _pinwheel(u, arm, noise)])   # (3, B, 2)
    return drawn[condition, torch.arange(B)]                                         # (B, 2)


def _moons(u: Tensor, arm: Tensor, noise: Tensor) -> Tensor:
    angle, lower = math.pi * u, (arm % 2).float()                                    # (B,), (B,) 1 = the lower moon
    x = torch.where(lower > 0, 1 - angle.cos(), angle.cos())
    y = torch.where(lower > 0, 0.5 - angle.sin(), angle.sin())
    points = torch.stack([x, y], dim=1) + 0.06 * noise                               # (B, 2)
    return (points - torch.tensor([0.5, 0.25])) / torch.tensor([0.87, 0.50])


def _spiral(u: Tensor, arm: Tensor, noise: Tensor) -> Tensor:
    turn = u.sqrt()                                                                  # evenly dense along the arm
    angle, radius = 3.2 * math.pi * turn, 0.2 + 1.9 * turn
    points = torch.stack([radius * angle.cos(), radius * angle.sin()], dim=1)        # (B, 2)
    return (points + 0.06 * noise - torch.tensor([-0.31, 0.28])) / torch.tensor([1.14, 0.94])


def _pinwheel(u: Tensor, arm: Tensor, noise: Tensor) -> Tensor:
    radius = 1.35 + 0.42 * noise[:, 0]                                               # four blades, bent by the radius
    angle = 2 * math.pi * (arm % 4) / 4 + 0.12 * noise[:, 1] + 0.9 * radius
    return radius[:, None] * torch.stack([angle.cos(), angle.sin()], dim=1)


def kmeans(points: Tensor, num_codes: int, generator: torch.Generator | None = None, iterations: int = 25) -> Tensor:
    """A codebook by Lloyd's algorithm: codes (V, C) that minimise the squared distance to `points` (B, C).

    A code that no point chooses is put onto a random point, as a quantizer restarts its dead codes.

    Raises:
        ValueError: more codes than points, or none.
    """
    if not 1 <= num_codes <= len(points):
        raise ValueError(f"num_codes must be from 1 to the number of points {len(points)}, got {num_codes}.")
    codes = points[torch.randperm(len(points), generator=generator)[:num_codes]].clone()      # (V, C)
    for _ in range(iterations):
        chosen = nearest(points, codes)                                                       # (B,)
        counts = torch.bincount(chosen, minlength=num_codes)                                  # (V,)
        sums = torch.zeros_like(codes).index_add_(0, chosen, points)                          # (V, C)
        codes = sums / counts.clamp(min=1)[:, None]
        dead = counts == 0
        if dead.any():
            codes[dead] = points[torch.randint(len(points), (int(dead.sum()),), generator=generator)]
    return codes


def nearest(points: Tensor, codes: Tensor) -> Tensor:
    """The index of the nearest code: points (B, C), codes (V, C) -> (B,) long."""
    scores = codes.square().sum(1) - 2 * points @ codes.T                                    # (B, V), up to a constant
    return scores.argmin(dim=1)


def best_token(x: Tensor, data: Tensor, signal: float, noise: float) -> Tensor:
    """The best possible guess of the clean token, known because the data are: what a network can at most learn.

    Args:
        x: (K, C) noisy tokens, signal x token + noise x a standard normal number.
        data: (M, C), all clean tokens that there are, equally likely.

    Returns:
        (K, C), the mean of the data, each weighted with how likely it is to have become x.
    """
    distance = (x[:, None] - signal * data).square().sum(dim=-1)                              # (K, M)
    return (-distance / (2 * noise ** 2)).softmax(dim=-1) @ data


def chamfer(drawn: Tensor, data: Tensor) -> float:
    """How far two clouds (B, C) and (M, C) are apart, as a length in the unit of the tokens.

    The mean distance from a drawn token to the nearest of the data (large when tokens lie where no data is) and from
    the data to the nearest drawn token (large when a part of the data is never drawn), averaged. Two samples of one
    distribution are not at 0: compare with the distance between two samples of the data.

    Raises:
        ValueError: clouds of different dimension.
    """
    if drawn.ndim != 2 or data.ndim != 2 or drawn.shape[1] != data.shape[1]:
        raise ValueError(f"both clouds must be (B, C) with one C, got {tuple(drawn.shape)} and {tuple(data.shape)}.")
    distance = torch.cdist(drawn, data)                                                       # (B, M)
    return float(distance.min(dim=1).values.mean() + distance.min(dim=0).values.mean()) / 2
