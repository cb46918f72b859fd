import math

import numpy as np
from scipy.linalg import sqrtm
from scipy.stats import norm


def count_by_loop(found, name, wanted, threshold):
    for thing in found:
        if thing.name == name and thing.score > threshold:
            wanted -= 1
    return wanted == 0


def directions_by_cases(a, b):
    x, y = ((a[k] + a[k + 2] - b[k] - b[k + 2]) / 2 for k in (0, 1))
    far, near_x, near_y = math.hypot(x, y), (a[2] - a[0] + b[2] - b[0]) / 10, (a[3] - a[1] + b[3] - b[1]) / 10
    said = set()
    if x < 0 and -x - near_x > far / 2:
        said.add("left of")
    if x > 0 and x - near_x > far / 2:
        said.add("right of")
    if y < 0 and -y - near_y > far / 2:
        said.add("above")
    if y > 0 and y - near_y > far / 2:
        said.add("below")
    return said


def directions_as_arrays(a, b):
    a, b = np.reshape(a, (2, 2)), np.reshape(b, (2, 2))
    offset = a.mean(axis=0) - b.mean(axis=0)
    beyond = np.abs(offset) - 0.1 * (a[1] - a[0] + b[1] - b[0])
    holds = beyond > 0.5 * np.linalg.norm(offset)
    names = np.where(offset < 0, ["left of", "above"], ["right of", "below"])
    return set(names[holds].tolist())


def wilson_by_roots(successes, trials):
    """The shares q with (p - q)^2 = z^2 q (1 - q) / n."""
    p, w = successes / trials, norm.ppf(0.975) ** 2 / trials
    return tuple(np.sort(np.roots([1 + w, -(2 * p + w), p * p]).real).tolist())


def wilson_by_counts(k, n, z=1.96):
    half = z * math.sqrt(k * (n - k) / n + z * z / 4)
    return (k + z * z / 2 - half) / (n + z * z), (k + z * z / 2 + half) / (n + z * z)


def frechet_by_sqrtm(m1, S1, m2, S2):
    return np.sum((m1 - m2) ** 2) + np.trace(S1 + S2 - 2 * np.real(sqrtm(S1 @ S2)))


def frechet_by_eigenvalues(m1, S1, m2, S2):
    """S1 S2 has the eigenvalues of the symmetric product."""
    shared = np.linalg.eigvals(S1 @ S2).real.clip(min=0)
    return float(np.dot(m1 - m2, m1 - m2) + np.trace(S1) + np.trace(S2) - 2 * np.sqrt(shared).sum())


ANSWERS = {
    "count_is_right": [
        count_by_loop,
        lambda found, name, wanted, threshold: [t.name for t in found if t.score > threshold].count(name) == wanted],
    "directions": [directions_by_cases, directions_as_arrays],
    "wilson_interval": [wilson_by_roots, wilson_by_counts],
    "frechet_gaussians": [frechet_by_sqrtm, frechet_by_eigenvalues],
}
