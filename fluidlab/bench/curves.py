"""How time and memory grow with tokens, images, steps and parameters: measured, and the exponent beside the expected.

A cost that is a power of something is a straight line on logarithmic axes, and its slope is the exponent.
"""

import math
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fluidlab.bench.clock import seconds_of
from fluidlab.bench.rows import Row
from fluidlab.bench.sampling import GUIDANCE, model_of, text_of
from fluidlab.model.fluid import Fluid
from fluidlab.sample.generate import generate


class PeakBytes(TorchDispatchMode):
    """Within it, `peak` is the largest number of bytes that tensors made there held at once."""

    def __init__(self):
        super().__init__()
        self.live, self.now, self.peak = {}, 0, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        given = {t.untyped_storage()._cdata for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)}
        for t in tree_leaves(out):
            if isinstance(t, torch.Tensor) and (key := t.untyped_storage()._cdata) not in given | set(self.live):
                self._hold(key, t.untyped_storage())
        return out

    def _hold(self, key: int, storage) -> None:
        self.live[key] = storage.nbytes()
        self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._release, key)

    def _release(self, key: int) -> None:
        self.now -= self.live.pop(key, 0)


@dataclass(frozen=True)
class Axis:
    """What is varied.

    Args:
        name: of it.  values: at which it is measured.  run: a value -> (the model, a call that draws one batch).
        expected: the exponent of the time that theory gives at large values, in words.
    """

    name: str
    values: tuple[int, ...]
    run: Callable[[int], tuple[Fluid, Callable]]
    expected: str


def axes() -> list[Axis]:
    """All of them; random order takes a quarter as many steps as tokens, as the paper does."""
    def drawing(order: str, head: str, *, tokens: int = 64, batch: int = 1, size: str = "mini", steps: int = 10):
        model = model_of(order, head, tokens, size)
        text = text_of(model, batch)
        options = {"num_inference_steps": None if model.order.causal else tokens // 4, "guidance_scale": GUIDANCE}
        return model, lambda: generate(model, *text, num_denoising_steps=steps,
                                       generator=torch.Generator().manual_seed(0), **options)
    tokens, sizes = (64, 256, 1024), ("nano", "micro", "mini", "midi")
    return [
        Axis("tokens, raster-softmax", tokens, lambda n: drawing("raster", "softmax", tokens=n),
             "1 (a token a step), 2 where attention leads"),
        Axis("tokens, random-softmax", tokens, lambda n: drawing("random", "softmax", tokens=n),
             "2 (all tokens in each of n / 4 steps), 3 where attention leads"),
        Axis("images, random-softmax", (1, 4, 16, 64), lambda n: drawing("random", "softmax", batch=n), "1"),
        Axis("denoising steps, raster-diffusion", (5, 10, 25, 100),
             lambda n: drawing("raster", "diffusion", tokens=16, steps=n), "1 where the head leads"),
        Axis("size, random-softmax", tuple(range(len(sizes))),
             lambda i: drawing("random", "softmax", size=sizes[i], batch=4), "1 in parameters of the backbone"),
    ]


def curve_rows(axis: Axis, repeats: int) -> Iterator[Row]:
    """A row for every value of an axis, its technique "axis at value"; per_second counts calls."""
    for value in axis.values:
        model, draw = axis.run(value)
        seconds = seconds_of({"draw": draw}, repeats)["draw"]
        with PeakBytes() as memory:
            draw()
        at = model.count_parameters()["backbone"] if axis.name.startswith("size") else value
        yield Row(f"curve: {axis.name}", str(at), 1, model.config.seq_len, 1 / seconds, 1.0,
                  memory_mb=memory.peak / 1e6)


def exponents(rows: list[Row]) -> tuple[float, float]:
    """Of time and of memory: slopes on logarithmic axes between the last two rows, where each has found its power."""
    a, b = rows[-2:]
    span = math.log(float(b.technique) / float(a.technique))
    return math.log(a.per_second / b.per_second) / span, math.log(b.memory_mb / a.memory_mb) / span
