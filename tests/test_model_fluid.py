import json

import pytest
import torch
from helpers import VARIANTS, batch, seeded, variant

from fluidlab.model.files import load_model, save_model
from fluidlab.model.fluid import Fluid


@pytest.mark.parametrize("order, head", VARIANTS)
def test_a_frozen_batch_is_learned_by_heart(order, head):
    """The generator is seeded anew every step, so the same masks and noise return: loss falls below a tenth.

    The floor of a flow's or a diffusion's loss is not zero in general, but for one fixed draw per token it is.
    """
    from fluidlab.presets import preset
    torch.manual_seed(0)
    model = Fluid(preset("nano", order=order, head=head, codebook_size=32))
    data = batch(model, B=2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.0)
    losses = []
    for _ in range(220):
        loss = model(*data, seeded(1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.1 * losses[0]


@pytest.mark.parametrize("order, head", VARIANTS)
def test_every_parameter_learns(order, head):
    model = variant(order, head)
    model(*batch(model), seeded(0)).backward()
    still = [n for n, p in model.named_parameters() if p.grad is None or p.grad.abs().sum() == 0]
    assert still == []


@pytest.mark.parametrize("order, head", VARIANTS)
def test_loss_is_the_mean_over_targets_and_repeats_exactly(order, head):
    model = variant(order, head)
    data = batch(model)
    loss, is_target = model.token_losses(*data, seeded(5))
    assert model(*data, seeded(5)).item() == pytest.approx(loss[is_target].mean().item(), rel=1e-6)
    assert model(*data, seeded(5)).item() == model(*data, seeded(5)).item()
    nothing_is_random = (order, head) == ("raster", "softmax")
    assert (model(*data, seeded(5)).item() == model(*data, seeded(6)).item()) == nothing_is_random


def test_the_text_matters_its_padding_does_not_and_no_text_is_no_nan():
    model = variant("random", "diffusion")
    tokens, features, mask = batch(model)
    noisy = torch.where(mask[..., None], features, torch.full_like(features, 1e3))
    base = model(tokens, features, mask, seeded(0))
    assert torch.equal(base, model(tokens, noisy, mask, seeded(0)))
    assert not torch.equal(base, model(tokens, features + 1, mask, seeded(0)))
    nothing = model(tokens, features, torch.zeros_like(mask), seeded(0))
    assert torch.isfinite(nothing)
    nothing.backward()
    assert model.aligner.null_token.grad.abs().sum() > 0


def test_more_noise_draws_per_token_give_the_same_expected_loss():
    """Mean of 8 draws against 8 means of one: equal within 5 standard errors of this batch."""
    one, eight = variant("random", "diffusion"), variant("random", "diffusion", head_repeats=8)
    data = batch(one, B=64)
    singles = torch.stack([one(*data, seeded(s)).detach() for s in range(8)])
    assert abs(eight(*data, seeded(0)).item() - singles.mean().item()) < 5 * singles.std().item()


@pytest.mark.parametrize("break_it, sentence", [
    (lambda t, f, m: (t[:, :9], f, m), r"tokens must be continuous of shape \(B, 16, 16\), got .* \(4, 9, 16\)"),
    (lambda t, f, m: (t.long(), f, m), r"tokens must be continuous .* got torch.int64"),
    (lambda t, f, m: (t, f[..., :7], m), r"features must be of shape \(B, S, 128\), got \(4, 6, 7\)"),
    (lambda t, f, m: (t, f, m.long()), r"mask must be bool of shape \(4, 6\), got torch.int64"),
    (lambda t, f, m: (t[:2], f, m), "one batch, got 2 and 4"),
])
def test_what_does_not_fit_is_refused(break_it, sentence):
    model = variant("random", "diffusion")
    with pytest.raises(ValueError, match=sentence):
        model(*break_it(*batch(model)))


def test_parts_add_up():
    counts = variant("random", "diffusion").count_parameters()
    assert set(counts) == {"aligner", "order", "head", "backbone", "total"}
    assert counts["total"] == sum(v for k, v in counts.items() if k != "total")


@pytest.mark.parametrize("order, head", VARIANTS)
def test_a_model_comes_back_from_its_folder(order, head, tmp_path):
    model = variant(order, head)
    save_model(model, tmp_path)
    again = load_model(tmp_path)
    assert again.config == model.config
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True))
    save_model(model, tmp_path, dtype=torch.float16)
    assert next(load_model(tmp_path).parameters()).dtype == torch.float32
    assert sorted(p.name for p in tmp_path.iterdir()) == ["config.json", "model.safetensors"]


def test_broken_folders_are_named(tmp_path):
    with pytest.raises(ValueError, match="holds no config.json"):
        load_model(tmp_path)
    save_model(variant("random", "diffusion"), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "depth": 1}))
    with pytest.raises(ValueError, match="the weights in .* do not fit the model"):
        load_model(tmp_path)
    weights = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(weights[:len(weights) // 2])
    with pytest.raises(ValueError, match="cannot be read as a Fluid model"):
        load_model(tmp_path)


def sinus(shape, phase):
    return torch.sin(torch.arange(int(torch.tensor(shape).prod())) * 0.37 + phase).reshape(shape)


def golden_value(order, head):
    """Weights and inputs from sin(arange), no random numbers at all: z of position 5 after the whole model."""
    model = variant(order, head)
    with torch.no_grad():
        for i, p in enumerate(model.parameters()):
            p.copy_(sinus(p.shape, i) * 0.2)
    tokens = (torch.arange(16) * 7 % 64)[None] if head == "softmax" else sinus((1, 16, 16), 0.5)
    is_target = torch.arange(16)[None] % 3 == 0
    text = model.aligner(sinus((1, 6, 128), 0.1), torch.arange(6)[None] < 4)
    with torch.no_grad():
        return model.hidden(tokens, is_target, *text)[0, 5, :3].tolist()


@pytest.mark.parametrize("order, head, expected", [
    ("raster", "softmax", [-0.16877, -0.22493, -0.23403]),
    ("raster", "diffusion", [0.15068, 0.27369, 0.23499]),
    ("random", "softmax", [-0.17129, -0.26856, -0.31458]),
    ("random", "diffusion", [0.13882, 0.25339, 0.21094]),
])
def test_the_model_computes_what_it_computed_when_it_was_first_right(order, head, expected):
    assert golden_value(order, head) == pytest.approx(expected, abs=1e-4)
