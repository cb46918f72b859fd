"""Scaling laws: fit L = a N^-b + c, say how sure it is, and try it on a size that it has not seen.

Kaplan et al. 2020 (arXiv 2001.08361) fit straight lines in log-log, which is c = 0 and what Fluid's figure 5 shows;
Hoffmann et al. 2022 (2203.15556, section 3.3) add the floor c, the loss that no size gets below. What to notice: with
a handful of sizes both often fit equally well and then predict very different things.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fluidlab.config import check_range, short
from fluidlab.evaluate.statistics import Interval


@dataclass(frozen=True)
class PowerLaw:
    """L = a N^-b + c. r2 is the share of the variance of log L that the fit explains; intervals by bootstrap."""

    a: float
    b: float
    c: float
    r2: float
    b_interval: Interval | None = None
    c_interval: Interval | None = None

    def __call__(self, size):
        """The loss at one size or an array of them."""
        return self.a * np.asarray(size, dtype=float) ** -self.b + self.c


def fit_power_law(sizes: Sequence[float], losses: Sequence[float], *, floor: bool = False, bootstrap: int = 200,
                  seed: int = 0) -> PowerLaw:
    """Least squares on log L.

    Args:
        sizes: parameters or FLOPs, positive; the same one may come several times (seeds).
        losses: positive, one for each.
        floor: False for a straight line in log-log (c = 0), True for a c from 0 to just below the smallest loss.
        bootstrap: how often the residuals are drawn anew for the 95 % intervals of b and c; 0 for none.

    Raises:
        ValueError: fewer than three different sizes (four with a floor), unequal lengths, or a number that is not
            positive and finite; points that only a law of infinite numbers fits; bootstrap or
            seed out of range.
    """
    n, y = _numbers("sizes", sizes), _numbers("losses", losses)
    check_range("bootstrap", bootstrap, 0, 10 ** 5, kind=int)
    check_range("seed", seed, 0, kind=int)
    least = 4 if floor else 3
    if n.shape != y.shape or n.ndim != 1 or len(np.unique(n)) < least:
        raise ValueError(f"a power law{' with a floor' if floor else ''} needs at least {least} different sizes, got "
                         f"{len(np.unique(n))} sizes and {y.size} losses.")
    bad = ~(np.isfinite(n) & np.isfinite(y) & (n > 0) & (y > 0))
    if bad.any():
        raise ValueError(f"sizes and losses must be positive and finite, but {int(bad.sum())} of {len(n)} pairs are "
                         f"not, the first {n[bad][0]:g} with {y[bad][0]:g}.")
    law = _finite_fit(n, y, floor)
    if not bootstrap:
        return law
    again = _fitted_again(law, n, y, floor, bootstrap, seed)
    between = {name: np.percentile([getattr(f, name) for f in again], [2.5, 97.5]) for name in ("b", "c")}
    return dataclasses.replace(law, b_interval=Interval(law.b, *map(float, between["b"])),
                               c_interval=Interval(law.c, *map(float, between["c"])))


def law_band(law: PowerLaw, sizes: Sequence[float], losses: Sequence[float], at: np.ndarray, *, floor: bool = False,
             bootstrap: int = 200, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Between which losses the fits to residuals drawn anew lie, 95 % of them: lower and upper bound at sizes `at`.

    Args:
        law: of `fit_power_law` for the same sizes, losses, floor, bootstrap and seed, so that the fits are the same.
    """
    n, y = (np.asarray(values, dtype=float) for values in (sizes, losses))
    lines = [again(at) for again in _fitted_again(law, n, y, floor, bootstrap, seed)]
    low, high = np.percentile(lines, [2.5, 97.5], axis=0)
    return low, high


def _fitted_again(law: PowerLaw, n: np.ndarray, y: np.ndarray, floor: bool, times: int, seed: int) -> list[PowerLaw]:
    random, predicted = np.random.default_rng(seed), np.log(law(n))
    residuals = np.log(y) - predicted
    residuals *= np.sqrt(len(n) / max(1, len(n) - (3 if floor else 2)))                # the fit has used some up
    return [_finite_fit(n, np.exp(predicted + random.choice(residuals, len(n))), floor) for _ in range(times)]


def _numbers(name: str, values) -> np.ndarray:
    """Values as an array of floats."""
    try:
        return np.asarray(values, dtype=float)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be a list of numbers, got {short(values)}.") from error


def _finite_fit(n: np.ndarray, y: np.ndarray, floor: bool) -> PowerLaw:
    """`_fit`, or `ValueError` where no law that a float can hold goes through the points."""
    law = None
    with np.errstate(all="ignore"):
        try:
            law = _fit(n, y, floor)
        except (ValueError, np.linalg.LinAlgError):                     # from least squares over what has overflowed
            pass
    if law is None or not np.isfinite([law.a, law.b, law.c, law.r2]).all():
        raise ValueError(f"no law of finite numbers fits these {len(n)} pairs, whose sizes span a factor of "
                         f"{n.max() / n.min():.6g} and whose losses one of {y.max() / max(y.min(), 1e-300):.6g}.")
    return law


def _fit(n: np.ndarray, y: np.ndarray, floor: bool) -> PowerLaw:
    """Without a floor a straight line; with one, least squares from the best of many floors, as there are valleys."""
    from scipy.optimize import least_squares
    log_n, log_y = np.log(n), np.log(y)

    def residuals(parameters) -> np.ndarray:
        log_a, b, c = parameters
        return np.log(np.exp(log_a - b * log_n) + c) - log_y

    def line(c: float) -> tuple[float, float, float]:
        slope, start = np.polyfit(log_n, np.log(y - c), 1)
        return start, -slope, c

    best = line(0.0)
    if floor:
        starts = [line(share * y.min()) for share in np.linspace(0.0, 0.99, 40)]
        start = min(starts, key=lambda parameters: (residuals(parameters) ** 2).sum())
        bounds = [-np.inf, -np.inf, 0.0], [np.inf, np.inf, y.min()]
        best = min(best, least_squares(residuals, start, bounds=bounds, x_scale=(1.0, 0.1, 0.1 * y.min())).x,
                   key=lambda parameters: (residuals(parameters) ** 2).sum())
    spread = float(((log_y - log_y.mean()) ** 2).sum())
    left = float((residuals(best) ** 2).sum())
    return PowerLaw(float(np.exp(best[0])), float(best[1]), float(best[2]), 1.0 - left / spread if spread > 0 else 0.0)


def hold_out_largest(sizes: Sequence[float], losses: Sequence[float], *, floor: bool = False) -> tuple[PowerLaw, float]:
    """Fit without the largest size, then predict it.

    Returns:
        The law, and the relative error of its prediction: (predicted - measured) / measured, mean over seeds.

    Raises:
        ValueError: too few sizes are left, as for `fit_power_law`.
    """
    n, y = _numbers("sizes", sizes), _numbers("losses", losses)
    if not n.size or n.shape != y.shape:
        raise ValueError(f"the largest of some sizes is held out, each with its loss, got {n.size} and {y.size}.")
    largest = n == n.max()
    law = fit_power_law(n[~largest], y[~largest], floor=floor, bootstrap=0)
    measured = float(y[largest].mean())
    return law, (float(law(n.max())) - measured) / measured
