"""What `data/` ships: tokenizers, a text encoder, and pipelines that load, draw, and fit the parts they name."""

import json

import numpy as np
import pytest
import torch
from safetensors import safe_open

from fluidlab.config import TOKEN_KINDS, data_dir
from fluidlab.data.scenes import EmojiScenes
from fluidlab.data.token_cache import tokens_fingerprint
from fluidlab.pipeline import FluidPipeline
from fluidlab.text.encoder import load_text_encoder
from fluidlab.tokenizer import SHIPPED, load_tokenizer
from fluidlab.tokenizer.metrics import psnr

LARGEST_MB = 60
PIPELINES = sorted(path.parent.name for path in data_dir().glob("*/pipeline.json"))


def test_all_of_data_stays_small():
    """60 MB: a clone, a wheel and a download in a class room stay quick."""
    total = sum(path.stat().st_size for path in data_dir().rglob("*") if path.is_file())
    assert total < LARGEST_MB * 1e6, f"data/ holds {total / 1e6:.1f} MB, allowed are {LARGEST_MB} MB"


def test_nothing_that_is_shipped_must_be_unpickled():
    kinds = {path.suffix for path in data_dir().rglob("*") if path.is_file()}
    assert not kinds & {".pt", ".pth", ".pkl", ".pickle", ".bin", ".ckpt", ".npy"}, sorted(kinds)
    for path in data_dir().rglob("*.safetensors"):
        with safe_open(path, "pt") as tensors:
            broken = [name for name in tensors.keys() if not tensors.get_tensor(name).float().isfinite().all()]
        assert not broken, (path.parent.name, broken)


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_tokenizer_knows_scenes(name):
    """Scenes that it has never seen, 18 dB at least: a blank picture of the scene's mean colour has about 12."""
    tokenizer = load_tokenizer(name)
    images = EmojiScenes("validation").batch(range(64))[0].float() / 127.5 - 1
    tokens = tokenizer.encode(images)
    assert tokens.shape[:2] == (64, 16) and tokenizer.seq_len == 16 and tokenizer.patch_size == 16
    mean = images.mean(dim=(2, 3), keepdim=True).expand_as(images)
    quality = float(psnr(images, tokenizer.decode(tokens)).mean())
    assert quality > 18 and quality > 3 + float(psnr(images, mean).mean())


def test_shipped_latents_are_normalised():
    """Roughly: the statistics are those of the training mix, in which an eighth are photographs, and not of scenes."""
    vae = load_tokenizer("scenes-vae")
    tokens = torch.cat([vae.encode(EmojiScenes("validation").batch(range(i, i + 64))[0].float() / 127.5 - 1)
                        for i in range(0, 256, 64)])
    latents = tokens.reshape(-1, vae.config.latent_channels)                    # a token is 2x2 latents, channels last
    assert latents.mean(0).abs().max() < 0.4 and (latents.std(0) - 1).abs().max() < 0.25


def test_the_shipped_text_encoder_reads_every_caption():
    encoder = load_text_encoder("scenes-t5")
    _, captions = EmojiScenes("test").batch(range(200))
    features, mask = encoder(captions)
    assert torch.isfinite(features).all() and mask.any(dim=1).all()
    assert features.shape[-1] == encoder.dim


@pytest.mark.parametrize("name", PIPELINES)
class TestPipeline:
    """Every pipeline that is shipped, by name."""

    def test_its_name_says_what_it_is_and_it_has_16_tokens(self, name):
        config = FluidPipeline.from_pretrained(name).model.config
        assert name.startswith(f"{config.order}-{config.head}-") and config.seq_len == 16

    def test_it_fits_the_parts_that_it_names(self, name):
        """By name, by kind, and by the fingerprints of the weights that its training tokens were made with."""
        parts = json.loads((data_dir() / name / "pipeline.json").read_text(encoding="utf-8"))
        pipe = FluidPipeline.from_pretrained(name)
        assert parts["tokenizer"] in SHIPPED and parts["text_encoder"] == "scenes-t5"
        assert pipe.tokenizer.kind == TOKEN_KINDS[pipe.model.config.head]
        facts = json.loads((data_dir() / name / "training.json").read_text(encoding="utf-8"))
        assert facts["fingerprints"] == {"tokenizer": tokens_fingerprint(pipe.tokenizer),
                                         "text_encoder": pipe.text_encoder.fingerprint()}

    def test_it_recommends_the_settings_that_its_card_was_measured_with(self, name):
        measured = json.loads((data_dir() / name / "card.json").read_text(encoding="utf-8"))["measured_with"]
        defaults = FluidPipeline.from_pretrained(name).config.defaults
        assert defaults == {key: measured[key] for key in ("guidance_scale", "temperature")}

    def test_it_draws_a_picture_that_is_none_of_the_trivial_ones(self, name):
        """Finite, not one colour, another for another text; the same for the same seed."""
        pipe = FluidPipeline.from_pretrained(name)
        output = pipe(["a photo of a cat", "a photo of a green umbrella"], seed=[0, 0], num_denoising_steps=10)
        assert torch.isfinite(output.pixels).all() and output.pixels.abs().max() <= 1
        cat, umbrella = (np.asarray(image) for image in output.images)
        assert cat.shape == (64, 64, 3) and cat.std() > 5 and not np.array_equal(cat, umbrella)
        again = pipe("a photo of a cat", seed=0, num_denoising_steps=10).pixels[0]
        assert (again - output.pixels[0]).abs().max() < 2 / 255
