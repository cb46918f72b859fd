"""How many images go through a network at once, on which device and in which precision.

A VAE's activations at full resolution are what fills a GPU, not its weights, so a large batch goes through in chunks
and the memory does not grow with it. Half precision is autocast's: the weights stay as they are, so that a tokenizer
has the same fingerprint however it computes, and what comes out is float32 always.
"""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fluidlab.config import check_choice, check_range

PIXELS_AT_ONCE = 2**19          # 8 images of 256x256, 128 of 64x64
PRECISIONS = (torch.float32, torch.bfloat16)


@dataclass(frozen=True)
class Chunks:
    """A rule for running a network over a batch.

    Args:
        dtype: torch.float32 or torch.bfloat16 (never float16, in which some autoencoders overflow).
        max_batch: images at once; None for as many as have PIXELS_AT_ONCE pixels, and at least one.
    """

    dtype: torch.dtype = torch.float32
    max_batch: int | None = None

    def __post_init__(self):
        check_choice("dtype", self.dtype, PRECISIONS)
        if self.max_batch is not None:
            check_range("max_batch", self.max_batch, 1, kind=int)

    def size(self, pixels: int) -> int:
        """Images at once, of so many pixels each."""
        return self.max_batch or max(1, PIXELS_AT_ONCE // pixels)

    def _precision(self, weight: Tensor):
        """Autocast where it has something to do: not every device knows it."""
        if self.dtype == torch.float32 or weight.dtype != torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(weight.device.type, self.dtype)

    def __call__(self, step: Callable[[Tensor], Tensor], batch: Tensor, pixels: int, weight: Tensor,
                 after: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """Run `step` over the batch.

        Args:
            step: a chunk on the weights' device to what comes of it, also (b, ...); in the precision.
            batch: (B, ...) on any device.  pixels: of one image.
            weight: one of the network's, for its device and dtype.
            after: from the float32 answer to the one that is wanted, always in float32; a search for the nearest
                code, for example, must not be rounded.

        Returns:
            (B, ...) on the device of `batch`, float32 unless `after` makes whole numbers.
        """
        answers = []
        for chunk in batch.split(self.size(pixels)):
            chunk = chunk.to(device=weight.device, dtype=weight.dtype if chunk.is_floating_point() else None)
            with self._precision(weight):
                answer = step(chunk)
            answer = answer.float()
            answer = answer if after is None else after(answer)
            answers.append(answer.to(batch.device))
        return answers[0] if len(answers) == 1 else torch.cat(answers)
