"""Attention, MLP and the Transformer block that the text aligner and the backbone share.

Nothing here knows what a token is, in which order tokens come or what a head does with them.

Shape letters of the whole package:
    B batch   N image tokens   S text tokens   D width   C token channels   V codebook   E text width
    H attention heads   K tokens predicted in one sampling step

Every mask in this package says True = "may be looked at" (a real text token), as scaled_dot_product_attention does.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, causal: bool = False) -> Tensor:
    """Scaled dot-product attention: q (B, H, N, D/H), k and v (B, H, S, D/H), mask (B, 1, 1, S) -> (B, H, N, D/H).

    The library's kernel, except for bf16 on a CPU, whose backward pass is many times slower there than five lines.
    """
    if not (q.device.type == "cpu" and q.dtype == torch.bfloat16):
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)
    scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5                          # (B, H, N, S)
    if causal:
        mask = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool).tril()          # (N, S)
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    return scores.softmax(dim=-1, dtype=torch.float32).to(v.dtype) @ v              # (B, H, N, D/H)


class KVCache:
    """Keys and values of one self-attention, written once per position and read by all later ones.

    Args:
        length: positions to hold, so that memory is taken once and shapes never change.
    """

    def __init__(self, length: int):
        self.length, self.filled, self.keys, self.values = length, 0, None, None

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        if self.keys is None:
            self.keys = k.new_empty(*k.shape[:2], self.length, k.shape[-1])         # (B, H, N, D/H)
            self.values = torch.empty_like(self.keys)
        end = self.filled + k.shape[2]
        self.keys[:, :, self.filled:end], self.values[:, :, self.filled:end] = k, v
        self.filled = end
        return self.keys[:, :, :end], self.values[:, :, :end]


Context = Tensor | tuple[Tensor, Tensor]       # (B, S, D), or the keys and values that were computed from it


class Attention(nn.Module):
    """Multi-head attention: self-attention without a context, cross-attention with one."""

    def __init__(self, width: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.to_q = nn.Linear(width, width)
        self.to_kv = nn.Linear(width, 2 * width)
        self.to_out = nn.Linear(width, width)

    def split(self, x: Tensor) -> Tensor:
        B, N, D = x.shape
        return x.view(B, N, self.num_heads, D // self.num_heads).transpose(1, 2)    # (B, H, N, D/H)

    def keys_values(self, context: Tensor) -> tuple[Tensor, Tensor]:
        k, v = self.to_kv(context).chunk(2, dim=-1)                                 # 2 x (B, S, D)
        return self.split(k), self.split(v)                                         # 2 x (B, H, S, D/H)

    def forward(self, x: Tensor, context: Context | None = None, mask: Tensor | None = None, causal: bool = False,
                cache: KVCache | None = None) -> Tensor:
        """Args: x (B, N, D); context: None for self-attention; mask (B, S) bool; cache: x continues it."""
        q = self.split(self.to_q(x))                                                # (B, H, N, D/H)
        known = isinstance(context, tuple)
        k, v = context if known else self.keys_values(x if context is None else context)    # (B, H, S, D/H)
        if cache is not None:
            causal = causal and cache.filled == 0 and x.shape[1] > 1                # a new token sees all before it
            k, v = cache.append(k, v)
        attn_mask = None if mask is None else mask[:, None, None, :]                # (B, 1, 1, S)
        out = attend(q, k, v, attn_mask, causal)                                    # (B, H, N, D/H)
        return self.to_out(out.transpose(1, 2).flatten(2))                          # (B, N, D)


def take(x: Tensor, rows: Tensor) -> Tensor:
    """The rows (B, K) of x (B, N, D): (B, K, D)."""
    return x.gather(1, rows[..., None].expand(-1, -1, x.shape[-1]))


class Norm(nn.LayerNorm):
    """Layer norm whose scale and shift are float32 also where a sharded model's weights travel as bf16."""

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.normalized_shape, self.weight.float(), self.bias.float(), self.eps)


class MLP(nn.Module):
    def __init__(self, width: int, ratio: int = 4):
        super().__init__()
        self.up = nn.Linear(width, ratio * width)
        self.down = nn.Linear(ratio * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.gelu(self.up(x)))


class Block(nn.Module):
    """Self-attention, cross-attention if there is a text to look at, MLP: in that order, each behind its own norm."""

    def __init__(self, width: int, num_heads: int, mlp_ratio: int = 4, cross_attention: bool = False):
        super().__init__()
        self.norm_self, self.self_attention = Norm(width), Attention(width, num_heads)
        if cross_attention:
            self.norm_cross, self.cross_attention = Norm(width), Attention(width, num_heads)
        self.norm_mlp, self.mlp = Norm(width), MLP(width, mlp_ratio)
        self.has_cross = cross_attention

    def forward(self, x: Tensor, text: Context | None = None, mask: Tensor | None = None, causal: bool = False,
                cache: KVCache | None = None, rows: Tensor | None = None) -> Tensor:
        """x (B, N, D). With cross-attention `mask` (B, S) hides padding of `text` (B, S, D), else padding of x.

        With rows (B, K), only these positions come out, (B, K, D); all are still looked at. Not with causal attention.
        """
        self_mask = None if self.has_cross else mask
        seen = self.norm_self(x)                                                                     # (B, N, D)
        if rows is None:
            x = x + self.self_attention(seen, mask=self_mask, causal=causal, cache=cache)            # (B, N, D)
        else:
            x = take(x, rows) + self.self_attention(take(seen, rows), seen, self_mask)               # (B, K, D)
        if self.has_cross:
            x = x + self.cross_attention(self.norm_cross(x), context=text, mask=mask)                # (B, N, D)
        return x + self.mlp(self.norm_mlp(x))                                                        # (B, N, D)

    def read(self, text: Tensor) -> tuple[Tensor, Tensor]:
        """A text's keys and values, which may be given in its place."""
        return self.cross_attention.keys_values(text)


@torch.no_grad()
def fill(p: Tensor, values: Tensor) -> None:
    """Copy a whole tensor into a parameter, or its rows into the shard of it that this process holds.

    Every process calls this with the same values, so nothing is sent, and no process needs more than one whole tensor.
    """
    if hasattr(p, "placements"):                                                    # a DTensor
        from torch.distributed.tensor import distribute_tensor
        values = distribute_tensor(values.to(p.device), p.device_mesh, p.placements, src_data_rank=None)
    p.copy_(values)


def whole(x: Tensor) -> Tensor:
    """The whole of a tensor of which each process may hold a shard; if so, all of them must call this."""
    return x.full_tensor() if hasattr(x, "full_tensor") else x


def fill_normal(p: Tensor, std: float) -> None:
    """Normal numbers of the global generator, drawn whole and on the CPU: the same on any device, for any shard."""
    fill(p, torch.empty(p.shape).normal_(std=std))


def init_norm(norm: nn.LayerNorm) -> None:
    """Scale 1, shift 0."""
    fill(norm.weight, torch.ones(norm.weight.shape))
    fill(norm.bias, torch.zeros(norm.bias.shape))


def init_transformer(module: nn.Module, depth: int) -> None:
    """GPT-2's initialisation: normal 0.02, and layers that write to the residual stream smaller by sqrt(2 depth).

    With residual branches summed `depth` times the stream would otherwise grow with depth.
    """
    for name, layer in module.named_modules():
        if isinstance(layer, nn.Linear):
            writes_residual = name.endswith(("to_out", "down"))
            fill_normal(layer.weight, 0.02 / (2 * depth) ** 0.5 if writes_residual else 0.02)
            fill(layer.bias, torch.zeros(layer.bias.shape))
        if isinstance(layer, nn.LayerNorm):
            init_norm(layer)


def sincos_positions(grid: tuple[int, int], width: int) -> Tensor:
    """2-D sine-cosine positions (N, D): half of the channels encode the row, half the column (Vaswani et al. 2017)."""
    rows, columns = torch.meshgrid(*(torch.arange(n, dtype=torch.float32) for n in grid), indexing="ij")
    frequencies = 10000.0 ** -(torch.arange(width // 4, dtype=torch.float32) / (width // 4))
    angles = [p.flatten()[:, None] * frequencies for p in (rows, columns)]          # 2 x (N, D/4)
    return torch.cat([f(a) for a in angles for f in (torch.sin, torch.cos)], dim=1)  # (N, D)
