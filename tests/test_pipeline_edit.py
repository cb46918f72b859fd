"""Editing pictures: inpaint, outpaint and variation keep what they are given, in tokens and in pixels."""

import pytest
import torch
from helpers import variant
from PIL import Image

from fluidlab.data.scenes import EmojiScenes
from fluidlab.pipeline import FluidPipeline
from fluidlab.publish.pictures import from_pixels
from fluidlab.text.encoder import load_text_encoder
from fluidlab.tokenizer import load_tokenizer

QUICK = {"seed": 0, "num_denoising_steps": 2}
CAT = "a photo of a cat"
VARIANTS = [("random", "softmax"), ("random", "diffusion"), ("raster", "flow")]


@pytest.fixture(scope="module")
def pipes():
    text, tokenizers = load_text_encoder("scenes-t5"), {k: load_tokenizer(f"scenes-{k}") for k in ("vae", "vq")}
    return {(order, head): FluidPipeline(
        variant(order, head, text_dim=text.dim, codebook_size=tokenizers["vq"].codebook_size),
        tokenizers["vq" if head == "softmax" else "vae"], text) for order, head in VARIANTS}


@pytest.fixture(scope="module")
def image():
    return EmojiScenes("validation")[0]["image"].float() / 127.5 - 1


@pytest.mark.parametrize("which", VARIANTS)
def test_outpainting_makes_the_picture_larger_and_keeps_it(which, pipes, image):
    pipe = pipes[which]
    output = pipe.outpaint(image, CAT, top=16, right=32, num_images_per_prompt=2, **QUICK)
    assert output.pixels.shape == (2, 3, 80, 96) and output.images[0].size == (96, 80)
    assert torch.equal(output.pixels[:, :, 16:, :64], image.expand(2, -1, -1, -1))
    tokens = output.tokens.unflatten(1, (5, 6))
    known = pipe.tokenizer.encode(image[None]).unflatten(1, (4, 4))
    assert all(torch.equal(tokens[i, 1:, :4], known[0]) for i in range(2))
    assert not torch.equal(output.pixels[0], output.pixels[1])
    smooth = pipe.outpaint(image, CAT, top=16, right=32, num_images_per_prompt=2, keep_pixels=False, **QUICK)
    assert torch.equal(smooth.tokens, output.tokens) and not torch.equal(smooth.pixels, output.pixels)
    assert torch.equal(smooth.pixels[:, :, :16], output.pixels[:, :, :16])


def test_a_ring_gives_the_border_of_the_picture_away(pipes, image):
    pipe = pipes["random", "diffusion"]
    known = pipe.tokenizer.encode(image[None]).unflatten(1, (4, 4))
    tokens = pipe.outpaint(image, CAT, right=32, ring=1, **QUICK).tokens.unflatten(1, (4, 6))
    assert torch.equal(tokens[:, :, :3], known[:, :, :3])
    assert not (tokens[:, :, 3] == known[:, :, 3]).all(dim=-1).any()


def test_a_smaller_picture_is_completed_to_one_canvas(pipes, image):
    crop = image[:, 16:48, :32]
    output = pipes["random", "diffusion"].outpaint(crop, CAT, top=16, bottom=16, left=16, right=16, **QUICK)
    assert output.pixels.shape == (1, 3, 64, 64) and torch.equal(output.pixels[0, :, 16:48, 16:48], crop)
    assert pipes["random", "diffusion"].num_timesteps == 12


@pytest.mark.parametrize("which", VARIANTS)
def test_a_variation_keeps_its_share_of_the_tokens(which, pipes, image):
    pipe = pipes[which]
    known = pipe.tokenizer.encode(image[None])
    output = pipe.variation(image, CAT, strength=0.25, num_images_per_prompt=3, **QUICK)
    changed = output.tokens != known
    changed = changed.any(dim=2) if changed.ndim == 3 else changed                       # (B, N)
    assert output.pixels.shape == (3, 3, 64, 64) and (changed.sum(dim=1) <= 4).all() and changed.any(dim=1).all()
    if which != ("random", "softmax"):                                                   # a code may be drawn again
        assert changed.sum(dim=1).tolist() == [4, 4, 4]
    assert not torch.equal(changed[0], changed[1])
    alone = pipe.variation(image, CAT, strength=0.25, seed=2, num_denoising_steps=2)
    assert (alone.pixels[0] - output.pixels[2]).abs().max() < 2 / 255


def test_a_variation_within_a_mask_leaves_the_rest(pipes, image):
    pipe, mask = pipes["random", "diffusion"], torch.zeros(64, 64, dtype=torch.bool)
    mask[:, 32:] = True
    tokens = pipe.variation(image, CAT, strength=1.0, pixel_mask=mask, **QUICK).tokens.unflatten(1, (4, 4))
    known = pipe.tokenizer.encode(image[None]).unflatten(1, (4, 4))
    assert torch.equal(tokens[:, :, :2], known[:, :, :2]) and not (tokens[:, :, 2:] == known[:, :, 2:]).any()


def test_pictures_and_masks_may_be_pil_and_several_are_asked_for_at_once(pipes, image):
    pipe, mask = pipes["random", "diffusion"], torch.zeros(64, 64, dtype=torch.bool)
    mask[:20, 10:40] = True
    white = Image.fromarray((mask * 255).byte().numpy())
    exact = (image * 127.5 + 127.5).round() / 127.5 - 1                                  # what bytes can hold
    asked = {"num_images_per_prompt": 2, **QUICK}
    ours, theirs = (pipe.inpaint(*pair, CAT, **asked) for pair in ((exact, mask), (from_pixels(exact[None])[0], white)))
    assert torch.equal(ours.tokens, theirs.tokens) and len(ours.images) == 2
    assert torch.equal(ours.pixels[:, :, ~mask], exact[:, ~mask].expand(2, -1, -1))
    assert not torch.equal(ours.tokens[0], ours.tokens[1])


def test_an_interrupted_edit_shows_the_old_picture_or_grey(pipes, image):
    pipe = pipes["random", "diffusion"]
    whole = torch.ones(64, 64, dtype=torch.bool)
    stop = {"on_step": lambda step: step.index < 3}
    tokens = pipe.inpaint(image, whole, CAT, **stop, **QUICK).tokens
    assert (tokens == pipe.tokenizer.encode(image[None])).all(dim=2).sum() == 12
    pixels = pipe.outpaint(image, CAT, right=64, **stop, **QUICK).pixels[0]
    assert pixels[:, :, 64:].eq(0).all(dim=0).sum() == 12 * 256


def test_what_does_not_fit_is_refused_with_both_numbers(pipes, image):
    pipe, hole = pipes["random", "diffusion"], torch.ones(64, 64, dtype=torch.bool)
    for call, sentence in (
            (lambda: pipe.inpaint(image[:, :32], hole, CAT), "canvas, 64x64 pixels, got 32x64"),
            (lambda: pipe.variation(image[:, :, :48], CAT), "canvas, 64x64 pixels, got 64x48"),
            (lambda: pipe.variation(image[None], CAT), r"or a tensor \(3, H, W\), got Tensor \(1, 3, 64, 64"),
            (lambda: pipe.variation("cat.png", CAT), r"PIL picture or a tensor \(3, H, W\), got str"),
            (lambda: pipe.inpaint(image, [[True]], CAT), r"PIL picture or a bool tensor \(H, W\), got list"),
            (lambda: pipe.variation(image, CAT, strength=0), "strength 0 of 16 tokens is 0 tokens"),
            (lambda: pipe.variation(image, CAT, num_images_per_prompt=0), "whole number from 1 to 4096, got 0"),
            (lambda: pipe.variation(image, CAT, strength=0.25, num_inference_steps=5), "number of tokens 4, got 5"),
            (lambda: pipe.outpaint(image, CAT), "must be known and some unknown, got 16 known of 16"),
            (lambda: pipe.outpaint(image, CAT, right=20), "right must be a multiple of 16 pixels, got 20"),
            (lambda: pipe.outpaint(image, CAT, left=-16), "left must be a whole number at least 0, got -16"),
            (lambda: pipe.outpaint(image, CAT, top=16, ring=4), "some unknown, got 0 known of 20"),
            (lambda: pipe.outpaint(image[:, :32], CAT, top=16), "canvas of 4x4 tokens, got 3x4"),
            (lambda: pipe.outpaint(image[:, :30], CAT, top=16), "30x64 pixels, but must be at least 1, both sides"),
            (lambda: pipe.outpaint(image * 100, CAT, top=16), r"must lie in \[-1, 1\]"),
            (lambda: pipe.inpaint(image, hole, [CAT, CAT]), "prompts must be a text or a list of one or more texts")):
        with pytest.raises(ValueError, match=sentence):
            call()
