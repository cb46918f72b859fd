import math

import numpy as np
from scipy.stats import linregress


def law_by_lstsq(sizes, losses):
    lines = np.column_stack([np.ones(len(sizes)), -np.log10(sizes)])
    log_a, b = np.linalg.lstsq(lines, np.log10(losses), rcond=None)[0]
    return 10**log_a, b


def law_by_sums(sizes, losses):
    x, y = np.log2(sizes), np.log2(losses)
    b = -np.sum((x - x.mean()) * (y - y.mean())) / np.sum((x - x.mean()) ** 2)
    return 2 ** (y.mean() + b * x.mean()), b


def error_by_pairs(sizes, losses):
    rest = [(n, loss) for n, loss in zip(sizes, losses, strict=True) if n < max(sizes)]
    a, b = law_by_sums(*zip(*rest, strict=True))
    measured = np.mean([loss for n, loss in zip(sizes, losses, strict=True) if n == max(sizes)])
    return a * max(sizes) ** -b / measured - 1


def error_by_line(sizes, losses):
    n, y = np.array(sizes), np.array(losses)
    largest = n == max(n)
    line = linregress(np.log(n[~largest]), np.log(y[~largest]))
    return float(np.exp(line.intercept + line.slope * math.log(max(n))) / y[largest].mean() - 1)


def best_in_order(flops, losses, budgets):
    by_loss = sorted(range(len(losses)), key=losses.__getitem__)
    return [next((i for i in by_loss if flops[i] <= budget), -1) for budget in budgets]


def best_as_arrays(flops, losses, budgets):
    dear = np.array(flops) > np.array(budgets)[:, None]
    return np.where(dear.all(axis=1), -1, np.where(dear, np.inf, losses).argmin(axis=1))


def correlation_by_sums(x, y):
    x, y = np.array(x) - np.mean(x), np.array(y) - np.mean(y)
    r = x @ y / math.sqrt((x @ x) * (y @ y))
    z, half = math.log((1 + r) / (1 - r)) / 2, 1.96 / math.sqrt(len(x) - 3)
    return [r, *((math.exp(2 * end) - 1) / (math.exp(2 * end) + 1) for end in (z - half, z + half))]


def correlation_of_standardised(x, y):
    r = float(np.mean((x - np.mean(x)) / np.std(x) * ((y - np.mean(y)) / np.std(y))))
    ends = np.tanh(np.arctanh(r) + np.array([-1.96, 1.96]) * (len(x) - 3) ** -0.5)
    return r, float(ends[0]), float(ends[1])


ANSWERS = {
    "power_law": [law_by_lstsq, law_by_sums],
    "held_out_error": [error_by_pairs, error_by_line],
    "best_within": [best_in_order, best_as_arrays],
    "correlation": [correlation_by_sums, correlation_of_standardised],
}
