"""What a model costs, counted on the meta device, where tensors have shapes and no numbers: parameters, FLOPs, memory.

What to notice: nothing here is a formula of the architecture. The model itself is run, and PyTorch is asked what it
did and what it kept; a new head or order is counted right without a change.
"""

import functools
from unittest.mock import patch

import torch
from torch.utils.flop_counter import FlopCounterMode

from fluidlab.config import ModelConfig
from fluidlab.model.fluid import Fluid

TEXT_TOKENS = 17  # to which a cache of scenes pads every caption: what a count takes a text to be


@functools.lru_cache(maxsize=64)
def part_counts(config: ModelConfig) -> dict[str, int]:
    """Parameters of each part and "total"."""
    with torch.device("meta"):
        return Fluid(config).count_parameters()


@functools.lru_cache(maxsize=64)
def training_flops(config: ModelConfig, text_tokens: int = TEXT_TOKENS) -> float:
    """Floating-point operations of one image, forward and backward, as PyTorch counts them (a multiply-add is 2)."""
    one, two = (_flops(config.replace(depth=depth), text_tokens) for depth in (1, 2))
    return float(one + (config.depth - 1) * (two - one))                  # all blocks are alike


def _flops(config: ModelConfig, text_tokens: int) -> int:
    model, inputs = _on_meta(config, text_tokens, torch.float32)
    with FlopCounterMode(display=False) as counter:
        model(*inputs, torch.Generator()).backward()
    return counter.get_total_flops()


@functools.lru_cache(maxsize=64)
def activation_bytes(config: ModelConfig, text_tokens: int = TEXT_TOKENS, dtype: torch.dtype = torch.float32, *,
                     checkpointing: bool = False) -> int:
    """Bytes that the forward pass of one image keeps for the backward pass, weights and inputs not counted.

    Args:
        dtype: in which it computes, for example torch.bfloat16.
        checkpointing: the backbone's blocks keep their inputs only and are computed again, one at a time.

    Attention is counted as the fused kernels keep it: queries, keys, values, output and one number a row.
    """
    one, two = (_kept(config.replace(depth=depth), text_tokens, dtype) for depth in (1, 2))
    block = two - one                                                     # all blocks are alike
    if not checkpointing:
        return one + (config.depth - 1) * block
    block_input = config.seq_len * config.width * dtype.itemsize
    return one + config.depth * block_input                               # one block, and the inputs of all


def _on_meta(config: ModelConfig, text_tokens: int, dtype: torch.dtype) -> tuple[Fluid, tuple]:
    with torch.device("meta"):
        model = Fluid(config).to(dtype)
        N, continuous = config.seq_len, config.token_kind == "continuous"
        tokens = torch.zeros(1, N, config.token_dim, dtype=dtype) if continuous else torch.zeros(1, N,
                                                                                                dtype=torch.long)
        features = torch.zeros(1, text_tokens, config.text_dim, dtype=dtype)
        mask = torch.ones(1, text_tokens, dtype=torch.bool)
    return model, (tokens, features, mask)


def _kept(config: ModelConfig, text_tokens: int, dtype: torch.dtype) -> int:
    """Bytes of all storages that autograd keeps; one that several operations keep is counted once."""
    model, inputs = _on_meta(config, text_tokens, dtype)
    mine = {t.untyped_storage()._cdata for t in (*model.parameters(), *inputs)}
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage._cdata not in mine:
            kept[storage._cdata] = storage        # held, so that its number is not given to another
        return tensor

    with (torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
          patch("torch.nn.functional.scaled_dot_product_attention", _fused_attention)):
        model(*inputs, torch.Generator())
    return sum(storage.nbytes() for storage in kept.values())


def _fused_attention(q, k, v, attn_mask=None, is_causal=False):
    """Attention as a GPU computes it. On the meta device PyTorch takes the plain way, which keeps every score."""
    bias = None if attn_mask is None else q.new_zeros(1, 1, 1, k.shape[2]).expand(*q.shape[:3], k.shape[2])
    return torch.ops.aten._scaled_dot_product_efficient_attention(q, k, v, bias, True, 0.0, is_causal)[0]
