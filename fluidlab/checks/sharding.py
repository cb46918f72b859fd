"""Checks of notebook 09: whose rows are whose, the state of one device, one gradient from many micro-batches."""

import math

import torch

from fluidlab.checks.check import Check
from fluidlab.train.shards import spans


def _rows_of(num_rows, devices):
    held = [len(rows) for rows in torch.arange(num_rows).chunk(devices)]
    return spans(held + [0] * (devices - len(held)), devices)


def _cut(step, clamp=min):
    """Spans of `step` rows; `clamp` keeps an end inside."""
    def rows_of(num_rows, devices):
        size = step(num_rows, devices)
        return [(clamp(k * size, num_rows), clamp((k + 1) * size, num_rows)) for k in range(devices)]
    return rows_of


def _spread(num_rows, devices):
    """The first num_rows % devices devices hold one row more."""
    ends = [k * (num_rows // devices) + min(k, num_rows % devices) for k in range(devices + 1)]
    return list(zip(ends, ends[1:], strict=False))


def _rest_to_the_last(num_rows, devices):
    size = num_rows // devices
    return [(k * size, num_rows if k == devices - 1 else (k + 1) * size) for k in range(devices)]


check_rows_of = Check(
    "rows_of", _rows_of,
    cases={"12 rows on 4 devices": (12, 4), "10 rows on 4 devices": (10, 4), "9 rows on 8 devices": (9, 8),
           "3 rows on 4 devices": (3, 4), "9 rows on 4 devices": (9, 4), "5 rows on 1 device": (5, 1)},
    mistakes={
        "the rest is spread over the first devices: each takes the rows per device rounded up, until none is left.":
            _spread,
        "the last device takes all that is left over: rows per device are rounded up, so the last has fewer, not more.":
            _rest_to_the_last,
        "rows per device are rounded down and the rest belongs to nobody: round up.": _cut(lambda n, d: n // d),
        "rows per device are rounded to the nearest whole number: round up, or some rows belong to nobody.":
            _cut(lambda n, d: round(n / d)),
        "the end is the last row itself: it is one more, as in range(first, end).": lambda n, d: [
            (first, end - 1) for first, end in _rows_of(n, d)],
        "a span goes beyond the last row: no end is larger than the number of rows.":
            _cut(lambda n, d: math.ceil(n / d), clamp=lambda place, _: place),
        "a device without rows begins beyond the end: clamp its first row too, so that first equals end.":
            lambda n, d: [(k * math.ceil(n / d), min((k + 1) * math.ceil(n / d), n)) for k in range(d)],
        "devices without rows are missing: they have a span too, in which first equals end.": lambda n, d: [
            (first, end) for first, end in _rows_of(n, d) if end > first],
        "these are numbers of rows: return where each device's rows begin and end.": lambda n, d: [
            end - first for first, end in _rows_of(n, d)],
        "these are first row and number of rows: the second number is where the rows end.": lambda n, d: [
            (first, end - first) for first, end in _rows_of(n, d)],
        "the rows are cut evenly, at k x num_rows / devices: each device takes the rows per device rounded up.":
            lambda n, d: [(k * n // d, (k + 1) * n // d) for k in range(d)],
        "a device without rows has (0, 0): its first and its end are both num_rows.": lambda n, d: [
            (first, end) if first < end else (0, 0) for first, end in _rows_of(n, d)],
    })


def _first_rows(shape, devices):
    return math.ceil(shape[0] / devices) * math.prod(shape[1:])


def _state_bytes(shapes, devices):
    return 20 * sum(_first_rows(shape, devices) for shape in shapes)


def _each(numbers, a_number=20):
    """Bytes from what one device holds of one tensor, which is where a mistake is made."""
    return lambda shapes, devices: a_number * sum(numbers(shape, devices) for shape in shapes)


check_state_bytes = Check(
    "state_bytes", _state_bytes,
    cases={"one matrix that divides evenly": ([(8, 6)], 4), "10 rows on 4 devices": ([(10, 6)], 4),
           "a matrix, a bias and a small one": ([(64, 32), (64,), (3, 64)], 4),
           "one device": ([(10, 6), (5,)], 1), "more devices than rows": ([(4, 100), (6,)], 8)},
    mistakes={
        "all numbers together are divided evenly: each tensor is cut by whole rows, rounded up.":
            lambda shapes, devices: 20 * sum(math.prod(shape) for shape in shapes) / devices,
        "rows are rounded down: the first device holds them rounded up.":
            _each(lambda shape, devices: shape[0] // devices * math.prod(shape[1:])),
        "tensors are cut between numbers: they are cut between rows, the first dimension.":
            _each(lambda shape, devices: math.ceil(math.prod(shape) / devices)),
        "tensors are cut along their last dimension: rows are the first.":
            _each(lambda shape, devices: math.ceil(shape[-1] / devices) * math.prod(shape[:-1])),
        "nothing is divided: that is the state of a single device.":
            _each(lambda shape, devices: math.prod(shape)),
        "vectors are kept whole: a bias is cut along its only dimension too.":
            _each(lambda shape, devices: _first_rows(shape, devices if len(shape) > 1 else 1)),
        "these are the weights alone: gradients, two moments and a running mean come to them, 20 bytes a number.":
            _each(_first_rows, 4),
        "one of the five is missing: weights, gradients, two moments and the running mean, 4 bytes each.":
            _each(_first_rows, 16),
        "each number has 2 bytes here: the state is float32, with 4.": _each(_first_rows, 10),
        "these are numbers, not bytes: a float32 has 4.": _each(_first_rows, 5),
        "a vector has one dimension only: math.prod(shape[1:]) is 1 for it, where shape[1] does not exist.":
            _each(lambda shape, devices: math.ceil(shape[0] / devices) * shape[1]),
        "vectors are left out: a bias and the scales of a norm are parameters too.":
            _each(lambda shape, devices: _first_rows(shape, devices) if len(shape) > 1 else 0),
        "each number has 8 bytes here: the state is float32, with 4.": _each(_first_rows, 40),
    })


def _step_gradient(means, counts):
    weights = counts / counts.sum()
    return (means.nan_to_num() * weights[..., None]).sum(dim=(0, 1))


def _weighed(values, counts, dim):
    """Means over one dimension, weighed by counts, and the sum of these counts."""
    total = counts.sum(dim=dim)
    return (values.nan_to_num() * counts[..., None]).sum(dim=dim) / total.clamp(min=1)[..., None], total


def _process_by_process(means, counts):
    return _weighed(means, counts, 1)[0].mean(dim=0)


def _plain_inside(means, counts):
    return _weighed(means.nanmean(dim=1), counts.sum(dim=1), 0)[0]


def _gradients(*numbers):
    return torch.tensor(numbers, dtype=torch.float64)


NAN = float("nan")

check_step_gradient = Check(
    "step_gradient", _step_gradient,
    cases={"1 process, 2 micro-batches": (_gradients([[1.0, 0.0], [5.0, 4.0]]), torch.tensor([[3, 1]])),
           "2 processes of 2 micro-batches": (
               _gradients([[1.0], [2.0]], [[4.0], [8.0]]), torch.tensor([[1, 2], [3, 10]])),
           "counts that are all alike": (_gradients([[1.0], [2.0]], [[4.0], [5.0]]), torch.tensor([[4, 4], [4, 4]])),
           "3 processes of 1": (_gradients([[3.0, 1.0]], [[0.0, 2.0]], [[6.0, -1.0]]), torch.tensor([[2], [5], [1]])),
           "a micro-batch without a token": (
               _gradients([[1.0], [NAN]], [[4.0], [8.0]]), torch.tensor([[4, 0], [1, 3]]))},
    mistakes={
        "a mean of means: a micro-batch weighs as much as its tokens, so each mean is multiplied by its count.":
            lambda means, counts: means.nanmean(dim=(0, 1)),
        "each process is right by itself and then all weigh the same: divide by the tokens of all processes.":
            _process_by_process,
        "processes are weighed and their micro-batches are not: multiply each mean by its own count.": _plain_inside,
        "the weights add up to 1 in each process: divide by the tokens of all processes together.":
            lambda means, counts: _weighed(means, counts, 1)[0].sum(dim=0),
        "this is a sum over tokens: divide it by the number of all tokens.":
            lambda means, counts: _step_gradient(means, counts) * counts.sum(),
        "the sum over tokens is divided by the number of micro-batches: divide it by the number of tokens.":
            lambda means, counts: _step_gradient(means, counts) * counts.sum() / counts.numel(),
        "the means are added up: multiply each by its count, and divide by the number of all tokens.":
            lambda means, counts: means.nansum(dim=(0, 1)),
        "0 times nan is nan: put 0 where the count is 0 before you multiply.":
            lambda means, counts: (means * counts[..., None]).sum(dim=(0, 1)) / counts.sum(),
        "a result for each process is left: the sum goes over processes and micro-batches.":
            lambda means, counts: _weighed(means, counts, 1)[0],
        "the means are divided by the number of tokens: multiply each by its own count first.":
            lambda means, counts: means.nansum(dim=(0, 1)) / counts.sum(),
        "nan is replaced after the sum, which it has spoiled by then: replace it in the means.":
            lambda means, counts: (means * counts[..., None]).sum(dim=(0, 1)).nan_to_num() / counts.sum(),
    })
