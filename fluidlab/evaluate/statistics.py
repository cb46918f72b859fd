"""How sure a number is: intervals for shares, for correlations and for effects. All from SciPy; here are the names."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Interval:
    """An estimate with its lower and upper bound."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def wilson(successes: float, trials: int, confidence: float = 0.95) -> Interval:
    """A share of successes with Wilson's score interval (Wilson 1927), which stays inside 0..1 and is honest at both.

    Args:
        successes: need not be whole, for a share of so many trials as are worth counting.

    Raises:
        ValueError: no trial, or more successes than trials.
    """
    from scipy.stats import norm
    if not 0 <= successes <= trials or trials < 1:
        raise ValueError(f"a share needs at least 1 trial and 0 to {trials} successes, got {successes}.")
    share, z = successes / trials, float(norm.ppf(0.5 + confidence / 2))
    middle = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * (share * (1 - share) / trials + z * z / (4 * trials * trials)) ** 0.5
    return Interval(share, max(0.0, min(share, middle - half)), min(1.0, max(share, middle + half)))


def pearson(x: Sequence[float], y: Sequence[float], confidence: float = 0.95) -> Interval:
    """Pearson's r with the interval of Fisher's transformation, wide when the pairs are few.

    Raises:
        ValueError: fewer than four pairs, unequal lengths, a number that is not finite, or one that never changes.
    """
    from scipy.stats import pearsonr
    x, y = (np.asarray(values, dtype=float) for values in (x, y))
    if x.shape != y.shape or x.ndim != 1 or len(x) < 4:
        raise ValueError(f"a correlation needs at least 4 pairs, got {x.size} and {y.size} numbers.")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError(f"a correlation needs finite numbers, got {int((~np.isfinite(x) | ~np.isfinite(y)).sum())} "
                         f"pairs of {len(x)} without.")
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        raise ValueError(f"a correlation needs numbers that differ, got {len(x)} pairs of which one side is constant.")
    found = pearsonr(x, y)
    bounds = found.confidence_interval(confidence)
    return Interval(float(found.statistic), float(bounds.low), float(bounds.high))


def paired_difference(x: Sequence[float], y: Sequence[float], confidence: float = 0.95) -> Interval:
    """Mean of x - y over pairs (one a seed), with Student's interval: does the difference survive another seed?

    Raises:
        ValueError: fewer than two pairs, unequal lengths, or a number that is not finite.
    """
    from scipy.stats import t
    x, y = (np.asarray(values, dtype=float) for values in (x, y))
    if x.shape != y.shape or x.ndim != 1 or len(x) < 2:
        raise ValueError(f"a paired difference needs at least 2 pairs, got {x.size} and {y.size} numbers.")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError(f"a paired difference needs finite numbers, got {x.tolist()} and {y.tolist()}.")
    differences = x - y
    half = t.ppf(0.5 + confidence / 2, len(x) - 1) * differences.std(ddof=1) / len(x) ** 0.5
    mean = float(differences.mean())
    return Interval(mean, mean - float(half), mean + float(half))
