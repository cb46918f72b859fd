import pytest
import torch
from helpers import VARIANTS, batch, seeded, variant

from fluidlab.sample.cached import CachedReader
from fluidlab.sample.edit import inpaint, paste, token_mask
from fluidlab.sample.generate import FullReader, generate

FEW = {"num_denoising_steps": 4}


def text(model, B=2):
    return batch(model, B=B)[1:]


def close(a, b):
    return torch.allclose(a.float(), b.float(), atol=1e-4)


@pytest.mark.parametrize("order, head", VARIANTS)
@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_every_position_is_filled_once_and_never_changed_again(order, head, scale):
    model, seen = variant(order, head), []
    final = generate(model, *text(model), guidance_scale=scale, generator=seeded(0), on_step=seen.append, **FEW)
    filled = torch.cat([s.positions for s in seen], dim=1)
    assert torch.equal(filled.sort(dim=1).values, torch.arange(16).expand(2, 16))
    assert [s.index for s in seen] == list(range(16)) and not seen[-1].unknown.any()
    for s in seen:
        known = ~s.unknown if head == "softmax" else ~s.unknown[..., None].expand_as(final)
        assert torch.equal(s.tokens[known], final[known])
    if head == "softmax":
        assert 0 <= final.min() and final.max() < 64


@pytest.mark.parametrize("head", ["softmax", "diffusion", "flow"])
@pytest.mark.parametrize("steps", [1, 5, 16])
def test_random_order_takes_as_many_steps_as_asked(head, steps):
    model, seen = variant("random", head), []
    generate(model, *text(model), num_inference_steps=steps, generator=seeded(0), on_step=seen.append, **FEW)
    assert len(seen) == steps and sum(s.positions.shape[1] for s in seen) == 16


@pytest.mark.parametrize("order, head", VARIANTS)
def test_an_image_is_the_same_alone_and_in_any_batch(order, head):
    """Equal to 1e-4 for latents. Codes are drawn through an inverse distribution of about 64 steps from one uniform
    number, so that rounding of 1e-6 flips one with a chance below 1e-3 over the whole test; the seeds are fixed."""
    model = variant(order, head)
    features, mask = text(model, 4)
    many = generate(model, features, mask, generator=[seeded(s) for s in (5, 6, 7, 8)], **FEW)
    alone = generate(model, features[2:3], mask[2:3], generator=[seeded(7)], **FEW)
    moved = generate(model, features[[2, 0]], mask[[2, 0]], generator=[seeded(7), seeded(5)], **FEW)
    assert close(many[2:3], alone) and close(moved, many[[2, 0]])
    one = generate(model, features, mask, generator=seeded(1), **FEW)
    assert close(one[:2], generate(model, features[:2], mask[:2], generator=seeded(1), **FEW))
    assert not close(one, generate(model, features, mask, generator=seeded(2), **FEW))


@pytest.mark.parametrize("head", ["softmax", "diffusion", "flow"])
def test_a_cached_prefix_gives_the_head_the_same_vectors(head):
    model = variant("raster", head)
    tokens, features, mask = batch(model, B=2)
    words, unknown = model.aligner(features, mask), torch.ones(2, 16, dtype=torch.bool)
    cached, full = (reader(model, *words) for reader in (CachedReader, FullReader))
    for position in range(16):
        here = torch.full((2, 1), position)
        assert close(*(reader(tokens, unknown, here) for reader in (cached, full)))
        unknown = unknown.scatter(1, here, False)


@pytest.mark.parametrize("head", ["softmax", "diffusion", "flow"])
@pytest.mark.parametrize("scale", [1.0, 4.0])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_cache_changes_nothing_but_time(head, scale, seed):
    """Seed 0 is left out: the diffusion head's first denoising step divides by a small signal, so that rounding of 1e-6
    grows a thousandfold where the prediction is not clipped, which meets one of its numbers."""
    model = variant("raster", head)
    assert close(*(generate(model, *text(model), guidance_scale=scale, generator=seeded(seed), use_cache=use, **FEW)
                   for use in (True, False)))


@pytest.mark.parametrize("order, head", VARIANTS)
def test_guidance_does_nothing_when_there_is_no_text(order, head):
    model = variant(order, head)
    features, mask = text(model)
    plain, guided = (generate(model, features, torch.zeros_like(mask), guidance_scale=s, generator=seeded(0), **FEW)
                     for s in (1.0, 5.0))
    assert close(plain, guided)
    assert not close(*(generate(model, features, mask, guidance_scale=s, generator=seeded(0), **FEW)
                       for s in (1.0, 5.0)))


@pytest.mark.parametrize("order, head", VARIANTS)
def test_given_tokens_never_change(order, head):
    model = variant(order, head)
    tokens, features, mask = batch(model, B=3)
    unknown = torch.rand(3, 16, generator=seeded(0)).argsort(1) < 6
    seen = []
    edited = inpaint(model, tokens, unknown, features, mask, generator=seeded(1), on_step=seen.append, **FEW)
    keep = ~unknown if head == "softmax" else ~unknown[..., None].expand_as(tokens)
    assert torch.equal(edited[keep], tokens[keep]) and not torch.equal(edited, tokens)
    assert len(seen) == 6
    for s in seen:
        assert unknown.gather(1, s.positions).all()


def test_random_order_fills_a_hole_with_a_look_at_what_comes_after_and_raster_does_not():
    unknown = torch.arange(16)[None] < 4
    for order, looks_ahead in (("random", True), ("raster", False)):
        model = variant(order, "diffusion")
        tokens, features, mask = batch(model, B=1)
        later = tokens.clone()
        later[:, 12:] += 1
        a, b = (inpaint(model, t, unknown, features, mask, generator=[seeded(0)], **FEW)[:, :4]
                for t in (tokens, later))
        assert torch.equal(a, b) != looks_ahead


def test_the_token_mask_grows_by_a_ring():
    pixels = torch.zeros(64, 64, dtype=torch.bool)
    pixels[17, 17] = True
    assert token_mask(pixels, ring=0).nonzero().flatten().tolist() == [5]
    assert token_mask(pixels).nonzero().flatten().tolist() == [0, 1, 2, 4, 5, 6, 8, 9, 10]
    with pytest.raises(ValueError, match="multiples of 16 pixels, got 60x64"):
        token_mask(pixels[:60])
    a, b = torch.zeros(1, 3, 64, 64), torch.ones(1, 3, 64, 64)
    assert torch.equal(paste(a, b, pixels).sum(dim=(0, 1)), pixels * 3.0)


@pytest.mark.parametrize("options, sentence", [
    ({"num_inference_steps": 17}, "from 1 to the number of tokens 16, got 17"),
    ({"num_inference_steps": 0}, "num_inference_steps must be a whole number at least 1, got 0"),
    ({"guidance_scale": -1}, "guidance_scale must be a number from 0 to 100, got -1"),
    ({"temperature": float("inf")}, "temperature must be a number from 0 to 10, got inf"),
    ({"guidance_schedule": "up"}, "guidance_schedule must be one of constant, linear"),
    ({"num_denoising_steps": 0}, "num_denoising_steps must be a whole number from 1 to 1000, got 0"),
    ({"generator": [torch.Generator()]}, "list of 1 for 2 images"),
    ({"generator": 3}, "generator must be a torch.Generator or a list of them, got int"),
    ({"tokens": torch.zeros(2, 16, 16)}, "tokens and unknown belong together"),
    ({"tokens": torch.zeros(2, 16, 16), "unknown": torch.zeros(2, 16, dtype=torch.bool)}, "at least 1, got 0 to 0"),
])
def test_wrong_requests_are_refused(options, sentence):
    model = variant("random", "diffusion")
    with pytest.raises(ValueError, match=sentence):
        generate(model, *text(model), **options)
