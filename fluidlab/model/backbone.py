"""The Transformer between the tokens and the head. It sees vectors, a text and a causality flag; no order, no head."""

import torch
from torch import Tensor, nn

from fluidlab.config import ModelConfig
from fluidlab.layers import Block, KVCache, Norm, fill, init_transformer, sincos_positions

Text = Tensor | list[tuple[Tensor, Tensor]]     # (B, S, D), or what `Backbone.read` made of it


class Backbone(nn.Module):
    """Positions, blocks of self-attention, cross-attention and MLP, final norm."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.positions = nn.Parameter(torch.empty(config.seq_len, config.width))                     # (N, D)
        self.blocks = nn.ModuleList(
            Block(config.width, config.num_heads, config.mlp_ratio, cross_attention=True) for _ in range(config.depth))
        self.norm = Norm(config.width)
        self.config = config
        self.init_weights()

    def init_weights(self) -> None:
        init_transformer(self, self.config.depth)
        fill(self.positions, sincos_positions(self.config.grid, self.config.width))                  # learned from here

    def forward(self, x: Tensor, text: Text, text_mask: Tensor, causal: bool = False,
                caches: list[KVCache] | None = None, rows: Tensor | None = None) -> Tensor:
        """x (B, N, D), text (B, S, D), text_mask (B, S) True = may be looked at -> z (B, N, D).

        With caches, x holds only the positions that follow those already cached. With rows (B, K), only z of these
        positions is computed, (B, K, D): the last block spares the others, whose output nobody reads.
        """
        first = caches[0].filled if caches else 0
        texts = text if isinstance(text, list) else [text] * len(self.blocks)
        x = x.to(self.positions.dtype) + self.positions[first:first + x.shape[1]]                    # (B, N, D)
        for i, block in enumerate(self.blocks):
            last = {"rows": rows} if rows is not None and i + 1 == len(self.blocks) else {}
            x = block(x, texts[i], text_mask, causal=causal, cache=caches[i] if caches else None, **last)
        return self.norm(x)                                                                          # (B, N or K, D)

    def read(self, text: Tensor) -> Text:
        """A text (B, S, D) as each block's keys and values: what many passes over the same text compute once."""
        return [block.read(text) for block in self.blocks]
