"""Prompt to image: every order with every head, with the shipped tokenizers and the shipped text encoder."""

import warnings

import numpy as np
import pytest
import torch
from helpers import VARIANTS, variant

from fluidlab.config import data_dir
from fluidlab.data.scenes import EmojiScenes
from fluidlab.pipeline import FluidPipeline
from fluidlab.text.encoder import load_text_encoder
from fluidlab.tokenizer import load_tokenizer

PROMPTS = ["a photo of a cat", "", "a photo of a red umbrella left of a dog"]
QUICK = {"num_denoising_steps": 4}


@pytest.fixture(scope="module")
def parts():
    return load_tokenizer("scenes-vae"), load_tokenizer("scenes-vq"), load_text_encoder("scenes-t5")


def pipeline(parts, order="random", head="diffusion", **changes):
    vae, vq, text = parts
    model = variant(order, head, **{"codebook_size": vq.codebook_size, "text_dim": text.dim, **changes})
    return FluidPipeline(model, vq if model.config.token_kind == "discrete" else vae, text)


def same(a, b):
    return np.array_equal(np.asarray(a), np.asarray(b))


@pytest.mark.parametrize("order, head", VARIANTS)
def test_saved_and_loaded_it_draws_the_same_image(parts, order, head, tmp_path):
    before = pipeline(parts, order, head)
    before.save_pretrained(tmp_path / "model")
    after = FluidPipeline.from_pretrained(tmp_path / "model")
    ours, theirs = (p(PROMPTS[0], seed=3, **QUICK).images for p in (before, after))
    assert len(ours) == 1 and ours[0].size == (64, 64) and same(ours[0], theirs[0])
    assert not list((tmp_path / "model").rglob("*.bin")) and not list((tmp_path / "model").rglob("*.part"))


@pytest.mark.parametrize("order, head", VARIANTS)
def test_an_image_of_a_batch_is_that_of_its_seed_alone(parts, order, head):
    """Padding and batch size change sums in the last bits only: at most one step of 255 in a pixel."""
    pipe = pipeline(parts, order, head)
    together = pipe(PROMPTS, seed=10, **QUICK)
    for i, prompt in enumerate(PROMPTS):
        alone = pipe(prompt, seed=10 + i, **QUICK)
        assert (alone.pixels[0] - together.pixels[i]).abs().max() < 2 / 255
    assert not same(together.images[0], pipe(PROMPTS[0], seed=11, **QUICK).images[0])
    listed = pipe(PROMPTS, seed=[12, 11, 10], **QUICK)
    assert (listed.pixels[1] - together.pixels[1]).abs().max() < 2 / 255


def test_each_prompt_may_have_several_images(parts):
    output = pipeline(parts)(PROMPTS[:2], seed=0, num_images_per_prompt=2, **QUICK)
    assert len(output.images) == 4 and output.tokens.shape == (4, 16, 16) and output.pixels.shape == (4, 3, 64, 64)
    assert not same(output.images[0], output.images[1])


def test_a_generator_does_as_well_as_a_seed_but_not_both(parts):
    pipe = pipeline(parts)
    seeds = [torch.Generator().manual_seed(s) for s in (5, 6)]
    assert same(pipe(PROMPTS[:2], generator=seeds, **QUICK).images[1], pipe(PROMPTS[:2], seed=5, **QUICK).images[1])
    with pytest.raises(ValueError, match="either a seed or a generator, got both"):
        pipe(PROMPTS[0], seed=1, generator=torch.Generator())
    with pytest.raises(ValueError, match="one number or one per image, got 3 for 2 images"):
        pipe(PROMPTS[:2], seed=[1, 2, 3])


def test_the_prompt_matters_and_an_empty_one_is_no_text(parts):
    pipe = pipeline(parts, "raster", "diffusion")
    cat, nothing, spaces = (pipe(p, seed=0, **QUICK) for p in ("a photo of a cat", "", "   "))
    assert not same(cat.images[0], nothing.images[0]) and same(nothing.images[0], spaces.images[0])
    unguided = pipe("", seed=0, guidance_scale=1.0, **QUICK)      # null against null: equal, but for a batch's rounding
    torch.testing.assert_close(nothing.tokens, unguided.tokens, rtol=0, atol=1e-4)
    assert (cat.tokens - nothing.tokens).abs().max() > 1e-2


def test_an_unknown_word_is_named_in_a_warning_and_known_ones_are_silent(parts):
    pipe = pipeline(parts)
    with pytest.warns(UserWarning, match="zebrafish"):
        assert len(pipe("a photo of a zebrafish", seed=0, **QUICK).images) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pipe("a photo of a cat", seed=0, **QUICK)


@pytest.mark.parametrize("order, head", [("random", "softmax"), ("random", "diffusion"), ("raster", "flow")])
def test_inpainting_keeps_every_pixel_outside_the_mask(parts, order, head):
    pipe = pipeline(parts, order, head)
    image = EmojiScenes("validation")[0]["image"].float() / 127.5 - 1
    hole = torch.zeros(64, 64, dtype=torch.bool)
    hole[5:20, 8:30] = True
    output = pipe.inpaint(image, hole, "a photo of a cat", seed=0, **QUICK)
    assert output.pixels[0][:, ~hole].equal(image[:, ~hole])
    assert not output.pixels[0][:, hole].equal(image[:, hole])
    tokens = pipe.tokenizer.encode(image[None])
    kept = torch.ones(4, 4, dtype=torch.bool)
    kept[:3, :3] = False                                     # tokens 0..1 x 0..1 are touched, and one ring around them
    assert output.tokens[0][kept.flatten()].equal(tokens[0][kept.flatten()])
    assert not output.tokens[0][~kept.flatten()].equal(tokens[0][~kept.flatten()])


def test_parts_that_do_not_belong_together_are_refused_with_both_numbers(parts):
    vae, vq, text = parts
    with pytest.raises(ValueError, match="head 'softmax' needs a discrete tokenizer, got a continuous one"):
        FluidPipeline(variant("random", "softmax"), vae, text)
    with pytest.raises(ValueError, match=f"codebook_size 64, the tokenizer has {vq.codebook_size}"):
        FluidPipeline(variant("random", "softmax"), vq, text)
    with pytest.raises(ValueError, match=f"token_dim 8, the tokenizer has {vae.token_dim}"):
        FluidPipeline(variant("random", "flow", token_dim=8), vae, text)
    with pytest.raises(ValueError, match=f"text_dim 32, the text encoder has {text.dim}"):
        FluidPipeline(variant("random", "flow", text_dim=32), vae, text)


def test_values_out_of_range_are_refused(parts):
    pipe = pipeline(parts)
    for options, sentence in (({"guidance_scale": -1}, "guidance_scale must be a number from 0 to 100, got -1"),
                              ({"temperature": 11}, "temperature must be a number from 0 to 10, got 11"),
                              ({"num_inference_steps": 17}, "from 1 to the number of tokens 16, got 17"),
                              ({"num_denoising_steps": 0}, "whole number from 1 to 1000, got 0")):
        with pytest.raises(ValueError, match=sentence):
            pipe("a cat", **options)
    for seed in (-1, 1.5, 2**64, "7"):
        with pytest.raises(ValueError, match="seed must be a whole number from 0 to"):
            pipe("a cat", seed=seed)
    with pytest.raises(ValueError, match="num_images_per_prompt must be a whole number from 1 to 4096, got 0"):
        pipe("a cat", num_images_per_prompt=0)
    with pytest.raises(ValueError, match="prompts must be a text or a list of one or more texts"):
        pipe([])


def test_masks_that_fit_no_picture_are_refused(parts):
    pipe, image = pipeline(parts), torch.zeros(3, 64, 64)
    hole = torch.ones(64, 64, dtype=torch.bool)
    for mask, options, sentence in ((hole.int(), {}, r"must be bool of shape \(H, W\), got torch.int32"),
                                    (hole[None], {}, r"must be bool of shape \(H, W\), got torch.bool of shape \(1,"),
                                    (hole[:60], {}, "multiples of 16 pixels, got 60x64"),
                                    (hole, {"ring": -1}, "ring must be a whole number at least 0, got -1"),
                                    (~hole, {}, "same number of unknown tokens, at least 1, got 0 to 0")):
        with pytest.raises(ValueError, match=sentence):
            pipe.inpaint(image, mask, "a cat", seed=0, **options)


def test_an_unknown_name_lists_what_is_shipped(tmp_path):
    shipped = sorted(p.parent.name for p in data_dir().glob("*/pipeline.json"))
    with pytest.raises(ValueError, match=rf"'no-such-model' cannot be .* neither shipped \({', '.join(shipped)}\)"):
        FluidPipeline.from_pretrained("no-such-model")
    with pytest.raises(ValueError, match="lacks pipeline.json: give a folder that .* wrote, or one of ran"):
        FluidPipeline.from_pretrained(tmp_path)


def test_a_broken_or_foreign_file_is_named(parts, tmp_path):
    folder = pipeline(parts).save_pretrained(tmp_path / "model")
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:1000])
    with pytest.raises(ValueError, match="model.safetensors has other bytes than were saved: SHA-256 [0-9a-f]{12}, "):
        FluidPipeline.from_pretrained(folder)
    with pytest.raises(ValueError, match="cannot be read as a Fluid model"):
        FluidPipeline.from_pretrained(folder, verify=False)
    weights.write_bytes(whole)
    config = (folder / "config.json").read_text()
    (folder / "config.json").write_text(config.replace('"depth": 2', '"depth": 3'))
    with pytest.raises(ValueError, match="do not fit the model"):
        FluidPipeline.from_pretrained(folder)
    weights.unlink()
    for verify in (True, False):
        with pytest.raises(ValueError, match="holds no model.safetensors|lacks weights as safetensors"):
            FluidPipeline.from_pretrained(folder, verify=verify)


@pytest.mark.parametrize("order, head", [("raster", "softmax"), ("random", "diffusion")])
def test_memory_does_not_grow_with_the_number_of_images(parts, order, head, monkeypatch):
    """Groups of two, seen in what `generate` is given; the images are those of one group."""
    import fluidlab.pipeline as module
    pipe, sizes, draw = pipeline(parts, order, head), [], module.generate
    monkeypatch.setattr(module, "generate", lambda model, features, *args, **options: sizes.append(len(features))
                        or draw(model, features, *args, **options))
    prompts = ["a cat", "", "two dogs", "a red bus", "a cat"]
    settings = {"seed": 3, "num_denoising_steps": 2, "output_type": "latent"}
    whole = pipe(prompts, **settings).tokens
    groups = pipe(prompts, images_at_once=2, **settings).tokens
    assert sizes == [5, 2, 2, 1] and torch.allclose(whole.float(), groups.float(), atol=1e-4)
    stopped = pipe(prompts, images_at_once=2, on_step=lambda step: step.index < 1, **settings).tokens
    blank = pipe.model.head.blank(3, pipe.model.config.seq_len)
    assert sizes[4:] == [2] and torch.equal(stopped[2:], blank) and not torch.equal(stopped[:2], blank[:2])
    with pytest.raises(ValueError, match="images_at_once must be a whole number at least 1, got 0"):
        pipe(prompts, images_at_once=0)
