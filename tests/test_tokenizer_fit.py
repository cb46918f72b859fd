"""Training: it learns, it saves what it averaged, and a resumed run is the uninterrupted one."""

import json

import pytest
import torch
from safetensors.torch import load_file

from fluidlab.tokenizer import VAEConfig, VQConfig, load_tokenizer
from fluidlab.tokenizer.fit import FitConfig, fit_tokenizer, to_unit
from fluidlab.tokenizer.metrics import psnr

SMALL = {"width": 16, "encoder_depth": 1, "decoder_depth": 1, "coarse_width": 16}
CONFIGS = {
    "vae": VAEConfig(**SMALL, coarse_depth=1),
    "vq": VQConfig(**SMALL, codebook_size=32, code_dim=4, coarse_encoder_depth=1, coarse_decoder_depth=1),
}
KINDS = pytest.mark.parametrize("kind", sorted(CONFIGS))
RECIPE = FitConfig(batch_size=4, lr=1e-2, warmup_steps=5, save_every=5)


def flat_colours(step):
    """Four images of one colour each, uint8, other ones at every step."""
    generator = torch.Generator().manual_seed(step)
    return torch.randint(0, 256, (4, 3, 1, 1), generator=generator, dtype=torch.uint8).expand(4, 3, 32, 32)


def fit(kind, out, **budget):
    return fit_tokenizer(kind, flat_colours, out, model_config=CONFIGS[kind], config=RECIPE, **budget)


@KINDS
def test_learns_and_leaves_a_loadable_folder(kind, tmp_path):
    steps = {"vae": 60, "vq": 240}[kind]  # a codebook takes longer to settle
    tokenizer = fit(kind, tmp_path, steps=steps)
    images = to_unit(flat_colours(1000))
    trained = psnr(images, tokenizer.decode(tokenizer.encode(images))).mean()
    blank = psnr(images, torch.zeros_like(images)).mean()
    assert trained > blank + 3.0
    loaded = load_tokenizer(tmp_path)
    again = psnr(images, loaded.decode(loaded.encode(images))).mean()
    assert abs(again - trained) < 0.1  # the weights were stored as float16
    assert json.loads((tmp_path / "fit.json").read_text())["steps"] == steps


def test_latents_of_a_fitted_vae_have_unit_variance(tmp_path):
    vae = fit("vae", tmp_path, steps=20)
    tokens = torch.cat([vae.encode(to_unit(flat_colours(step))) for step in range(32)])
    latents = tokens.unflatten(-1, (4, 4)).flatten(0, 2)
    assert torch.allclose(latents.mean(0), torch.zeros(4), atol=1e-3)
    assert torch.allclose(latents.std(0), torch.ones(4), atol=1e-3)


@KINDS
def test_a_resumed_run_is_the_uninterrupted_one(kind, tmp_path):
    whole = fit(kind, tmp_path / "whole", steps=12).state_dict()

    pressed = []

    def interrupted(step):
        if step == 7 and not pressed:
            pressed.append(True)
            raise KeyboardInterrupt
        return flat_colours(step)

    with pytest.raises(KeyboardInterrupt):
        fit_tokenizer(kind, interrupted, tmp_path / "cut", steps=12, model_config=CONFIGS[kind], config=RECIPE)
    assert (tmp_path / "cut" / "model.safetensors").exists()
    resumed = fit(kind, tmp_path / "cut", steps=12, resume=True).state_dict()
    for name, value in whole.items():
        assert torch.equal(value, resumed[name]), name


@KINDS
def test_a_decoder_alone_learns_on_and_the_tokens_stay(kind, tmp_path):
    before = fit(kind, tmp_path / "whole", steps=8, dtype=torch.float32)
    after = fit(kind, tmp_path / "decoder", steps=8, decoder_of=tmp_path / "whole", dtype=torch.float32)
    images = to_unit(flat_colours(1000))
    assert torch.equal(before.encode(images), after.encode(images))
    assert json.loads((tmp_path / "decoder" / "fit.json").read_text())["decoder_of"]["steps"] == 8
    assert not torch.equal(before.decode(before.encode(images)), after.decode(after.encode(images)))


def test_wrong_budgets_and_kinds_are_refused(tmp_path):
    with pytest.raises(ValueError, match="steps=None and minutes=None, but exactly one"):
        fit("vae", tmp_path)
    with pytest.raises(ValueError, match="kind is 'gan', but must be one of"):
        fit_tokenizer("gan", flat_colours, tmp_path, steps=1)
    with pytest.raises(ValueError, match="batch_size=0"):
        FitConfig(batch_size=0)
    with pytest.raises(ValueError, match="there is no checkpoint"):
        fit("vae", tmp_path / "empty", steps=1, resume=True)


@KINDS
def test_a_loss_that_is_not_finite_stops_the_run_and_spoils_nothing(kind, tmp_path):
    def broken(step):
        return flat_colours(step) if step < 3 else torch.full((4, 3, 32, 32), float("nan"))
    with pytest.raises(FloatingPointError, match="at step 3: lower lr"):
        fit_tokenizer(kind, broken, tmp_path, steps=6, model_config=CONFIGS[kind], config=RECIPE)
    saved = load_file(tmp_path / "checkpoint.safetensors")
    assert all(torch.isfinite(value).all() for value in saved.values() if value.is_floating_point())
