"""Checks of notebook 08: a straight line in logarithms, the size held out, the best for a budget, a correlation."""

import math

import numpy as np

from fluidlab.checks.check import Check
from fluidlab.evaluate.powerlaw import fit_power_law, hold_out_largest
from fluidlab.evaluate.statistics import pearson


def _power_law(sizes, losses):
    law = fit_power_law(sizes, losses, bootstrap=0)
    return law.a, law.b


def _line(x, y):
    """Start and slope of the straight line through points."""
    slope, start = np.polyfit(np.asarray(x, dtype=float), np.asarray(y, dtype=float), 1)
    return float(start), float(slope)


def _through_the_ends(sizes, losses):
    b = -math.log(losses[-1] / losses[0]) / math.log(sizes[-1] / sizes[0])
    return losses[0] * sizes[0] ** b, b


def _fitted(x, y, undo, sign=-1):
    """A mistaken fit: what the line is drawn through, and what becomes of its start."""
    def power_law(sizes, losses):
        start, slope = _line(x(np.asarray(sizes, dtype=float)), y(np.asarray(losses, dtype=float)))
        return float(undo(start)), sign * slope
    return power_law


def _same(values):
    return values


check_power_law = Check(
    "power_law", _power_law,
    cases={"a law of a = 8, b = 0.5": ([100, 400, 10_000], [0.8, 0.4, 0.08]),
           "losses that stay alike": ([10, 100, 1000], [2.0, 2.0, 2.0]),
           "5 sizes with some noise": ([1e5, 4e5, 1e6, 7e6, 3e7], [0.61, 0.52, 0.50, 0.41, 0.39]),
           "the same size twice": ([50, 50, 200, 800], [5.1, 4.9, 4.0, 3.0])},
    mistakes={
        "b has the wrong sign: the slope of the line is -b, and b is positive when losses fall.":
            _fitted(np.log, np.log, np.exp, sign=1),
        "a is still a logarithm: the line begins at log a, so a is its exponential.":
            _fitted(np.log, np.log, _same),
        "two different logarithms: undo the one you took, exp after log, 10 ** after log10.":
            _fitted(np.log10, np.log10, np.exp),
        "the losses have no logarithm: the line is straight in log L against log N.":
            _fitted(np.log, _same, _same),
        "the sizes have no logarithm: the line is straight in log L against log N.":
            _fitted(_same, np.log, np.exp),
        "no logarithm at all: the line is straight in log L against log N.": _fitted(_same, _same, _same),
        "only the first and the last point were used: the line goes between all of them, by least squares.":
            _through_the_ends,
        "a and b are exchanged: return a first.": lambda sizes, losses: _power_law(sizes, losses)[::-1],
        "sizes and losses are exchanged in the fit: x is log N and y is log L.":
            lambda sizes, losses: _fitted(np.log, np.log, np.exp)(losses, sizes),
        "of two trainings of the same size only one was used: each is a point of the fit.":
            lambda sizes, losses: _power_law(*zip(*dict(zip(sizes, losses, strict=True)).items(), strict=True)),
    })


def _held_out_error(sizes, losses):
    return hold_out_largest(sizes, losses)[1]


def _compared(how, fitted=lambda n: n < n.max()):
    """How the law's prediction for the largest size is compared with what was measured, and what it was fitted to."""
    def held_out_error(sizes, losses):
        n, y = np.asarray(sizes, dtype=float), np.asarray(losses, dtype=float)
        law = fit_power_law(n[fitted(n)], y[fitted(n)], bootstrap=0)
        return how(float(law(n.max())), float(y[n == n.max()].mean()))
    return held_out_error


def _relative(predicted, measured):
    return (predicted - measured) / measured


def _last(sizes, losses):
    """The last of the list is held out, not the largest."""
    law = fit_power_law(sizes[:-1], losses[:-1], bootstrap=0)
    return _relative(float(law(sizes[-1])), losses[-1])


def _one_seed(sizes, losses):
    """One of the cells of the largest size is held out, the others stay in the fit."""
    place = int(np.argmax(sizes))
    rest = (np.delete(sizes, place), np.delete(losses, place))
    return _relative(float(fit_power_law(*rest, bootstrap=0)(sizes[place])), losses[place])


check_held_out_error = Check(
    "held_out_error", _held_out_error,
    cases={"an exact law": ([100, 400, 900, 10_000], [0.8, 0.4, 0.8 / 3, 0.08]),
           "losses that flatten": ([1e5, 4e5, 1e6, 7e6, 3e7], [0.60, 0.50, 0.45, 0.38, 0.36]),
           "losses that fall faster": ([1e2, 1e3, 1e4, 1e5], [0.9, 0.8, 0.6, 0.3]),
           "the largest size first": ([3e7, 1e5, 4e5, 1e6], [0.36, 0.60, 0.50, 0.45]),
           "two seeds of the largest size": ([1e5, 4e5, 1e6, 3e7, 3e7], [0.60, 0.50, 0.45, 0.37, 0.35])},
    mistakes={
        "the fit has seen the largest size: leave it out of the fit.":
            _compared(_relative, fitted=lambda n: n > 0),
        "the sign is turned: predicted minus measured, so a law that hopes for too low a loss is negative.":
            _compared(lambda predicted, measured: (measured - predicted) / measured),
        "the difference is divided by the prediction: divide by what was measured.":
            _compared(lambda predicted, measured: (predicted - measured) / predicted),
        "the sign is lost: too low is negative.": _compared(lambda *two: abs(_relative(*two))),
        "the difference is not divided by what was measured.":
            _compared(lambda predicted, measured: predicted - measured),
        "this is predicted / measured: subtract 1, so that 0 is a perfect prediction.":
            _compared(lambda predicted, measured: predicted / measured),
        "this is in per cent: 0.05 is an error of 5 %.": _compared(lambda *two: 100 * _relative(*two)),
        "the difference of the logarithms: compare the losses themselves.":
            _compared(lambda predicted, measured: math.log(predicted / measured)),
        "the last of the list was held out: hold out the largest, wherever it stands.": _last,
        "only one of the seeds was held out: all cells of the largest size must stay out of the fit.":
            _one_seed,
        "only the first seed was measured: it is the mean of the losses of all cells of the largest size.":
            lambda sizes, losses: _held_out_error(*zip(*reversed(dict(reversed(list(zip(
                sizes, losses, strict=True)))).items()), strict=True)),
    })


def _best_within(flops, losses, budgets):
    return [min((i for i, cost in enumerate(flops) if cost <= budget), key=lambda i: losses[i], default=-1)
            for budget in budgets]


def _chosen(affordable=lambda cost, budget: cost <= budget, key=lambda cost, loss: loss, nothing=-1):
    """For each budget the smallest key among what it pays for, with one of the parts exchanged."""
    def best_within(flops, losses, budgets):
        return [min((i for i, cost in enumerate(flops) if affordable(cost, budget)),
                    key=lambda i: key(flops[i], losses[i]), default=nothing) for budget in budgets]
    return best_within


def _place_among_the_affordable(flops, losses, budgets):
    rest = [[loss for cost, loss in zip(flops, losses, strict=True) if cost <= budget] for budget in budgets]
    return [kept.index(min(kept)) if kept else -1 for kept in rest]


check_best_within = Check(
    "best_within", _best_within,
    cases={"4 trainings, 3 budgets": ([40.0, 10.0, 20.0, 80.0], [0.4, 0.9, 0.6, 0.3], [15.0, 30.0, 100.0]),
           "the dearest is not the best": ([10.0, 20.0, 40.0], [0.8, 0.5, 0.6], [50.0, 12.0]),
           "the cheapest is not the worst": ([40.0, 10.0, 20.0], [0.4, 0.6, 0.9], [30.0, 50.0]),
           "a budget that is just enough": ([10.0, 20.0], [0.8, 0.5], [20.0]),
           "a budget that pays for nothing": ([10.0, 20.0], [0.8, 0.5], [5.0, 10.0]),
           "the best stands behind one that is too dear": ([90.0, 10.0, 30.0], [0.2, 0.9, 0.5], [40.0])},
    mistakes={
        "the budget is not looked at: only what costs no more than it can be chosen.":
            _chosen(affordable=lambda cost, budget: True),
        "the dearest that can be paid was taken: take the lowest loss.": _chosen(key=lambda cost, loss: -cost),
        "the cheapest was taken: take the lowest loss.": _chosen(key=lambda cost, loss: cost),
        "the highest loss was taken: a lower loss is better.": _chosen(key=lambda cost, loss: -loss),
        "the comparison is turned round: affordable is what costs no more than the budget.":
            _chosen(affordable=lambda cost, budget: cost >= budget),
        "a training that costs just the budget is refused: it can be paid.":
            _chosen(affordable=lambda cost, budget: cost < budget),
        "the place is counted among the affordable ones: return the place in the whole list.":
            _place_among_the_affordable,
        "where nothing can be paid the answer is -1, not 0: 0 is the first training.": _chosen(nothing=0),
        "this is the loss: return its place in the list.": lambda flops, losses, budgets: [
            losses[i] if i >= 0 else -1 for i in _best_within(flops, losses, budgets)],
    })


def _correlation(x, y):
    found = pearson(x, y)
    return found.value, found.low, found.high


def _pearson(x, y):
    return float(np.corrcoef(x, y)[0, 1])


def _about_zero(x, y):
    return np.dot(x, y) / math.sqrt(np.dot(x, x) * np.dot(y, y))


def _ranks(values):
    return np.argsort(np.argsort(values))


def _interval(r=_pearson, z=1.96, there=np.arctanh, back=np.tanh, less=3):
    """r and its interval, with one of the parts exchanged."""
    def correlation(x, y):
        value = r(x, y)
        half = z / math.sqrt(len(x) - less)
        return value, float(back(there(value) - half)), float(back(there(value) + half))
    return correlation


check_correlation = Check(
    "correlation", _correlation,
    cases={"5 pairs that rise together": ([1.0, 2.0, 3.0, 4.0, 6.0], [1.1, 1.7, 3.5, 3.6, 5.0]),
           "6 pairs, one falls when the other rises": ([0.9, 0.7, 0.6, 0.5, 0.45, 0.4], [0.1, 0.2, 0.2, 0.5, 0.3, 0.8]),
           "7 pairs that have little to do with each other": ([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0],
                                                              [3.0, 1.0, 4.0, 1.0, 5.0, 9.0, 2.0])},
    mistakes={
        "this is r squared, which has lost its sign.": _interval(lambda x, y: _pearson(x, y) ** 2),
        "the sign is lost: r is negative when one falls as the other rises.":
            _interval(lambda x, y: abs(_pearson(x, y))),
        "ranks were compared, which is Spearman's coefficient: Pearson's takes the numbers themselves.":
            _interval(lambda x, y: _pearson(_ranks(x), _ranks(y))),
        "n - 1 in the covariance and n in the deviations: divide by the same number, or by none.":
            np.errstate(invalid="ignore")(_interval(lambda x, y: _pearson(x, y) * len(x) / (len(x) - 1))),
        "the interval was made around r itself: go to atanh(r) first.": _interval(there=float, back=float),
        "the ends are still those of atanh(r): take tanh of them.": _interval(back=float),
        "the width is 1.96 / sqrt(n): it is 1.96 / sqrt(n - 3).": _interval(less=0),
        "1.645 leaves 5 % on each side: for 95 % in all it is 1.96.": _interval(z=1.645),
        "1.96 is missing: this is one standard error to each side.": _interval(z=1.0),
        "the means have not been subtracted: r is made of the deviations from them.": _interval(_about_zero),
        "the ends are exchanged: return r, the lower end, the upper end.":
            lambda x, y: tuple(_correlation(x, y)[k] for k in (0, 2, 1)),
        "r alone: return it with both ends of its interval, as three numbers.": _pearson,
        "the products are divided by n and the squares are not: n would cancel, so divide by it nowhere.":
            _interval(lambda x, y: _pearson(x, y) / len(x)),
    })
