"""An evaluation end to end with a generator that draws true scenes: whole, stopped and continued, refused."""

import pytest
import torch

from fluidlab.data.scenes import EmojiScenes
from fluidlab.evaluate.detector import Detector, DetectorConfig
from fluidlab.evaluate.report import evaluate_generator, look, reference_features
from fluidlab.evaluate.sceneval import SKILLS

SCENES = EmojiScenes("test", seed=2)
OPTIONS = dict(per_skill=2, images_per_prompt=2, frechet_images=12, reference_images=12, chunk=5, progress=False)


@pytest.fixture(scope="module")
def detector():
    torch.manual_seed(0)
    config = DetectorConfig(classes=SCENES.classes, colors=SCENES.colors, width=16, coarse_width=24, coarse_depth=1)
    return Detector(config).eval().requires_grad_(False)


def drawing(calls):
    def draw(prompts, seeds):
        calls.append(list(seeds))
        return SCENES.batch(seeds)[0].float() / 127.5 - 1
    return draw


def test_every_image_is_drawn_once_and_the_metrics_have_their_names(detector, tmp_path):
    calls = []
    report = evaluate_generator(drawing(calls), detector, tmp_path, **OPTIONS)
    assert sum(calls, []) == list(range(24 + 12)) and report.num_images == 36
    metrics = report.metrics()
    assert {"frechet", "sceneval_overall", "sceneval_heldout_low", "sceneval_color_attr_seen",
            "sceneval_position_heldout_high", *(f"sceneval_{s}" for s in SKILLS)} <= set(metrics)
    assert metrics["sceneval_overall_low"] <= metrics["sceneval_overall"] <= metrics["sceneval_overall_high"]
    assert report.frechet_infinity is None and report.frechet >= 0
    again = evaluate_generator(drawing(calls), detector, tmp_path, **OPTIONS)
    assert again == report and sum(map(len, calls)) == 36


def test_a_stopped_evaluation_goes_on(detector, tmp_path):
    whole, calls = evaluate_generator(drawing([]), detector, tmp_path / "whole", **OPTIONS), []

    def stopped(prompts, seeds):
        if seeds[0] == 10:
            raise KeyboardInterrupt
        return drawing(calls)(prompts, seeds)
    with pytest.raises(KeyboardInterrupt):
        evaluate_generator(stopped, detector, tmp_path / "cut", **OPTIONS)
    assert evaluate_generator(drawing(calls), detector, tmp_path / "cut", **OPTIONS) == whole
    assert sorted(sum(calls, [])) == list(range(36))


def test_reference_features_pass_through_what_they_are_given(detector):
    plain, gray = reference_features(detector, 6, 4), reference_features(detector, 6, 4, torch.zeros_like)
    assert plain.shape == gray.shape == (6, 24) and not torch.equal(plain, gray)
    assert torch.equal(gray[0], gray[5])


def test_other_plans_and_empty_ones_are_refused(detector, tmp_path):
    draw = drawing([])
    look(draw, detector, ["a cat"], [1], tmp_path, progress=False)
    with pytest.raises(ValueError, match="another prompts .*cat.*now .*dog"):
        look(draw, detector, ["a dog"], [1], tmp_path, progress=False)
    look(draw, detector, ["a cat"], [1], tmp_path / "scale 3", facts={"guidance_scale": 3.0}, progress=False)
    with pytest.raises(ValueError, match="another guidance_scale .3.0, now 4.0."):
        look(draw, detector, ["a cat"], [1], tmp_path / "scale 3", facts={"guidance_scale": 4.0}, progress=False)
    with pytest.raises(ValueError, match="got 0 prompts and 0 seeds"):
        look(draw, detector, [], [], tmp_path / "b", progress=False)
    with pytest.raises(ValueError, match="frechet_images must be a whole number at least 2, got 1"):
        evaluate_generator(draw, detector, tmp_path / "c", **{**OPTIONS, "frechet_images": 1})
