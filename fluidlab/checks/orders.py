"""Checks of notebook 03: who may look at whom, the shift by one, and the cosine schedule."""

import math

import torch

from fluidlab.checks.check import Check
from fluidlab.model.orders.random_order import RandomOrder
from fluidlab.model.orders.raster import RasterOrder


def _causal_mask(n):
    return torch.ones(n, n, dtype=torch.bool).tril()


check_causal_mask = Check(
    "causal_mask", _causal_mask,
    cases={"1 position": (1,), "4 positions": (4,), "7 positions": (7,)},
    mistakes={
        "rows and columns are exchanged: row i looks, column j is looked at.": lambda n: _causal_mask(n).T,
        "the diagonal is missing: a position may look at itself, the shift by one takes care of the rest.":
            lambda n: torch.ones(n, n, dtype=torch.bool).tril(-1),
        "True and False are exchanged: here True means that i may look at j.": lambda n: ~_causal_mask(n),
        "everybody looks at everybody: that is the rule of random order.":
            lambda n: torch.ones(n, n, dtype=torch.bool),
        "numbers instead of truth values: a mask is of type bool.": lambda n: _causal_mask(n).float(),
        "one position too much is allowed: i must not look at i + 1.":
            lambda n: torch.ones(n, n, dtype=torch.bool).tril(1),
    })


def _shift_by_one(x, start):
    order = RasterOrder(x.shape[-1])
    order.start_token.data = start
    return order.inputs(x, None)


def _start_in_the_way(x, start):
    return torch.cat([start.expand(len(x), 1, -1), x], dim=1)


def _tokens(B, N, D):
    """Tokens that can be told apart: the number of each, from 1."""
    return torch.arange(1.0, B * N * D + 1).view(B, N, D)


check_shift_by_one = Check(
    "shift_by_one", _shift_by_one,
    cases={"a single token": (_tokens(1, 1, 2), torch.tensor([-1.0, -2.0])),
           "4 tokens of 3 numbers": (_tokens(1, 4, 3), torch.tensor([-1.0, -2.0, -3.0])),
           "a batch of 2": (_tokens(2, 5, 2), torch.tensor([-1.0, -2.0]))},
    mistakes={
        "the last token has come to the front: torch.roll goes round, and position 0 would see the end of the image.":
            lambda x, start: torch.roll(x, 1, dims=1),
        "the tokens have moved to the left: position i must be fed token i - 1, not i + 1.":
            lambda x, start: torch.cat([x[:, 1:], start.expand(len(x), 1, -1)], dim=1),
        "the last token is still there: it would be the input of a position that does not exist.": _start_in_the_way,
        "zeros stand in place of the start token, which is learned.":
            lambda x, start: torch.cat([torch.zeros_like(x[:, :1]), x[:, :-1]], dim=1),
        "the first token is overwritten and nothing has moved: every position is fed its own answer.":
            lambda x, start: torch.cat([start.expand(len(x), 1, -1), x[:, 1:]], dim=1),
        "the batch has been shifted instead of the positions: the dimensions are (B, N, D).":
            lambda x, start: torch.cat([start.expand(1, *x.shape[1:]), x[:-1]], dim=0),
    })


def _steps(unknown_after):
    """Chunk sizes from (N, k, K) -> unknown tokens after step k."""
    def sizes(N, K):
        unknown = [N, *(unknown_after(N, k, K) for k in range(K))]
        return [before - after for before, after in zip(unknown, unknown[1:], strict=False)]
    return sizes


def _bounded(unknown_after):
    """The same with both bounds: a step fills one token or more, and leaves one for each step to come."""
    def sizes(N, K):
        filled, unknown = [], N
        for k in range(K):
            left = max(min(unknown_after(N, k, K), unknown - 1), K - k - 1)
            filled.append(unknown - left)
            unknown = left
        return filled
    return sizes


def _cosine_schedule(N, K):
    return RandomOrder(1).chunk_sizes(N, K)


def _cosine(N, k, K):
    return math.floor(N * math.cos(math.pi / 2 * (k + 1) / K) + 1e-9)


check_cosine_schedule = Check(
    "cosine_schedule", _cosine_schedule,
    cases={"16 tokens in 4 steps": (16, 4), "256 tokens in 16 steps": (256, 16), "10 tokens in 1 step": (10, 1),
           "16 tokens in 16 steps": (16, 16), "12 tokens in 9 steps": (12, 9),
           "64 tokens in 39 steps, where floating point falls short of a whole number": (64, 39)},
    mistakes={
        "many first, few at the end: the cosine counts the tokens that are still unknown, not those that are known.":
            _steps(lambda N, k, K: N - math.floor(N * math.sin(math.pi / 2 * (k + 1) / K) + 1e-9)),
        "each step fills as many as the others: that is a straight line, not a cosine.":
            _steps(lambda N, k, K: N - math.floor(N * (k + 1) / K)),
        "these are the tokens that are still unknown after each step: return how many each step fills.":
            lambda N, K: [_cosine(N, k, K) for k in range(K)],
        "off by one: after the first of K steps the share of steps done is 1 / K, not 0.":
            _steps(lambda N, k, K: math.floor(N * math.cos(math.pi / 2 * k / K) + 1e-9)),
        "half of the angle is missing: the cosine must reach 0 at the last step, so it runs to pi / 2.":
            _steps(lambda N, k, K: math.floor(N * math.cos(math.pi * (k + 1) / K) + 1e-9)),
        "a step fills nothing: every one must fill at least one token, and leave one for each step to come.":
            _steps(_cosine),
        "the unknown tokens are rounded up instead of down.":
            _steps(lambda N, k, K: math.ceil(N * math.cos(math.pi / 2 * (k + 1) / K) - 1e-9)),
        "the unknown tokens are rounded to the nearest whole number instead of down.":
            _bounded(lambda N, k, K: round(N * math.cos(math.pi / 2 * (k + 1) / K))),
        "off by one: after step k, counted from 0, k + 1 steps are done.":
            _bounded(lambda N, k, K: math.floor(N * math.cos(math.pi / 2 * k / K) + 1e-9)),
        "1e-9 is missing: where the cosine gives a whole number, floating point may fall short of it.":
            _bounded(lambda N, k, K: math.floor(N * math.cos(math.pi / 2 * (k + 1) / K))),
    })
