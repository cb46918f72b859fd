"""Random order: some tokens are hidden behind one learned mask token and predicted from all the others, as BERT does.

What to notice: attention is bidirectional, position and content are separate (a hidden token still knows where it is,
because positions are added later), and the training mask is the state that sampling passes through: the tail of a
random permutation, as long as a point of the cosine schedule says (MaskGIT, arXiv 2202.04200; MAR, 2406.11838).
"""

import math

import torch
from torch import Tensor, nn

from fluidlab.layers import fill_normal
from fluidlab.model.noise import Streams, uniform


class RandomOrder(nn.Module):
    """Masked prediction with bidirectional attention."""

    causal = False

    def __init__(self, width: int):
        super().__init__()
        self.mask_token = nn.Parameter(torch.empty(width))
        self.init_weights()

    def init_weights(self) -> None:
        fill_normal(self.mask_token, 0.02)

    def targets(self, B: int, N: int, generator: Streams = None, device="cpu") -> Tensor:
        """Hide ceil(N cos(pi u / 2)) tokens with u ~ U(0, 1), mean ratio 2/pi: (B, N) bool, True = to be predicted."""
        ratio = torch.cos(math.pi / 2 * uniform((B, 1), generator, device))          # (B, 1)
        num_targets = (N * ratio).ceil().clamp(1, N)                                 # (B, 1)
        place = self.permutation(B, N, generator, device).argsort(dim=1)             # (B, N) place of each position
        return place >= N - num_targets                                              # its tail

    def inputs(self, x: Tensor, is_target: Tensor) -> Tensor:
        """(B, N, D) embedded tokens, (B, N) bool -> the mask token where a token is unknown."""
        return torch.where(is_target[..., None], self.mask_token.to(x.dtype), x)     # (B, N, D)

    def permutation(self, B: int, N: int, generator: Streams = None, device="cpu") -> Tensor:
        """In which order sampling fills the positions: (B, N), a random permutation per image."""
        return uniform((B, N), generator, device).argsort(dim=1)

    def chunk_sizes(self, N: int, num_steps: int | None = None) -> list[int]:
        """How many positions each sampling step fills: few first, many at the end, at least one.

        After step k of K there are N cos(pi/2 (k+1)/K) unknown left, rounded down and bent so that each step fills at
        least one token and leaves at least one for each step to come.

        Raises:
            ValueError: more steps than tokens, or fewer than one.
        """
        K = min(N, 64) if num_steps is None else num_steps
        if not 1 <= K <= N:
            raise ValueError(f"num_inference_steps must be from 1 to the number of tokens {N}, got {K}.")
        sizes, unknown = [], N
        for k in range(K):
            left = math.floor(N * math.cos(math.pi / 2 * (k + 1) / K) + 1e-9)
            left = max(min(left, unknown - 1), K - k - 1)
            sizes.append(unknown - left)
            unknown = left
        return sizes
