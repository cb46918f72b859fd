"""The trainable text aligner between the frozen text encoder and the backbone, and the learned null text.

A learned token always stands before the text. It is all that remains of an empty or dropped prompt, so "no text" is
a row whose mask is False everywhere, and no attention ever runs over nothing (a softmax of nothing is NaN).
"""

import torch
from torch import Tensor, nn

from fluidlab.layers import Block, Norm, fill_normal, init_transformer


class TextAligner(nn.Module):
    """Linear projection to the backbone's width, then Transformer blocks over the text (the paper: 6).

    Args:
        text_dim: E, channels of the encoder's features.  width, depth, num_heads: of the blocks.
    """

    def __init__(self, text_dim: int, width: int, depth: int, num_heads: int, mlp_ratio: int = 4):
        super().__init__()
        self.project = nn.Linear(text_dim, width)
        self.null_token = nn.Parameter(torch.empty(width))
        self.blocks = nn.ModuleList(Block(width, num_heads, mlp_ratio) for _ in range(depth))
        self.norm = Norm(width)
        self.init_weights()

    def init_weights(self) -> None:
        init_transformer(self, max(len(self.blocks), 1))
        fill_normal(self.project.weight, self.project.in_features ** -0.5)  # T5 features have unit scale: keep it
        fill_normal(self.null_token, 0.02)

    def forward(self, features: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """(B, S, E) features, (B, S) bool mask (True = real token) -> text (B, S+1, D), mask (B, S+1)."""
        features = features.to(self.null_token.dtype)                               # a bf16 model reads float32 text
        null = self.null_token.expand(len(features), 1, -1)                         # (B, 1, D)
        x = torch.cat([null, self.project(features)], dim=1)                        # (B, S+1, D)
        mask = torch.cat([mask.new_ones(len(mask), 1), mask], dim=1)                # (B, S+1)
        for block in self.blocks:
            x = block(x, mask=mask)                                                 # (B, S+1, D)
        return self.norm(x), mask
