"""The Frechet distance between two sets of images, as any feature extractor sees them.

Two sets of features are summed up as two Gaussians, and the distance between those has a closed form (Dowson and
Landau 1982; Heusel et al. 2017, arXiv 1706.08500, equation 6). With the features of Inception-v3 it is called FID, and
only then. What to notice: it compares distributions, so it never asks whether an image fits its prompt; and few
samples make it too large, by an amount that falls as 1/n, which `frechet_at_infinity` measures and takes away.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fluidlab.config import check_type

LARGEST = 1e60             # of a feature; the distance multiplies four of them


@dataclass(frozen=True)
class Gaussian:
    """Mean (F,) and covariance (F, F) of `count` feature vectors, in float64."""

    mean: np.ndarray
    covariance: np.ndarray
    count: int


@torch.no_grad()
def extract_features(batches: Iterable[Tensor], extractor: Callable[[Tensor], Tensor]) -> Tensor:
    """Features (n, F) in float64 of batches of images (B, 3, H, W) in [-1, 1].

    Raises:
        ValueError: there is no image, or the extractor gives something other than (B, F).
    """
    parts = []
    for images in batches:
        features = extractor(images)
        if features.ndim != 2 or len(features) != len(images):
            raise ValueError(f"an extractor must turn {len(images)} images into ({len(images)}, F) features, "
                             f"got {tuple(features.shape)}.")
        parts.append(features.double().cpu())
    if not parts:
        raise ValueError("a Frechet distance needs images, got 0.")
    return torch.cat(parts)


def gaussian_of(features: Tensor) -> Gaussian:
    """The Gaussian with the mean and the (unbiased) covariance of features (n, F).

    Raises:
        ValueError: fewer than two vectors, or a number that is not finite or beyond `LARGEST`.
    """
    check_type("features", features, Tensor, "a tensor (n, F)")
    if features.ndim != 2 or len(features) < 2 or not features.shape[1]:
        raise ValueError(f"a covariance needs at least 2 feature vectors (n, F), got {tuple(features.shape)}.")
    values = features.double().cpu().numpy()
    if not np.isfinite(values).all():
        raise ValueError(f"{int((~np.isfinite(values)).any(axis=1).sum())} of {len(values)} feature vectors hold "
                         f"numbers that are not finite.")
    if np.abs(values).max() > LARGEST:
        raise ValueError(f"features must be at most {LARGEST:g}, since they are squared twice, got "
                         f"{np.abs(values).max():g}.")
    return Gaussian(values.mean(axis=0), np.atleast_2d(np.cov(values, rowvar=False)), len(values))


def frechet_between(a: Gaussian, b: Gaussian) -> float:
    """|m_a - m_b|^2 + tr(S_a) + tr(S_b) - 2 tr (S_a^1/2 S_b S_a^1/2)^1/2, at least 0.

    The product of two covariances is not symmetric, and the usual matrix root of it turns complex when a covariance
    is singular, as it is with fewer images than features. The symmetric form has the same trace and no such trouble.

    Raises:
        ValueError: the two have different numbers of features.
    """
    if a.mean.shape != b.mean.shape:
        raise ValueError(f"both sets need the same features, got {a.mean.size} and {b.mean.size} numbers an image.")
    values, vectors = np.linalg.eigh(a.covariance)
    root = vectors * np.sqrt(values.clip(min=0.0)) @ vectors.T                        # (F, F), S_a^1/2
    spectrum = np.linalg.eigvalsh(root @ b.covariance @ root).clip(min=0.0)          # (F,)
    apart = float(((a.mean - b.mean) ** 2).sum())
    spread = float(np.trace(a.covariance) + np.trace(b.covariance) - 2.0 * np.sqrt(spectrum).sum())
    return max(0.0, apart + spread)


def frechet_distance(features: Tensor, reference: Tensor) -> float:
    """Distance between two sets of features (n, F) and (m, F); 0 for equal sets, too large for small ones."""
    return frechet_between(gaussian_of(features), gaussian_of(reference))


def frechet_at_infinity(features: Tensor, reference: Tensor, *, points: int = 12, resamples: int = 10,
                        seed: int = 0) -> tuple[float, float]:
    """The distance that unlimited samples would have, and its standard error (Chong and Forsyth 2020, 1911.07023).

    The distance is measured on random subsets of growing size, and the straight line through it over 1/n is followed
    to 1/n = 0. The reference stays whole, so take as large a one as you can. The error is the spread of the same number
    over `resamples` random halves of the images: halves without replacement spread as whole samples would.

    Args:
        features: (n, F) of the images that are judged, n at least `enough_images(F)`; in small subsets the distance is
            no straight line over 1/n.  reference: (m, F).
        points: sizes of subsets.  resamples: halves, at least 2.

    Returns:
        The intercept, which can be slightly negative when the sets are alike, and its standard error.

    Raises:
        ValueError: too few images, points or resamples.
    """
    n, needed = len(features), enough_images(features.shape[1])
    if n < needed or points < 3 or resamples < 2:
        raise ValueError(f"following the distance to 1/n = 0 needs at least {needed} images, 3 points and 2 resamples, "
                         f"got {n}, {points} and {resamples}.")
    target, shuffle = gaussian_of(reference), torch.Generator().manual_seed(seed)
    smallest = needed // 4
    halves = [_intercept(features[torch.randperm(n, generator=shuffle)[:n // 2]], target, smallest, points, shuffle)
              for _ in range(resamples)]
    return _intercept(features, target, smallest, points, shuffle), float(np.std(halves, ddof=1))


def enough_images(num_features: int) -> int:
    """The fewest images for `frechet_at_infinity`: subsets of 5 a feature (50 at least), and four times as many."""
    return 4 * max(50, 5 * num_features)


def _intercept(features: Tensor, target: Gaussian, smallest: int, points: int, shuffle: torch.Generator) -> float:
    n = len(features)
    inverse = np.linspace(1 / n, 1 / smallest, points)
    distances = [frechet_between(gaussian_of(features[torch.randperm(n, generator=shuffle)[:size]]), target)
                 for size in (1 / inverse).round().astype(int)]
    slope, start = np.polyfit(inverse, distances, 1)
    return float(start)
