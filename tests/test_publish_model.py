"""`FluidModel`: the same tensors as the `Fluid` it is made of, behind the methods that diffusers calls."""

import json

import pytest
import torch
from diffusers import ConfigMixin, ModelMixin
from helpers import VARIANTS, batch, seeded, variant
from huggingface_hub import HfApi

from fluidlab.model.files import load_model
from fluidlab.model.fluid import Fluid
from fluidlab.publish.model import FluidModel
from fluidlab.sample.generate import generate


@pytest.mark.parametrize("order, head", VARIANTS)
def test_it_is_the_same_model_and_not_a_copy(order, head):
    model = variant(order, head)
    same = FluidModel.of(model)
    assert isinstance(same, Fluid) and isinstance(same, ModelMixin) and isinstance(same, ConfigMixin)
    assert list(same.state_dict()) == list(model.state_dict()) and FluidModel.of(same) is same
    assert all(a is b for a, b in zip(same.parameters(), model.parameters(), strict=True))
    assert same.config is model.config and same.order is model.order and same.head is model.head
    tokens, features, mask = batch(model)
    assert same(tokens, features, mask, seeded(0)) == model(tokens, features, mask, seeded(0))
    with torch.no_grad():
        next(model.parameters()).add_(1.0)                          # as a training step in between would
    assert same(tokens, features, mask, seeded(0)) == model(tokens, features, mask, seeded(0))


def test_what_a_subclass_overrides_stays_overridden():
    class Loud(Fluid):
        def count_parameters(self):
            return {"total": -1}

    same = FluidModel.of(Loud(variant("random", "flow").config))
    assert same.count_parameters() == {"total": -1} and isinstance(same, FluidModel) and isinstance(same, Loud)


def test_its_configuration_is_what_diffusers_writes_and_reads():
    model = FluidModel.of(variant("random", "softmax"))
    written = json.loads(model.to_json_string())
    assert written["_class_name"] == "FluidModel" and written["order"] == "random" and written["width"] == 64
    again = FluidModel.from_config(written, depth=3)
    assert again.config == model.config.replace(depth=3) and not torch.equal(again.head.table, model.head.table)
    with pytest.raises(ValueError, match="ModelConfig has no colour"):
        FluidModel.from_config({**written, "colour": 1})


def test_saved_and_loaded_it_is_the_same(tmp_path):
    model = FluidModel.of(variant("raster", "diffusion"))
    model.save_pretrained(tmp_path / "model")
    assert sorted(p.name for p in (tmp_path / "model").iterdir()) == ["config.json", "model.safetensors"]
    for again in (FluidModel.from_pretrained(tmp_path / "model"),
                  FluidModel.from_pretrained(tmp_path, subfolder="model"), load_model(tmp_path / "model")):
        assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
        assert not again.training
    with pytest.raises(ValueError, match="safe_serialization must be True, got False"):
        model.save_pretrained(tmp_path / "other", safe_serialization=False)
    with pytest.raises(ValueError, match="variant must be None, got 'fp16'"):
        model.save_pretrained(tmp_path / "other", variant="fp16")
    with pytest.raises(ValueError, match="dtype must be one of torch.float32, torch.bfloat16, got torch.float16"):
        FluidModel.from_pretrained(tmp_path / "model", torch_dtype=torch.float16)


@pytest.mark.parametrize("how", [lambda m: m.to(torch.bfloat16), lambda m: m.to("cpu", torch.bfloat16),
                                 lambda m: m.bfloat16(), lambda m: m.to(dtype=torch.bfloat16)])
def test_in_bf16_the_head_keeps_every_bit_of_its_float32(how):
    """Bit for bit: a cast there and back would lose 16 of them, and z comes in float32 too."""
    model = FluidModel.of(variant("random", "diffusion"))
    exact = {name: p.clone() for name, p in model.named_parameters()}
    how(model)
    assert model.dtype == torch.bfloat16 and model.device == torch.device("cpu")
    for name, p in model.named_parameters():
        if name.startswith(("head", "order")):
            assert p.dtype == torch.float32 and torch.equal(p, exact[name]), name
        else:
            assert p.dtype == torch.bfloat16 and torch.equal(p, exact[name].bfloat16()), name
    tokens, features, mask = batch(model)
    z = model.hidden(tokens, torch.ones(4, 16, dtype=torch.bool), *model.aligner(features, mask))
    assert z.dtype == torch.float32 and torch.equal(z, z.bfloat16().float())


@pytest.mark.parametrize("order, head", VARIANTS)
def test_every_variant_draws_in_bf16_and_nearly_the_same(order, head):
    """z has 8 bits of mantissa, and 16 steps add up its roundings: still far nearer than the image of another seed."""
    model = FluidModel.of(variant(order, head))
    _, features, mask = batch(model, B=2)
    how = {"guidance_scale": 1.0, "temperature": 0.5, "num_denoising_steps": 4}
    exact, other = (generate(model, features, mask, generator=seeded(s), **how) for s in (0, 1))
    rounded = generate(model.to(torch.bfloat16), features, mask, generator=seeded(0), **how)
    assert rounded.dtype == exact.dtype
    off, far = ((t != exact).float() if head == "softmax" else (t - exact).abs() for t in (rounded, other))
    assert not torch.equal(rounded, exact) or head == "softmax"
    assert off.mean() < 0.2 * far.mean()


def test_it_can_be_pushed_alone(monkeypatch):
    """diffusers' own `push_to_hub`, with the Hub's side played by functions."""
    sent = {}

    class Repo:
        repo_id = "ada/fluid"

    monkeypatch.setattr("diffusers.utils.hub_utils.create_repo", lambda repo_id, **options: Repo)
    monkeypatch.setattr("diffusers.utils.hub_utils.load_or_create_model_card", lambda *a, **k: None)
    monkeypatch.setattr("diffusers.utils.hub_utils.populate_model_card", lambda card: Card)
    monkeypatch.setattr(HfApi, "upload_folder", None)

    class Card:
        @staticmethod
        def save(path):
            sent["card"] = path

    def upload(repo_id, folder_path, **options):
        sent.update(repo_id=repo_id, weights=load_model(folder_path).state_dict(), **options)
        return "https://hub/commit"
    monkeypatch.setattr("diffusers.utils.hub_utils.upload_folder", upload)
    model = FluidModel.of(variant("random", "flow"))
    assert model.push_to_hub("fluid") == "https://hub/commit"
    assert sent["repo_id"] == "ada/fluid" and sent["commit_message"] == "Upload model"
    assert all(torch.equal(w, model.state_dict()[k]) for k, w in sent["weights"].items())
