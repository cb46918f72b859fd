"""Checks of notebook 06: guided probabilities, guidance that grows, a mask and its ring, the loop that fills a hole."""

import torch

from fluidlab.checks.check import Check
from fluidlab.model.guidance import guide, scale_at
from fluidlab.sample.edit import grow


def _guided_probabilities(text, null, scale, temperature):
    return (guide(text, null, scale) / temperature).softmax(dim=-1)


_TEXT = torch.tensor([[2.0, 0.5, -1.0, 0.0], [0.3, 1.2, 0.9, -2.0]])
_NULL = torch.tensor([[0.5, 1.0, 0.2, -0.5], [1.0, 0.1, 1.1, 0.4]])

check_guidance = Check(
    "guided_probabilities", _guided_probabilities,
    cases={"scale 0": (_TEXT, _NULL, 0.0, 1.0), "scale 1": (_TEXT, _NULL, 1.0, 1.0),
           "scale 3": (_TEXT, _NULL, 3.0, 1.0), "scale 3 at temperature 0.5": (_TEXT, _NULL, 3.0, 0.5)},
    mistakes={
        "guidance comes after the softmax: it is the scores that are guided; probabilities would become negative.":
            lambda text, null, scale, temperature: guide(
                (text / temperature).softmax(dim=-1), (null / temperature).softmax(dim=-1), scale),
        "text and null are exchanged: the way begins at null, and scale 1 must give the text's answer.":
            lambda text, null, scale, temperature: _guided_probabilities(null, text, scale, temperature),
        "the difference has the wrong sign: it leads from null to text, text - null.":
            lambda text, null, scale, temperature: _guided_probabilities(text, null, -scale, temperature),
        "the way begins at the text: there scale 0 would be the text's answer; here scale 1 is, and 0 is null's.":
            lambda text, null, scale, temperature: _guided_probabilities(text, null, 1 + scale, temperature),
        "only the text's part is scaled: null + scale x text is no way from one to the other.":
            lambda text, null, scale, temperature: ((null + scale * text) / temperature).softmax(dim=-1),
        "the scores are multiplied by the temperature: divide by it, so that a low one makes the likely likelier.":
            lambda text, null, scale, temperature: _guided_probabilities(text, null, scale, 1 / temperature),
        "the temperature is ignored.":
            lambda text, null, scale, temperature: _guided_probabilities(text, null, scale, 1.0),
        "the probabilities are divided by the temperature: divide the scores, before the softmax.":
            lambda text, null, scale, temperature: _guided_probabilities(text, null, scale, 1.0) / temperature,
        "the softmax runs over the batch: the probabilities of one token must add up to 1.":
            lambda text, null, scale, temperature: (guide(text, null, scale) / temperature).softmax(dim=0),
        "the temperature divides the difference alone: guide first, then divide all of the result.":
            lambda text, null, scale, temperature: guide(text, null, scale / temperature).softmax(dim=-1),
        "these are scores: the softmax is still to come.":
            lambda text, null, scale, temperature: guide(text, null, scale) / temperature,
    })


def _known_after(sizes):
    return [sum(sizes[:k + 1]) / sum(sizes) for k in range(len(sizes))]


def _growing_scales(sizes, scale):
    return [scale_at("linear", scale, known) for known in _known_after(sizes)]


check_growing_scales = Check(
    "growing_scales", _growing_scales,
    cases={"16 tokens in 4 steps": ([2, 3, 5, 6], 5.0), "16 tokens in 8 steps": ([1, 1, 2, 2, 2, 2, 3, 3], 3.0),
           "a hole of 9 tokens in 3 steps": ([2, 3, 4], 4.0), "a single step": ([16], 4.0)},
    mistakes={
        "one step late: what counts is known *after* the step, so that the last one has the whole scale.":
            lambda sizes, scale: [1 + (scale - 1) * (known - size / sum(sizes))
                                  for known, size in zip(_known_after(sizes), sizes, strict=True)],
        "it grows with the steps: it has to grow with the tokens, and the steps fill different numbers of them.":
            lambda sizes, scale: [1 + (scale - 1) * (k + 1) / len(sizes) for k in range(len(sizes))],
        "it begins at 0, where the text is ignored: with nothing known the scale is 1.":
            lambda sizes, scale: [scale * known for known in _known_after(sizes)],
        "it ends at 1 + scale: only scale - 1 is left to grow.":
            lambda sizes, scale: [1 + scale * known for known in _known_after(sizes)],
        "it falls: the early steps get the small scales.":
            lambda sizes, scale: [scale - (scale - 1) * known for known in _known_after(sizes)],
        "each step looks at its own tokens alone: add up all that are known by then.":
            lambda sizes, scale: [1 + (scale - 1) * size / sum(sizes) for size in sizes],
        "it is the same in each step.": lambda sizes, scale: [scale] * len(sizes),
        "the share is one of 16 tokens: it is one of all tokens that the steps fill, sum(sizes).":
            lambda sizes, scale: [1 + (scale - 1) * known * sum(sizes) / 16 for known in _known_after(sizes)],
    })


def _ring(mask):
    return grow(mask, 1)


def _shifted(mask, dy, dx):
    """The mask moved by one place, with nothing coming in from the other side."""
    h, w = mask.shape
    wide = torch.nn.functional.pad(mask, (1, 1, 1, 1))
    return wide[1 - dy:1 - dy + h, 1 - dx:1 - dx + w]


def _union(mask, moves, move=_shifted):
    return torch.stack([mask, *(move(mask, dy, dx) for dy, dx in moves)]).any(dim=0)


_ALL = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]


def _from(rows):
    return torch.tensor([[letter == "x" for letter in row] for row in rows])


check_ring = Check(
    "ring", _ring,
    cases={"one token in the middle": (_from([".....", ".....", "..x..", ".....", "....."]),),
           "two tokens at the border": (_from(["x....", ".....", ".....", "....x"]),),
           "an empty mask": (_from(["...", "..."]),)},
    mistakes={
        "the corners are missing: of the eight neighbours, four touch with a corner only, and they belong to the ring.":
            lambda mask: _union(mask, [(-1, 0), (1, 0), (0, -1), (0, 1)]),
        "it goes round: what leaves the grid on one side must not come in on the other, as torch.roll lets it.":
            lambda mask: _union(mask, _ALL, lambda m, dy, dx: m.roll((dy, dx), (0, 1))),
        "the ring alone: the mask itself stays part of it.": lambda mask: _ring(mask) & ~mask,
        "two rings: each side grows by one token.": lambda mask: grow(mask, 2),
        "it grows to one side only: a ring lies on all sides.": lambda mask: _union(mask, [(0, 1), (1, 0), (1, 1)]),
        "the mask has shrunk: the known part lost nothing; it is the unknown, True, that grows.":
            lambda mask: ~_ring(~mask),
        "nothing has grown.": lambda mask: mask,
        "numbers instead of truth values: a mask is of type bool.": lambda mask: _ring(mask).float(),
        "the borders are lost: with padding 1 the result has the shape of the mask.":
            lambda mask: _ring(mask)[1:-1, 1:-1],
    })


def _fill(predict, tokens, unknown, order, sizes, *, open_only=True, tells_unknown=True, sees_new=True, keeps=True,
          goes_on=True, told_early=False):
    """The loop of `fluidlab.sample.generate` for one picture; a mistake leaves one of its parts out."""
    given, tokens, still, filled = tokens, tokens.clone(), unknown.clone(), 0
    places = order[unknown[order]] if open_only else order
    for size in sizes:
        now = places[filled:filled + size]
        if told_early:
            still[now] = False
        drawn = predict(tokens if sees_new else given, still)
        tokens = torch.where(torch.isin(torch.arange(len(tokens)), now), drawn, tokens) if keeps else drawn
        if tells_unknown:
            still[now] = False
        filled += size if goes_on else 0
    return tokens


def _with(**left_out):
    return lambda *question: _fill(*question, **left_out)


def _neighbourly(tokens, unknown):
    """A guess for each place that depends on the tokens, on how many are known, and on the place."""
    return tokens.sum() / 7 + (~unknown).sum() / 3 + torch.arange(len(tokens)) + tokens.roll(1)


def _hole(*places, sizes):
    """Six tokens, 0 where nothing is known, to be filled in an order that follows no pattern."""
    unknown = torch.zeros(6, dtype=torch.bool)
    unknown[list(places)] = True
    tokens = torch.tensor([10.0, 20.0, 30.0, 40.0, 50.0, 60.0]).masked_fill(unknown, 0.0)
    return _neighbourly, tokens, unknown, torch.tensor([4, 1, 5, 0, 3, 2]), sizes


check_fill = Check(
    "fill", _fill,
    cases={"everything in one step": _hole(*range(6), sizes=[6]),
           "everything in 3 steps": _hole(*range(6), sizes=[1, 2, 3]),
           "a hole of 4 in 2 steps": _hole(0, 2, 3, 5, sizes=[1, 3]),
           "a hole of 3 in 3 steps": _hole(1, 3, 4, sizes=[1, 1, 1])},
    mistakes={
        "known tokens take places in the chunks: leave them out of the order first, or they are drawn over.":
            _with(open_only=False),
        "the model is told that all of the hole is unknown, in every step: what has been drawn is known from then on.":
            _with(tells_unknown=False),
        "the model sees the tokens of the beginning in every step: it must see what has been drawn by then.":
            _with(sees_new=False),
        "all places are overwritten in each step: only those of the chunk take their new tokens.": _with(keeps=False),
        "the places are filled from left to right: they are filled as the order says.":
            lambda predict, tokens, unknown, order, sizes: _fill(
                predict, tokens, unknown, torch.arange(len(tokens)), sizes),
        "everything is drawn in one step: each chunk needs an answer of its own.":
            lambda predict, tokens, unknown, order, sizes: _fill(predict, tokens, unknown, order, [sum(sizes)]),
        "each chunk begins at the front of the order: go on where the last one ended.":
            _with(goes_on=False),
        "the last chunk is missing.":
            lambda predict, tokens, unknown, order, sizes: _fill(predict, tokens, unknown, order, sizes[:-1]),
        "the tokens of a step count as known too early: first ask the model, then say that they are known.":
            _with(told_early=True),
        "the model is asked for each token anew: ask once a step, and use its answers at all positions of the step.":
            lambda predict, tokens, unknown, order, sizes: _fill(predict, tokens, unknown, order, [1] * sum(sizes)),
        "order[unknown] asks for the wrong thing: unknown[order] says which entries of the order are unknown.":
            lambda predict, tokens, unknown, order, sizes: _fill(
                predict, tokens, unknown, torch.cat([order[unknown], order[~unknown]]), sizes, open_only=False),
    })

