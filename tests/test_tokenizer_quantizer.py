"""The codebook: nearest by angle, gradients that pass through it, averages that follow, dead codes that return."""

import torch
from torch.nn import functional as F

from fluidlab.tokenizer.quantizer import Codebook


def inputs(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_lookup_is_the_smallest_angle_whatever_the_length():
    book, x = Codebook(32, 4), inputs(2, 4, 3, 5)
    cosine = F.cosine_similarity(x.flatten(2).transpose(1, 2)[:, :, None], book.codes, dim=-1)  # (B, N, V)
    assert torch.equal(book(x), cosine.argmax(-1))
    assert torch.equal(book(7.5 * x), book(x))


def test_a_code_is_its_own_nearest():
    book = Codebook(32, 4)
    indices = torch.arange(32).reshape(2, 16)
    assert torch.equal(book(book.lookup(indices, (4, 4))), indices)


def test_gradient_passes_straight_through():
    """The value is the code's, the gradient that of the input alone: what stands behind sees a constant offset."""
    book, x = Codebook(32, 4), inputs(2, 4, 3, 5).requires_grad_()
    codes, indices, _ = book.straight_through(x)
    assert torch.allclose(codes, book.lookup(indices, (3, 5)), atol=1e-6)
    weight = inputs(*codes.shape, seed=2)
    (got,) = torch.autograd.grad((codes * weight).sum(), x)
    (expected,) = torch.autograd.grad((F.normalize(x, dim=1) * 2.0 * weight).sum(), x)
    assert torch.allclose(got, expected, atol=1e-6)


def test_update_moves_winners_towards_their_inputs_and_nobody_else():
    book = Codebook(8, 4, decay=0.5)
    before, x = book.codes.clone(), inputs(1, 4, 1, 1)
    indices = book(x)
    book.update(x, indices, torch.Generator())
    winner = indices.item()
    unit = F.normalize(x.flatten(), dim=0)
    assert book.codes[winner] @ unit > before[winner] @ unit
    others = torch.arange(8) != winner
    assert torch.allclose(book.codes[others], before[others], atol=1e-6)
    assert torch.allclose(book.codes.norm(dim=1), torch.ones(8), atol=1e-6)


def test_dead_codes_return():
    """Inputs in one corner of the sphere: without restarts most of 64 codes would never win one."""
    book, generator = Codebook(64, 4), torch.Generator().manual_seed(0)
    corner = torch.tensor([4.0, 0.0, 0.0, 0.0])[:, None, None]
    used_first = book(inputs(4, 4, 8, 8) + corner).unique().numel()
    for step in range(400):
        x = inputs(4, 4, 8, 8, seed=step) + corner
        book.update(x, book(x), generator)
    assert book(inputs(4, 4, 8, 8, seed=999) + corner).unique().numel() >= 2 * used_first
