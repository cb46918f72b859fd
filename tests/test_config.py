import pytest

from fluidlab.config import ModelConfig, SampleConfig, TrainConfig


@pytest.mark.parametrize("change, sentence", [
    ({"order": "spiral"}, "order must be one of raster, random, got 'spiral'"),
    ({"head": "gan"}, "head must be one of softmax, diffusion, flow, got 'gan'"),
    ({"width": 0}, "width must be a whole number at least 4, got 0"),
    ({"width": 6, "num_heads": 1}, "width must be a multiple of 4 .* got 6"),
    ({"width": 64, "num_heads": 5}, "width must be a multiple of num_heads, got width 64 and num_heads 5"),
    ({"depth": 2.0}, "depth must be a whole number at least 1, got 2.0"),
    ({"seq_len": 15}, "seq_len must be a square number .* got 15"),
    ({"codebook_size": 1}, "codebook_size must be a whole number at least 2, got 1"),
    ({"head_width": -1}, "head_width must be a whole number at least 4, got -1"),
])
def test_a_wrong_model_is_refused_before_it_is_built(change, sentence):
    with pytest.raises(ValueError, match=sentence):
        ModelConfig(**change)


@pytest.mark.parametrize("change, sentence", [
    ({"steps": 0}, "steps must be a whole number at least 1, got 0"),
    ({"lr": -1.0}, "lr must be a positive finite number, got -1.0"),
    ({"lr": float("nan")}, "lr must be a positive finite number, got nan"),
    ({"precision": "fp16"}, "precision must be one of float32, bf16, got 'fp16'"),
    ({"text_dropout": 1.5}, "text_dropout must be a number from 0 to 1, got 1.5"),
    ({"schedule": "step"}, "schedule must be one of constant, cosine"),
    ({"betas": (0.9, 1.0)}, "betas must be two numbers from 0 to below 1"),
])
def test_a_wrong_run_is_refused(change, sentence):
    with pytest.raises(ValueError, match=sentence):
        TrainConfig(**change)


@pytest.mark.parametrize("change, sentence", [
    ({"guidance_scale": float("nan")}, "guidance_scale must be a number from 0 to 100, got nan"),
    ({"temperature": -0.1}, "temperature must be a number from 0 to 10, got -0.1"),
    ({"num_denoising_steps": 1001}, "num_denoising_steps must be a whole number from 1 to 1000, got 1001"),
    ({"guidance_schedule": "cosine"}, "guidance_schedule must be one of constant, linear"),
])
def test_wrong_sampling_is_refused(change, sentence):
    with pytest.raises(ValueError, match=sentence):
        SampleConfig(**change)


@pytest.mark.parametrize("config", [ModelConfig(), TrainConfig(), SampleConfig()])
def test_a_configuration_travels_as_json(config):
    import json
    assert type(config).from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_an_unknown_field_is_named():
    with pytest.raises(ValueError, match="ModelConfig has no widht; it knows .*width"):
        ModelConfig.from_dict({"widht": 3})
