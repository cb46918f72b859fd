"""The discrete head: one table embeds a code and, transposed, scores every code; cross-entropy between.

What to notice: the table has V + 1 rows and the logits V. The extra row is what a not yet known token looks like.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fluidlab.config import ModelConfig
from fluidlab.layers import fill_normal
from fluidlab.model.guidance import guide
from fluidlab.model.noise import Streams, uniform


class SoftmaxHead(nn.Module):
    """Linear layer tied to the input embedding, softmax over the codebook."""

    token_kind = "discrete"

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.codebook_size = config.codebook_size
        self.scale = config.width ** 0.5
        self.table = nn.Parameter(torch.empty(config.codebook_size + 1, config.width))
        self.init_weights()

    def init_weights(self) -> None:
        fill_normal(self.table, 0.02)

    def blank(self, B: int, N: int, device="cpu") -> Tensor:
        return torch.full((B, N), self.codebook_size, dtype=torch.long, device=device)

    def embed(self, tokens: Tensor) -> Tensor:
        """(B, N) codes -> (B, N, D). Scaled by sqrt(D): rows this small must still be seen beside the positions."""
        return F.embedding(tokens, self.table) * self.scale

    def logits(self, z: Tensor) -> Tensor:
        """(B, N, D) -> (B, N, V), float32."""
        return F.linear(z, self.table[:-1]).float()

    def loss(self, z: Tensor, tokens: Tensor, generator: Streams = None) -> Tensor:
        """Cross-entropy per token in nats: (B, N)."""
        logits = self.logits(z).flatten(0, 1)                                        # (B N, V)
        return F.cross_entropy(logits, tokens.flatten(), reduction="none").view(tokens.shape)

    def sample(self, z: Tensor, z_null: Tensor | None, guidance_scale: float, temperature: float, generator: Streams,
               num_denoising_steps: int | None = None, solver: str | None = None) -> Tensor:
        """Guided logits / temperature, then a code from their distribution.

        z, z_null (B, K, D) -> codes (B, K). Temperature 0 takes the likeliest code.
        """
        if z_null is None:
            return self.draw(self.logits(z), temperature, generator)
        logits, null = self.logits(torch.cat([z, z_null])).chunk(2)                  # 2 x (B, K, V), table read once
        return self.draw(guide(logits, null, guidance_scale), temperature, generator)

    def draw(self, logits: Tensor, temperature: float, generator: Streams) -> Tensor:
        """Logits (B, K, V) -> codes (B, K), each by one uniform number through the inverse of its distribution."""
        u = uniform(logits.shape[:2], generator, logits.device)                      # (B, K), always
        if temperature == 0:
            return logits.argmax(dim=-1)
        cumulative = (logits / temperature).softmax(dim=-1).double().cumsum(dim=-1)  # (B, K, V)
        threshold = u[..., None].double() * cumulative[..., -1:]                     # (B, K, 1)
        return torch.searchsorted(cumulative, threshold, right=True)[..., 0].clamp(max=self.codebook_size - 1)
