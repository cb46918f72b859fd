"""The codebook: V unit vectors, the nearest of which replaces what the encoder said.

Vector quantisation of van den Oord et al. 2017 (VQ-VAE, section 3.2 and appendix A.1 for the moving average), with
two later cures for codes that nobody uses. Codes and inputs live on the unit sphere, so that length cannot keep a code
out of reach (ViT-VQGAN, Yu et al. 2022, section 3.1), and a code that won nothing for long is moved onto an input of
the current batch (Jukebox, Dhariwal et al. 2020, section 3.1). No gradient reaches the codebook: each code follows
the mean of the inputs that chose it.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Codebook(nn.Module):
    """V unit vectors of `code_dim` numbers, looked up by cosine and moved by an exponential moving average."""

    def __init__(self, codebook_size: int, code_dim: int, decay: float = 0.997):
        super().__init__()
        self.decay = decay
        codes = F.normalize(torch.randn(codebook_size, code_dim), dim=1)
        self.register_buffer("codes", codes)                                          # (V, E) on the unit sphere
        # What only training needs is kept out of the shipped weights (persistent=False) and in the checkpoint.
        self.register_buffer("sums", codes.clone(), persistent=False)                 # (V, E) averaged inputs
        self.register_buffer("age", torch.zeros(codebook_size), persistent=False)     # (V,) steps since the last win

    def forward(self, x: Tensor) -> Tensor:
        """Inputs (B, E, h, w) of any length to the indices (B, h*w) of the codes at the smallest angle."""
        flat = F.normalize(x.float(), dim=1).flatten(2).transpose(1, 2)               # (B, h*w, E)
        return (flat @ self.codes.T).argmax(dim=-1)                                   # (B, h*w)

    def lookup(self, indices: Tensor, grid: tuple[int, int]) -> Tensor:
        """Indices (B, N) on `grid` to codes (B, E, h, w), scaled so that each number has unit size on average."""
        codes = self.codes[indices].transpose(1, 2)                                   # (B, E, N)
        return codes.unflatten(2, grid) * codes.shape[1] ** 0.5                       # (B, E, h, w)

    def straight_through(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """For training: the codes, with the gradient of x, the indices, and the commitment loss.

        Returns (B, E, h, w) as `lookup` does, (B, h*w) long, and the mean squared distance of inputs and codes.
        """
        indices = self(x)
        unit = F.normalize(x.float(), dim=1) * x.shape[1] ** 0.5                      # (B, E, h, w)
        codes = self.lookup(indices, x.shape[-2:])
        return unit + (codes - unit).detach(), indices, F.mse_loss(unit, codes)

    @torch.no_grad()
    def update(self, x: Tensor, indices: Tensor, generator: torch.Generator) -> None:
        """Move every winner towards its inputs, and the long unused onto inputs drawn with `generator`."""
        flat = F.normalize(x.float(), dim=1).permute(0, 2, 3, 1).flatten(0, 2)        # (B*h*w, E)
        winners = indices.flatten()
        self.sums.mul_(self.decay).index_add_(0, winners, flat, alpha=1.0 - self.decay)
        self.age.add_(1.0)[winners] = 0.0
        # In `patience` steps a code of average popularity wins 8 times: one that wins nothing is far below that.
        patience = max(100.0, 8.0 * len(self.codes) / len(flat))
        dead = (self.age > patience).nonzero()[:, 0][: len(flat) // 4]
        chosen = flat[torch.randperm(len(flat), generator=generator)[: len(dead)]]
        self.sums[dead], self.age[dead] = 0.1 * chosen, 0.0
        self.codes.copy_(F.normalize(self.sums, dim=1))
