"""Raster order: left to right, top to bottom, each token predicted from all before it, as GPT does with words.

What to notice: the inputs are the tokens shifted right by one behind a learned start token, so z at position n has
seen tokens 0 .. n-1 and nothing else. The last token is therefore never an input.
"""

import torch
from torch import Tensor, nn

from fluidlab.layers import fill_normal
from fluidlab.model.noise import Streams


class RasterOrder(nn.Module):
    """Next-token prediction with causal attention."""

    causal = True

    def __init__(self, width: int):
        super().__init__()
        self.start_token = nn.Parameter(torch.empty(width))
        self.init_weights()

    def init_weights(self) -> None:
        fill_normal(self.start_token, 0.02)

    def targets(self, B: int, N: int, generator: Streams = None, device="cpu") -> Tensor:
        """Every position is predicted in every step: (B, N) bool, all True."""
        return torch.ones(B, N, dtype=torch.bool, device=device)

    def inputs(self, x: Tensor, is_target: Tensor) -> Tensor:
        """(B, N, D) embedded tokens -> the same shifted right by one. `is_target` is not needed: causality hides."""
        start = self.start_token.to(x.dtype).expand(len(x), 1, -1)      # (B, 1, D)
        return torch.cat([start, x[:, :-1]], dim=1)                     # (B, N, D)

    def permutation(self, B: int, N: int, generator: Streams = None, device="cpu") -> Tensor:
        """In which order sampling fills the positions: (B, N), 0 .. N-1 for every image."""
        return torch.arange(N, device=device).expand(B, N)

    def chunk_sizes(self, N: int, num_steps: int | None = None) -> list[int]:
        """How many positions each sampling step fills: always one.

        Raises:
            ValueError: `num_steps` is given and is not N.
        """
        if num_steps not in (None, N):
            raise ValueError(f"raster order takes one step for each of its {N} tokens, "
                             f"got num_inference_steps {num_steps}.")
        return [1] * N
