"""Outpainting and variation on tokens: what is kept is kept bit for bit, and everything else is drawn once."""

import pytest
import torch
from helpers import VARIANTS, batch, seeded, variant

from fluidlab.sample.edit import canvases, forget, grow, outpaint, surround

FEW = {"num_denoising_steps": 2}


@pytest.mark.parametrize("side", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("picture", [(1, 1), (2, 5), (4, 4), (5, 3), (9, 4)])
@pytest.mark.parametrize("margins", [(0, 0, 0, 1), (3, 0, 0, 0), (1, 2, 3, 4), (7, 0, 5, 0), (0, 5, 0, 6)])
def test_canvases_cover_all_that_is_unknown_and_always_lie_on_something_known(side, picture, margins):
    (h, w), (top, bottom, left, right) = picture, margins
    unknown = torch.ones(h + top + bottom, w + left + right, dtype=torch.bool)
    unknown[top:top + h, left:left + w] = False
    if min(unknown.shape) < side:
        with pytest.raises(ValueError, match=f"at least as large as the canvas of {side}x{side} tokens, got "
                                             f"{unknown.shape[0]}x{unknown.shape[1]}"):
            canvases(unknown, (side, side))
        return
    left_over = unknown.clone()
    for row, column, number in canvases(unknown, (side, side)):
        assert 0 <= row <= unknown.shape[0] - side and 0 <= column <= unknown.shape[1] - side
        inside = left_over[row:row + side, column:column + side]
        assert inside.sum() == number > 0 and (side == 1 or not inside.all())
        inside[:] = False
    assert not left_over.any()


def test_a_canvas_lies_half_on_what_is_known_where_there_is_room():
    unknown = torch.ones(4, 12, dtype=torch.bool)
    unknown[:, 4:8] = False
    assert canvases(unknown, (4, 4)) == [(0, 2, 8), (0, 6, 8), (0, 0, 8), (0, 8, 8)]
    for nothing in (torch.ones(4, 4, dtype=torch.bool), torch.zeros(4, 4, dtype=torch.bool)):
        with pytest.raises(ValueError, match="must be known and some unknown, got (0|16) known of 16"):
            canvases(nothing, (4, 4))


@pytest.mark.parametrize("order, head", VARIANTS)
def test_a_picture_grows_and_none_of_its_tokens_change(order, head):
    model = variant(order, head)
    tokens, features, mask = batch(model, B=2)
    known = tokens.unflatten(1, (4, 4))
    larger, outside = surround(known, (2, 0, 1, 4), model.head.blank(2, 6 * 9))
    steps = []
    drawn = outpaint(model, larger, outside, features, mask, generator=seeded(0), on_step=steps.append, **FEW)
    assert torch.equal(drawn[:, 2:, 1:5], known) and torch.equal(larger[:, 2:, 1:5], known)
    assert drawn.shape[:3] == (2, 6, 9) and [step.index for step in steps] == list(range(6 * 9 - 16))
    blank = model.head.blank(2, 6 * 9).unflatten(1, (6, 9))
    assert not ((drawn == blank).flatten(3).all(dim=3) if drawn.ndim == 4 else drawn == blank).any()
    assert torch.equal(drawn, outpaint(model, larger, outside, features, mask, generator=seeded(0), **FEW))
    alone = outpaint(model, larger[1:], outside, features[1:], mask[1:], generator=[seeded(7)], **FEW)
    both = outpaint(model, larger, outside, features, mask, generator=[seeded(6), seeded(7)], **FEW)
    off, far = ((t - alone[0]).abs().float().mean() for t in (both[1], both[0]))
    assert off < 1e-3 * far                                                      # an image is the same in any batch


def test_the_new_part_looks_at_the_picture_and_raster_only_to_the_right_and_below():
    """A change at the picture's right end reaches what is drawn left of it in random order only."""
    for order, looks_ahead in (("random", True), ("raster", False)):
        model = variant(order, "diffusion")
        tokens, features, mask = batch(model, B=1)
        other = tokens.clone()
        other[:, 15] += 1.0                                                      # the last token of the last row
        for margins, part, seen in (((0, 0, 2, 0), (slice(None), slice(0, 2)), False),
                                    ((2, 0, 0, 0), (slice(0, 2), slice(None)), False),
                                    ((0, 2, 0, 0), (slice(4, 6), slice(None)), True)):
            made = []
            for t in (tokens, other):
                known = t.unflatten(1, (4, 4))
                H, W = 4 + margins[0] + margins[1], 4 + margins[2]
                larger, outside = surround(known, margins, model.head.blank(1, H * W))
                made.append(outpaint(model, larger, outside, features, mask, generator=[seeded(0)], **FEW)[:, *part])
            inside_first_canvas = margins[2] == 0 and margins[0] == 0
            assert torch.equal(*made) != (seen or (looks_ahead and inside_first_canvas))


def test_an_ended_outpainting_leaves_the_rest_blank():
    model = variant("random", "softmax")
    tokens, features, mask = batch(model, B=1)
    larger, outside = surround(tokens.unflatten(1, (4, 4)), (0, 0, 0, 4), model.head.blank(1, 32))
    drawn = outpaint(model, larger, outside, features, mask, generator=seeded(0), on_step=lambda step: step.index < 9)
    assert (drawn == model.config.codebook_size).sum() == 16 - 10


def test_a_share_of_the_tokens_is_forgotten_each_image_its_own():
    allowed = torch.arange(16) >= 4
    unknown = forget(0.5, allowed, 3, seeded(0))
    assert unknown.sum(dim=1).tolist() == [6, 6, 6] and not unknown[:, :4].any()
    assert not torch.equal(unknown[0], unknown[1])
    assert torch.equal(forget(0.5, allowed, 3, seeded(0)), unknown)
    assert torch.equal(forget(0.5, allowed, 1, [seeded(5)])[0], forget(0.5, allowed, 2, [seeded(4), seeded(5)])[1])
    assert forget(1.0, allowed, 1, seeded(0))[0].equal(allowed)
    for strength, sentence in ((1.5, "strength must be a number from 0 to 1, got 1.5"),
                               (0.01, "strength 0.01 of 12 tokens is 0 tokens, so nothing would be drawn")):
        with pytest.raises(ValueError, match=sentence):
            forget(strength, allowed, 1)


def test_every_token_is_forgotten_about_as_often():
    """4,000 draws of 4 from 16: 1,000 each, deviation 27; one is off by 5 of them once in 100,000 seeds."""
    often = forget(0.25, torch.ones(16, dtype=torch.bool), 4000, seeded(0)).sum(dim=0)
    assert ((often - 1000).abs() < 5 * 27.4).all()


def test_a_mask_grows_inside_its_grid():
    mask = torch.zeros(3, 5, dtype=torch.bool)
    mask[0, 0] = True
    assert grow(mask, 0).equal(mask) and grow(mask, 1).nonzero().tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]
