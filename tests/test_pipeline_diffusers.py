"""What users of diffusers expect of a pipeline: components, moving, offloading, callbacks, bars, kinds of output."""

import subprocess
import sys
import types

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline, ModelMixin
from diffusers.callbacks import PipelineCallback
from diffusers.pipelines import pipeline_utils
from helpers import variant

from fluidlab.pipeline import FluidPipeline
from fluidlab.text.encoder import load_text_encoder
from fluidlab.tokenizer.vae import VAEConfig, VAETokenizer
from fluidlab.tokenizer.vq import VQConfig, VQTokenizer

QUICK = {"seed": 0, "num_denoising_steps": 2}
CAT = "a photo of a cat"


def pipeline(order="random", head="diffusion", **options):
    torch.manual_seed(0)
    small = {"width": 32, "coarse_width": 32, "encoder_depth": 1, "decoder_depth": 1}
    model = variant(order, head)
    tokenizer = (VQTokenizer(VQConfig(codebook_size=64, **small)) if model.head.token_kind == "discrete"
                 else VAETokenizer(VAEConfig(coarse_depth=1, **small)))
    return FluidPipeline(model, tokenizer.eval(), load_text_encoder("scenes-t5"), **options)


def test_the_components_are_the_three_parts():
    pipe = pipeline()
    assert isinstance(pipe, DiffusionPipeline) and isinstance(pipe.model, ModelMixin)
    assert pipe.components == {"model": pipe.model, "tokenizer": pipe.tokenizer, "text_encoder": pipe.text_encoder}
    assert pipe.device == torch.device("cpu") and pipe.dtype == torch.float32 and pipe.parameters == {"defaults": {}}
    twin = FluidPipeline(**pipe.components, defaults={"temperature": 0.5})
    assert twin.model is pipe.model and twin.config.defaults == {"temperature": 0.5}
    third = FluidPipeline.from_pipe(twin)
    assert third.model is pipe.model and third.config.defaults == {"temperature": 0.5}


def test_the_package_is_imported_without_diffusers_and_the_pipeline_when_it_is_asked_for():
    asked = ("import sys, fluidlab; early = {'diffusers', 'transformers'} & set(sys.modules); "
             "from fluidlab import FluidPipeline as F; print(early, F is fluidlab.FluidPipeline); fluidlab.Fluids")
    told = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, timeout=300)
    assert told.stdout.strip() == "set() True"
    assert "AttributeError: module 'fluidlab' has no attribute 'Fluids'" in told.stderr


def test_diffusers_own_class_does_not_know_this_one(tmp_path):
    """It looks a class up among its own and runs no code that a folder names: load by `FluidPipeline`."""
    folder = pipeline().save_pretrained(tmp_path / "pipe")
    with pytest.raises(AttributeError, match="FluidPipeline"):
        DiffusionPipeline.from_pretrained(folder)


def test_bf16_is_for_backbone_and_text_and_leaves_head_and_tokenizer_alone():
    pipe = pipeline()
    exact = {**pipe.model.head.state_dict(), **pipe.tokenizer.state_dict()}
    exact = {name: value.clone() for name, value in exact.items()}
    plain = pipe(CAT, **QUICK)
    assert pipe.to("cpu", torch.bfloat16) is pipe
    assert pipe.dtype == pipe.text_encoder.dtype == torch.bfloat16 and pipe.tokenizer.dtype == torch.float32
    for name, value in {**pipe.model.head.state_dict(), **pipe.tokenizer.state_dict()}.items():
        assert value.dtype == torch.float32 and torch.equal(value, exact[name]), name
    seen = []
    pipe.model.head.denoiser.token_out.register_forward_hook(lambda module, inputs, out: seen.append(out.dtype))
    rounded = pipe(CAT, **QUICK)
    assert set(seen) == {torch.float32} and rounded.pixels.dtype == torch.float32
    assert not torch.equal(rounded.tokens, plain.tokens)
    assert pipe.to(dtype=torch.float32).dtype == torch.float32


def test_other_precisions_are_refused():
    pipe = pipeline()
    for ask in (lambda: pipe.to(torch.float16), lambda: pipe.to("cpu", torch.float16),
                lambda: pipe.to(dtype=torch.float64)):
        with pytest.raises(ValueError, match="one of torch.float32, torch.bfloat16, got torch.float(16|64)"):
            ask()
    with pytest.raises(ValueError, match="to takes one dtype, got 2: torch.bfloat16, torch.float32"):
        pipe.to(torch.bfloat16, dtype=torch.float32)
    assert pipe.dtype == torch.float32


class TestOffloading:
    """An accelerator is played by a hook that writes down when it is called; accelerate's own does the moving."""

    @pytest.fixture
    def moved(self, monkeypatch):
        moved = []

        class Hook:
            execution_device = torch.device("cpu")

            def __init__(self, part, before):
                self.part, self.before = part, before

            def pre_forward(self, module, *args, **kwargs):
                moved.append(f"{type(module).__name__} in")
                if self.before is not None:
                    moved.append(f"{type(self.before.part).__name__} out")

        def cpu_offload_with_hook(model, device, prev_module_hook=None):
            hook = model._hf_hook = Hook(model, prev_module_hook)
            inner = model.forward

            def forward(*args, **kwargs):
                hook.pre_forward(model)
                return inner(*args, **kwargs)
            model.forward = forward
            return model, hook

        def remove_hook_from_module(module, recurse=False):
            del module._hf_hook, module.forward
            moved.append(f"{type(module).__name__} freed")

        hooks = types.SimpleNamespace(remove_hook_from_module=remove_hook_from_module, CpuOffload=Hook,
                                      AlignDevicesHook=type("Align", (), {}))
        fake = types.ModuleType("accelerate")
        fake.cpu_offload_with_hook, fake.hooks = cpu_offload_with_hook, hooks
        monkeypatch.setitem(sys.modules, "accelerate", fake)
        monkeypatch.setattr(pipeline_utils, "accelerate", fake, raising=False)
        monkeypatch.setattr(pipeline_utils, "is_accelerate_available", lambda: True)
        monkeypatch.setattr(pipeline_utils, "is_accelerate_version", lambda how, version: how == ">=")
        return moved

    def test_each_part_is_moved_in_when_its_turn_comes(self, moved):
        pipe = pipeline()
        plain = pipe(CAT, **QUICK)
        pipe.enable_model_cpu_offload(device="cpu")
        offloaded = pipe(CAT, **QUICK)
        assert torch.equal(plain.tokens, offloaded.tokens) and torch.equal(plain.pixels, offloaded.pixels)
        turns = [what for what in moved if not what.endswith("freed")]
        assert turns == ["TextEncoder in", "FluidModel in", "TextEncoder out", "VAETokenizer in", "FluidModel out"]
        assert sum(what.endswith("freed") for what in moved) == 3 and len(pipe._all_hooks) == 3       # and put on anew

    def test_editing_moves_the_tokenizer_first(self, moved):
        pipe = pipeline()
        pipe.enable_model_cpu_offload(device="cpu")
        image, hole = torch.zeros(3, 64, 64), torch.ones(64, 64, dtype=torch.bool)
        for edit in (lambda: pipe.inpaint(image, hole, CAT, **QUICK), lambda: pipe.variation(image, CAT, **QUICK),
                     lambda: pipe.outpaint(image, CAT, right=16, **QUICK)):
            moved.clear()
            edit()
            turns = [what for what in moved if what.endswith("in")]
            assert turns == ["VAETokenizer in", "TextEncoder in", "FluidModel in", "VAETokenizer in"]

    def test_without_accelerate_or_an_accelerator_the_error_says_so(self, monkeypatch):
        pipe = pipeline()
        monkeypatch.setattr(pipeline_utils, "is_accelerate_available", lambda: False)
        with pytest.raises(ImportError, match="requires `accelerate"):
            pipe.enable_model_cpu_offload()
        with pytest.raises(ValueError, match="layer by layer; enable_model_cpu_offload works"):
            pipe.enable_sequential_cpu_offload()

    def test_with_accelerate_but_without_an_accelerator_too(self, moved, monkeypatch):
        monkeypatch.setattr(pipeline_utils, "get_device", lambda: "cpu")
        with pytest.raises(RuntimeError, match="requires accelerator"):
            pipeline().enable_model_cpu_offload()


class TestCallback:
    @pytest.mark.parametrize("order, steps", [("random", 4), ("raster", None)])
    def test_it_is_called_after_every_step_with_what_was_asked_for(self, order, steps):
        pipe, calls = pipeline(order), []

        def callback(pipe_, step, timestep, tensors):
            calls.append((pipe_, step, timestep, {name: value.clone() for name, value in tensors.items()}))
            return tensors
        watched = pipe([CAT, ""], callback_on_step_end=callback, num_inference_steps=steps,
                       callback_on_step_end_tensor_inputs=["tokens", "unknown", "positions"], **QUICK)
        assert torch.equal(watched.tokens, pipe([CAT, ""], num_inference_steps=steps, **QUICK).tokens)
        assert [call[1] for call in calls] == [call[2] for call in calls] == list(range(steps or 16))
        assert pipe.num_timesteps == (steps or 16) and all(call[0] is pipe for call in calls)
        for _, _, _, tensors in calls:
            assert tensors["tokens"].shape == (2, 16, 16) and tensors["unknown"].shape == (2, 16)
            assert not tensors["unknown"].gather(1, tensors["positions"]).any()
        assert torch.equal(calls[-1][3]["tokens"], watched.tokens) and not calls[-1][3]["unknown"].any()

    def test_the_tokens_that_it_returns_take_the_place_of_those_so_far(self):
        pipe, put = pipeline(), torch.full((16,), 0.25)

        def callback(pipe, step, timestep, tensors):
            if step == 0:
                tokens = tensors["tokens"].clone()
                tokens[0, tensors["positions"][0, 0]] = put
                return {"tokens": tokens}
        asked = {"callback_on_step_end_tensor_inputs": ["tokens", "positions"]}
        changed = pipe(CAT, callback_on_step_end=callback, **asked, **QUICK).tokens[0]
        plain = pipe(CAT, **QUICK).tokens[0]
        assert (changed == put).all(dim=1).sum() == 1
        assert (changed != plain).any(dim=1).sum() == 16                    # the others have seen it: none is as it was

    def test_diffusers_own_kind_of_callback_brings_its_names_along(self):
        class Keep(PipelineCallback):
            tensor_inputs = ["unknown"]

            def callback_fn(self, pipe, step, timestep, tensors):
                seen.append(int(tensors["unknown"].sum()))
                return tensors
        seen = []
        pipeline()(CAT, callback_on_step_end=Keep(cutoff_step_ratio=None, cutoff_step_index=0), **QUICK)
        assert seen == list(range(15, -1, -1))

    def test_names_and_shapes_that_do_not_fit_are_refused(self):
        pipe = pipeline()
        with pytest.raises(ValueError, match="must be one of tokens, unknown, positions, got 'latents'"):
            pipe(CAT, callback_on_step_end=lambda *a: {}, callback_on_step_end_tensor_inputs=["latents"], **QUICK)
        with pytest.raises(ValueError, match=r"tokens of shape \(1, 16, 16\), got \(1, 4, 16\)"):
            pipe(CAT, callback_on_step_end=lambda p, i, t, given: {"tokens": given["tokens"][:, :4]}, **QUICK)

    @pytest.mark.parametrize("head", ["diffusion", "softmax"])
    def test_an_interrupted_drawing_shows_grey_where_nothing_was_drawn(self, head):
        pipe, calls = pipeline(head=head), []

        def callback(pipe, step, timestep, tensors):
            calls.append(tensors["unknown"])
            pipe._interrupt = step == 9
            return tensors
        asked = {"callback_on_step_end": callback, "callback_on_step_end_tensor_inputs": ["unknown"]}
        output = pipe(CAT, **asked, **QUICK)
        assert len(calls) == 10 and pipe.interrupt
        unknown = calls[-1][0].view(4, 4)
        assert unknown.sum() == 6
        grey = output.pixels[0].eq(0).all(dim=0)
        assert torch.equal(grey, unknown.repeat_interleave(16, 0).repeat_interleave(16, 1))
        full = pipe(CAT, **QUICK)
        assert not pipe.interrupt and not full.pixels.eq(0).all(dim=1).any()
        assert torch.equal(full.tokens[0][~calls[-1][0]], output.tokens[0][~calls[-1][0]])

    def test_on_step_goes_on_as_before_and_its_false_ends_the_drawing(self):
        pipe, steps = pipeline(), []
        pipe(CAT, on_step=steps.append, **QUICK)
        assert [step.index for step in steps] == list(range(16))
        pipe(CAT, on_step=lambda step: steps.append(step) or len(steps) < 20, **QUICK)
        assert len(steps) == 20


def test_the_bar_is_shown_in_a_terminal_and_where_it_is_asked_for(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "ipykernel", types.ModuleType("ipykernel"))
    in_a_notebook = pipeline()
    monkeypatch.delitem(sys.modules, "ipykernel")
    pipe = pipeline()
    pipe(CAT, **QUICK)
    assert capsys.readouterr().err == ""                                    # not a terminal
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    in_a_notebook(CAT, **QUICK)
    assert capsys.readouterr().err == ""
    pipe(CAT, **QUICK)
    assert "16/16" in capsys.readouterr().err
    pipe.set_progress_bar_config(disable=False, desc="drawing")
    pipe(CAT, num_inference_steps=8, **QUICK)
    assert "drawing: 100%" in (said := capsys.readouterr().err) and "8/8" in said
    pipe.outpaint(torch.zeros(3, 64, 64), CAT, right=48, **QUICK)           # two canvases, 8 and 4 tokens
    assert "12/12" in capsys.readouterr().err


def test_kinds_of_output():
    pipe = pipeline()
    pil, pt, array, latent = (pipe(CAT, output_type=kind, **QUICK) for kind in ("pil", "pt", "np", "latent"))
    assert torch.equal(pt.images, (pil.pixels + 1) / 2) and array.images.shape == (1, 64, 64, 3)
    assert np.allclose(array.images[0] * 255, np.asarray(pil.images[0]), atol=0.51)
    assert latent.pixels is None and torch.equal(latent.images, pil.tokens)
    (images,) = pipe(CAT, return_dict=False, **QUICK)
    assert np.array_equal(images[0], pil.images[0]) and pil["images"] is pil.images is pil[0]
    with pytest.raises(ValueError, match="output_type must be one of pil, pt, np, latent, got 'png'"):
        pipe(CAT, output_type="png", **QUICK)


class TestDefaults:
    def test_they_are_used_where_a_call_says_nothing_else(self, tmp_path):
        plain, own = pipeline(), pipeline(defaults={"guidance_scale": 2.0, "temperature": 0.5})
        asked = {"guidance_scale": 2.0, "temperature": 0.5}
        assert torch.equal(own(CAT, **QUICK).tokens, plain(CAT, **asked, **QUICK).tokens)
        given = {"guidance_scale": 3.0, "temperature": 1.0}                 # what `generate` takes by itself
        assert torch.equal(own(CAT, **given, **QUICK).tokens, plain(CAT, **QUICK).tokens)
        ours, theirs = (pipe.variation(torch.zeros(3, 64, 64), CAT, **options, **QUICK).tokens
                        for pipe, options in ((own, {}), (plain, asked)))
        assert torch.equal(ours, theirs)
        again = FluidPipeline.from_pretrained(own.save_pretrained(tmp_path / "own"))
        assert again.config.defaults == asked and torch.equal(again(CAT, **QUICK).tokens, own(CAT, **QUICK).tokens)
        without = FluidPipeline.from_pretrained(tmp_path / "own", defaults={})
        assert torch.equal(without(CAT, **QUICK).tokens, plain(CAT, **QUICK).tokens)

    def test_impossible_ones_are_refused(self):
        with pytest.raises(ValueError, match="temperature must be a number from 0 to 10, got 11"):
            pipeline(defaults={"temperature": 11})
        with pytest.raises(ValueError, match="SampleConfig has no mood"):
            pipeline(defaults={"mood": "good"})
