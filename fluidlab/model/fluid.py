"""Fluid (arXiv 2410.13863): text and some image tokens in, a distribution of the other tokens out.

The whole paper is `forward`: the order decides what is hidden, the head decides what a token is, and between them
stands one Transformer that knows neither. All four variants of the paper, and any new order or head, are this file.
"""

import torch
from torch import Tensor, nn

from fluidlab.config import ModelConfig, check_type
from fluidlab.layers import KVCache
from fluidlab.model.backbone import Backbone, Text
from fluidlab.model.heads import HEADS
from fluidlab.model.noise import Streams, check_streams
from fluidlab.model.orders import ORDERS
from fluidlab.text.aligner import TextAligner


class Fluid(nn.Module):
    """One of {raster, random} x {softmax, diffusion, flow}.

    Args:
        config: a `ModelConfig`, for example from `preset("mini", order="random", head="diffusion")`.
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        check_type("config", config, ModelConfig, "a ModelConfig, such as preset gives")
        self.config = config
        self.aligner = TextAligner(config.text_dim, config.width, config.aligner_depth, config.num_heads,
                                   config.mlp_ratio)
        self.order = ORDERS[config.order](config.width)
        self.head = HEADS[config.head](config)
        self.backbone = Backbone(config)

    def init_weights(self) -> None:
        """Draw all weights anew from PyTorch's global generator; each part does so for itself, and says why so.

        A model that was made on the meta device gets its memory first (`to_empty`), sharded or not, and then this.
        """
        for part in self.children():
            part.init_weights()

    def forward(self, tokens: Tensor, features: Tensor, mask: Tensor, generator: Streams = None) -> Tensor:
        """The training loss, a scalar: mean over the tokens that had to be predicted.

        Args:
            tokens: (B, N) long codes below V, or (B, N, C) float latents of unit variance.
            features: (B, S, E) of the text encoder.  mask: (B, S) bool, True = real text token.
            generator: of the order's masks and the head's noise; the same generator gives the same loss.

        Raises:
            ValueError: shapes or dtype that do not fit the configuration.
        """
        loss, is_target = self.token_losses(tokens, features, mask, generator)
        return (loss * is_target).sum() / is_target.sum()

    def token_losses(self, tokens: Tensor, features: Tensor, mask: Tensor,
                     generator: Streams = None) -> tuple[Tensor, Tensor]:
        """Loss of every token (B, N), and which of them had to be predicted (B, N) bool; only those count."""
        self.check(tokens, features, mask)
        B, N = tokens.shape[:2]
        check_streams(generator, B)
        is_target = self.order.targets(B, N, generator, tokens.device)    # (B, N)
        z = self.hidden(tokens, is_target, *self.aligner(features, mask))  # (B, N, D)
        return self.head.loss(z, tokens, generator), is_target            # (B, N), (B, N)

    def hidden(self, tokens: Tensor, is_target: Tensor, text: Text, text_mask: Tensor,
               caches: list[KVCache] | None = None, rows: Tensor | None = None) -> Tensor:
        """What the backbone knows of each position, z (B, N, D), with the targets hidden.

        With caches, only the positions that follow the cached ones go in and come out. With rows (B, K), only z of
        these positions (B, K, D).
        """
        known = max(caches[0].filled - 1, 0) if caches else 0             # a causal order looks back by one token
        x = self.order.inputs(self.head.embed(tokens[:, known:]), is_target[:, known:])   # (B, N, D)
        x = x[:, caches[0].filled - known:] if caches else x
        return self.backbone(x, text, text_mask, causal=self.order.causal, caches=caches, rows=rows)

    def check(self, tokens: Tensor, features: Tensor, mask: Tensor, blanks: bool = False) -> None:
        """Raise `ValueError` unless the three tensors fit the configuration and each other.

        With blanks, tokens may also be the code behind the last, which stands where nothing is known.
        """
        c, continuous = self.config, self.head.token_kind == "continuous"
        want = ("B", c.seq_len, c.token_dim) if continuous else ("B", c.seq_len)
        dtype = next(self.head.parameters()).dtype if continuous else torch.long
        check_type("tokens", tokens, Tensor, "a tensor")
        if tuple(tokens.shape[1:]) != want[1:]:
            raise ValueError(f"tokens must be {self.head.token_kind} of shape ({', '.join(map(str, want))}), "
                             f"got {tokens.dtype} of shape {tuple(tokens.shape)}.")
        if tokens.dtype != dtype:
            raise ValueError(f"tokens must be {self.head.token_kind} ({dtype}), got {tokens.dtype}.")
        if not continuous and tokens.device.type == "cpu" and len(tokens):        # elsewhere a step would wait for it
            low, high, last = int(tokens.min()), int(tokens.max()), c.codebook_size - 1
            if low < 0 or high > last + blanks:
                raise ValueError(f"tokens must be codes from 0 to {last}, got {low} to {high}.")
        self.check_text(features, mask)
        if len(features) != len(tokens):
            raise ValueError(f"tokens and features must be of one batch, got {len(tokens)} and {len(features)}.")

    def check_text(self, features: Tensor, mask: Tensor) -> None:
        """Raise `ValueError` unless features are (B, S, E) and mask is (B, S) bool."""
        check_type("features", features, Tensor, "a tensor (B, S, E)")
        check_type("mask", mask, Tensor, "a tensor (B, S)")
        if features.ndim != 3 or not len(features) or features.shape[-1] != self.config.text_dim:
            raise ValueError(f"features must be of shape (B, S, {self.config.text_dim}), got {tuple(features.shape)}.")
        if not features.is_floating_point():
            raise ValueError(f"features must be floating point, got {features.dtype}.")
        if mask.dtype != torch.bool or mask.shape != features.shape[:2]:
            raise ValueError(f"mask must be bool of shape {tuple(features.shape[:2])}, "
                             f"got {mask.dtype} of shape {tuple(mask.shape)}.")

    def count_parameters(self) -> dict[str, int]:
        """Parameters of each part and their total. A scaling fit must say which of them it counts."""
        counts = {name: sum(p.numel() for p in part.parameters()) for name, part in self.named_children()}
        return {**counts, "total": sum(counts.values())}
