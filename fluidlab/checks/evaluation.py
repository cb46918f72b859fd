"""Checks of notebook 07: an exact count, left and right, Wilson's interval, the distance of two Gaussians."""

import math

import numpy as np

from fluidlab.checks.check import Check
from fluidlab.evaluate.detector import Detection
from fluidlab.evaluate.frechet import Gaussian, frechet_between
from fluidlab.evaluate.sceneval import judge, relations
from fluidlab.evaluate.statistics import wilson


def _found(*pairs):
    """Objects of these names and scores, all at one place."""
    return [Detection(name, "red", (0.0, 0.0, 16.0, 16.0), score) for name, score in pairs]


def _count_is_right(found, name, wanted, threshold):
    sure = [thing for thing in found if thing.score > threshold]
    return judge({"skill": "counting", "heldout": False, "relation": None,
                  "objects": [{"class": name, "color": None}] * wanted}, sure).correct


def _counted(found, name, threshold):
    return sum(thing.name == name and thing.score > threshold for thing in found)


check_count_is_right = Check(
    "count_is_right", _count_is_right,
    cases={"two dogs, two are asked for": (_found(("dog", 0.9), ("dog", 0.8)), "dog", 2, 0.5),
           "three dogs, two are asked for": (_found(("dog", 0.9), ("dog", 0.8), ("dog", 0.7)), "dog", 2, 0.5),
           "one dog, two are asked for": (_found(("dog", 0.9)), "dog", 2, 0.5),
           "two dogs and a cat, two dogs are asked for": (
               _found(("cat", 0.95), ("dog", 0.9), ("dog", 0.8)), "dog", 2, 0.5),
           "two dogs and a doubtful third": (_found(("dog", 0.9), ("dog", 0.8), ("dog", 0.3)), "dog", 2, 0.5),
           "a third dog whose score is the threshold": (
               _found(("dog", 0.9), ("dog", 0.8), ("dog", 0.5)), "dog", 2, 0.5),
           "nothing found, one cup is asked for": ([], "cup", 1, 0.5),
           "a lower threshold": (_found(("cup", 0.4)), "cup", 1, 0.3)},
    mistakes={
        "more than wanted passes: the count must be exact, one too many is wrong too.":
            lambda found, name, wanted, threshold: _counted(found, name, threshold) >= wanted,
        "fewer than wanted passes: the count must be exact, one too few is wrong too.":
            lambda found, name, wanted, threshold: _counted(found, name, threshold) <= wanted,
        "objects of all classes are counted: only those with the asked name count.":
            lambda found, name, wanted, threshold: sum(thing.score > threshold for thing in found) == wanted,
        "doubtful objects are counted: only scores above the threshold count.":
            lambda found, name, wanted, threshold: _counted(found, name, -1) == wanted,
        "the comparison is turned round: the sure objects count, with scores above the threshold.":
            lambda found, name, wanted, threshold: sum(
                thing.name == name and thing.score < threshold for thing in found) == wanted,
        "a score equal to the threshold is counted: it must be above.":
            lambda found, name, wanted, threshold: sum(
                thing.name == name and thing.score >= threshold for thing in found) == wanted,
        "this is the number of objects: return whether it is the wanted one, True or False.":
            lambda found, name, wanted, threshold: _counted(found, name, threshold),
        "the threshold is fixed at 0.5: take the one that is given.":
            lambda found, name, wanted, threshold: _counted(found, name, 0.5) == wanted,
    })


NAMES = (("left of", "right of"), ("above", "below"))


def _directions(a, b):
    return relations(a, b)


def _middle(box):
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def _with(margin=lambda a, b: 0.1 * (a + b), middle=_middle, whole=lambda offset, beyond: math.hypot(*offset),
          least=0.5, names=NAMES):
    """GenEval's rule with one of its parts exchanged."""
    def directions(a, b):
        offset = [p - q for p, q in zip(middle(a), middle(b), strict=True)]
        beyond = [max(0.0, abs(offset[k]) - margin(a[k + 2] - a[k], b[k + 2] - b[k])) for k in (0, 1)]
        if not any(beyond):
            return set()
        length = whole(offset, beyond)
        return {names[k][offset[k] > 0] for k in (0, 1) if beyond[k] / length > least}
    return directions


def _by_division(a, b):
    if _middle(a) == _middle(b):
        raise ZeroDivisionError("float division by zero")
    return _directions(a, b)


def _nearest(a, b):
    """Only the axis on which the middles are further apart."""
    offset = [p - q for p, q in zip(_middle(a), _middle(b), strict=True)]
    axis = abs(offset[1]) > abs(offset[0])
    return _directions(a, b) & set(NAMES[axis])


BOX, LARGE = (20.0, 20.0, 40.0, 40.0), (0.0, 4.0, 36.0, 40.0)

check_directions = Check(
    "directions", _directions,
    cases={"far to the left": ((0.0, 20.0, 10.0, 40.0), BOX), "far to the right": ((44.0, 22.0, 64.0, 42.0), BOX),
           "straight above": ((22.0, 0.0, 38.0, 10.0), BOX), "below": ((20.0, 46.0, 40.0, 62.0), BOX),
           "right and below": ((44.0, 44.0, 64.0, 64.0), BOX), "the same place": (BOX, BOX),
           "3 pixels to the right of a box of 20": ((23.0, 20.0, 43.0, 40.0), BOX),
           "a large box 12 pixels to the left": (LARGE, BOX),
           "edges that begin far apart, middles that do not": ((8.0, 8.0, 54.0, 52.0), BOX),
           "right, and a little below": ((50.0, 27.0, 60.0, 47.0), BOX),
           "just beyond the margin": ((25.5, 20.0, 45.5, 40.0), BOX),
           "20 to the right and 14 below": ((40.0, 34.0, 60.0, 54.0), BOX)},
    mistakes={
        "the two boxes are exchanged: say where a lies as seen from b, so the offset is a's middle minus b's.":
            lambda a, b: _directions(b, a),
        "above and below are exchanged: y grows downwards in an image.":
            _with(names=(NAMES[0], NAMES[1][::-1])),
        "there is no margin: 0.1 times the sum of both sides comes off each offset first.":
            _with(margin=lambda a, b: 0.0),
        "the margin knows one box only: it is 0.1 times the sum of the sides of both.":
            _with(margin=lambda a, b: 0.1 * b),
        "corners are compared: take the middles of the boxes, (left + right) / 2 and (top + bottom) / 2.":
            _with(middle=lambda box: box[:2]),
        "only the stronger direction is named: near a diagonal two hold.": _nearest,
        "what is beyond the margin is compared with its own length: compare with the whole distance of the middles.":
            _with(whole=lambda offset, beyond: math.hypot(*beyond)),
        "anything beyond the margin counts: it must also be more than half of the whole distance.": _with(least=0.0),
        "this is a list: return a set, which has no order.": lambda a, b: sorted(_directions(a, b)),
        "two boxes with the same middle have the distance 0: write step 3 as a product, which divides by nothing.":
            _by_division,
        "right and bottom are taken for width and height: a width is right - left, a height bottom - top.":
            lambda a, b: _with(margin=lambda *_: 0.1 * (a[2] + b[2]))(a, b) & set(NAMES[0])
            | _with(margin=lambda *_: 0.1 * (a[3] + b[3]))(a, b) & set(NAMES[1]),
        'the words are "left of" and "right of", with "of".':
            lambda a, b: {word.split()[0] for word in _directions(a, b)},
    })


Z = 1.96


def _wilson_interval(successes, trials):
    found = wilson(successes, trials)
    return found.low, found.high


def _interval(z=Z, z2=Z * Z, pull=True, inside=True, shrink=True, squared=True):
    """Wilson's interval with some of its parts left out or exchanged."""
    def interval(successes, trials):
        share = successes / trials
        middle = (share + z2 / (2 * trials)) if pull else share * (1 + z2 / trials)
        half = z * (share * (1 - share) / trials + (z2 / (4 * trials**(1 + squared)) if inside else 0)) ** 0.5
        below = 1 + z2 / trials if shrink else 1
        return (middle - half) / below, (middle + half) / below
    return interval


def _plain(successes, trials):
    share = successes / trials
    half = Z * (share * (1 - share) / trials) ** 0.5
    return share - half, share + half


def _divided_in_part(successes, trials):
    low, high = _interval(shrink=False)(successes, trials)
    middle, half = (low + high) / 2, (high - low) / 2 / (1 + Z * Z / trials)
    return middle - half, middle + half


def _middle_and_half(successes, trials):
    low, high = _wilson_interval(successes, trials)
    return (low + high) / 2, (high - low) / 2


check_wilson_interval = Check(
    "wilson_interval", _wilson_interval,
    cases={"8 of 10": (8, 10), "none of 5": (0, 5), "all of 20": (20, 20), "1 of 1": (1, 1), "480 of 600": (480, 600)},
    mistakes={
        "this is p +- z sqrt(p (1 - p) / n): it leaves 0 to 1, and has no width at both ends.": _plain,
        "z is missing: 95 % lie within 1.96 standard errors, not within 1.": _interval(z=1.0, z2=1.0),
        "z is 1.645, which leaves 5 % on each side: for 95 % in all it is 1.96.": _interval(z=1.645, z2=1.645**2),
        "z is not squared where the formula has z^2.": _interval(z2=Z),
        "the middle stays at p: it is pulled towards one half, by z^2 / 2n.": _interval(pull=False),
        "the root lacks its second term, z^2 / 4n^2, which gives the ends a width.": _interval(inside=False),
        "the division by 1 + z^2 / n is missing.": _interval(shrink=False),
        "only the root is divided by 1 + z^2 / n: the middle must be too, so put both in brackets.": _divided_in_part,
        "this is the middle and half of the width: return the lower and the upper end.": _middle_and_half,
        "this is in per cent: a share goes from 0 to 1.":
            lambda successes, trials: tuple(100 * end for end in _wilson_interval(successes, trials)),
        "the root is not multiplied by z.": _interval(z=1.0),
        "the two ends are exchanged: return the lower one first.":
            lambda successes, trials: _wilson_interval(successes, trials)[::-1],
        "n is not squared under the root: the second term is z^2 / 4n^2.": _interval(squared=False),
    })


def _frechet_gaussians(m1, S1, m2, S2):
    return frechet_between(Gaussian(m1, S1, 2), Gaussian(m2, S2, 2))


def _root(S):
    """The symmetric root of a covariance."""
    values, vectors = np.linalg.eigh(S)
    return vectors * np.sqrt(values.clip(min=0)) @ vectors.T


def _root_of_rows(S):
    values, vectors = np.linalg.eigh(S)
    return vectors.T * np.sqrt(values.clip(min=0)) @ vectors


def _between(root, S2):
    """The trace of the root of root S2 root."""
    return np.sqrt(np.linalg.eigvalsh(root @ S2 @ root).clip(min=0)).sum()


def _apart(m1, m2):
    return float(((m1 - m2) ** 2).sum())


def _spread(S1, S2, between):
    """tr S1 + tr S2 - 2 `between`."""
    return float(np.trace(S1) + np.trace(S2) - 2 * between)


def _spread_of_own(S1, S2):
    return _frechet_gaussians(np.zeros(len(S1)), S1, np.zeros(len(S1)), S2)


def _unclipped(m1, S1, m2, S2):
    values = np.linalg.eigh(S1)[0]
    return float("nan") if (values < 0).any() else _frechet_gaussians(m1, S1, m2, S2)


@np.errstate(invalid="ignore")
def _entry_by_entry(m1, S1, m2, S2):
    return _apart(m1, m2) + _spread(S1, S2, np.sqrt(np.sqrt(S1) @ S2 @ np.sqrt(S1)).trace())


def _as_spectrum(m1, S1, m2, S2):
    """The trace of the product itself, without its root."""
    return _apart(m1, m2) + _spread(S1, S2, np.trace(S1 @ S2))


ZERO, EYE, LONG = np.zeros(2), np.eye(2), np.array([[4.0, 1.5], [1.5, 1.0]])
TURNED = np.array([[1.0, -1.2], [-1.2, 4.0]])

check_frechet_gaussians = Check(
    "frechet_gaussians", _frechet_gaussians,
    cases={"the same twice": (ZERO, LONG, ZERO, LONG), "moved by (3, 1)": (ZERO, EYE, np.array([3.0, 1.0]), EYE),
           "twice as wide": (ZERO, EYE, ZERO, 4 * EYE), "two that are turned": (ZERO, LONG, ZERO, TURNED),
           "moved and turned, 3 features": (np.array([1.0, 0.0, 2.0]), np.diag([1.0, 4.0, 9.0]) + 0.5, np.ones(3),
                                            np.diag([2.0, 1.0, 3.0]) - 0.2),
           "a variance that rounding has left at -1e-9": (ZERO, np.diag([1.0, -1e-9]), ZERO, EYE)},
    mistakes={
        "the distance of the means is not squared.": lambda m1, S1, m2, S2:
            _apart(m1, m2) ** 0.5 + _spread_of_own(S1, S2),
        "the result has been rooted: d stays squared, as a variance is.": lambda m1, S1, m2, S2:
            _frechet_gaussians(m1, S1, m2, S2) ** 0.5,
        "the covariances are missing: this is the distance of the means alone.": lambda m1, S1, m2, S2: _apart(m1, m2),
        "the means are missing: this is the distance of the covariances alone.": lambda m1, S1, m2, S2:
            _spread_of_own(S1, S2),
        "only the variances are compared: the covariances beside the diagonal count too.": lambda m1, S1, m2, S2:
            _apart(m1, m2) + float(((np.diag(S1).clip(min=0) ** 0.5 - np.diag(S2) ** 0.5) ** 2).sum()),
        "the root was taken of each entry: the root of a matrix takes those of its eigenvalues.":
            _entry_by_entry,
        "the 2 before the last root is missing.": lambda m1, S1, m2, S2:
            _apart(m1, m2) + _spread(S1, S2, (np.trace(S1) + np.trace(S2) - _spread_of_own(S1, S2)) / 4),
        "the last root is missing: sum the roots of the eigenvalues, not the eigenvalues.": _as_spectrum,
        "the two roots are multiplied: their product is no covariance; root S1^1/2 S2 S1^1/2 as a whole.":
            lambda m1, S1, m2, S2: _apart(m1, m2) + _spread(S1, S2, np.trace(_root(S1) @ _root(S2))),
        "an eigenvalue below 0 was rooted, which gives nan: rounding makes some, so clip them at 0.": _unclipped,
        "rows were taken for eigenvectors: they are the columns of V, so the root is V diag(..) V^T.":
            lambda m1, S1, m2, S2: _apart(m1, m2) + _spread(S1, S2, _between(_root_of_rows(S1), S2)),
    })
