import pytest
import torch

from fluidlab.layers import Attention, Block, KVCache, attend, sincos_positions


def five_lines(q, k, v, mask):
    scores = torch.einsum("bhnd,bhsd->bhns", q, k) / q.shape[-1] ** 0.5
    scores = scores.masked_fill(~mask, float("-inf"))
    weights = scores.exp() / scores.exp().sum(-1, keepdim=True)
    return torch.einsum("bhns,bhsd->bhnd", weights, v)


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize("causal", [False, True])
def test_attention_is_five_lines_of_softmax(dtype, tolerance, causal):
    q, k, v = (torch.randn(2, 3, 7, 8) for _ in range(3))
    mask = torch.ones(7, 7, dtype=torch.bool).tril() if causal else torch.ones(2, 1, 1, 7, dtype=torch.bool)
    if not causal:
        mask[1, ..., 4:] = False
    ours = attend(*(x.to(dtype) for x in (q, k, v)), None if causal else mask, causal)
    assert torch.allclose(ours.float(), five_lines(q, k, v, mask), atol=tolerance)


def test_padding_changes_nothing():
    block = Block(32, 4, cross_attention=True)
    x, text = torch.randn(2, 5, 32), torch.randn(2, 6, 32)
    mask = torch.arange(6) < torch.tensor([[6], [3]])
    noisy = torch.where(mask[..., None], text, torch.randn_like(text) * 100)
    assert torch.equal(block(x, text, mask), block(x, noisy, mask))
    assert not torch.equal(block(x, text, mask), block(x, text + 1, mask))


def test_a_cache_continues_what_it_has_seen():
    attention, x = Attention(32, 4), torch.randn(2, 6, 32)
    whole, cache = attention(x, causal=True), KVCache(6)
    parts = torch.cat([attention(x[:, i:i + 1], causal=True, cache=cache) for i in range(6)], dim=1)
    assert torch.allclose(whole, parts, atol=1e-5)


def test_positions_are_all_different_and_of_unit_size():
    p = sincos_positions((4, 4), 64)
    assert p.shape == (16, 64) and torch.allclose(p.square().sum(1), torch.full((16,), 32.0))
    assert (torch.cdist(p, p) + torch.eye(16) * 9 > 0.5).all()
