"""The shipped judge and the shipped scores: what the texts of the course say of them must be true."""

import pytest

from fluidlab.evaluate.detector import load_detector
from fluidlab.evaluate.results import read_results
from fluidlab.evaluate.sceneval import SKILLS, examine, judge, prompt_list
from fluidlab.evaluate.sweep import DEFAULT_STEPS, best_setting, read_sweep
from fluidlab.pipeline import FluidPipeline

FOUR = [("raster", "softmax"), ("raster", "diffusion"), ("random", "softmax"), ("random", "diffusion")]


@pytest.fixture(scope="module")
def detector():
    return load_detector()


def score(order: str, head: str, metric: str) -> float:
    (row,) = read_results(order=order, head=head, preset="mini", metric=metric)
    return float(row["value"])


def test_the_judge_knows_true_scenes_and_is_not_fooled(detector):
    """100 scenes of each skill; the exam of data/README.md has 400 and found 1.000 and 0.000."""
    ceiling, mismatched = examine(detector, 100)
    for skill in SKILLS:
        assert ceiling.skills[skill].value >= 0.97, skill
        assert mismatched.skills[skill].value <= 0.05, skill


@pytest.mark.parametrize(("order", "head"), FOUR)
def test_a_shipped_model_draws_what_is_asked(order, head):
    """The object nearly always, in its colour most of the time; compositions that training never showed included."""
    assert score(order, head, "sceneval_single_object") >= 0.95
    assert score(order, head, "sceneval_colors_low") >= 0.6
    assert score(order, head, "sceneval_heldout") >= 0.7
    assert score(order, head, "sceneval_overall") >= 0.8


def test_the_paper_s_variant_reaches_the_course_s_target():
    assert score("random", "diffusion", "sceneval_overall") >= 0.85
    for skill in ("single_object", "counting"):
        assert score("random", "diffusion", f"sceneval_{skill}") >= 0.7
    for skill in ("two_object", "colors", "position", "color_attr"):
        assert score("random", "diffusion", f"sceneval_{skill}_seen") >= 0.7, skill


def test_colours_suffer_from_codes_and_not_from_orders():
    """Notebook 07 says so: in both orders the softmax variants lose most where a colour is asked for."""
    for order in ("raster", "random"):
        for skill in ("colors", "color_attr"):
            gap = score(order, "diffusion", f"sceneval_{skill}") - score(order, "softmax", f"sceneval_{skill}")
            assert gap > 0.1, (order, skill, gap)


def test_the_floors_of_both_tokenizers_are_near_the_bias_and_below_every_model():
    floors = {row["preset"]: float(row["value"]) for row in read_results(metric="reconstruction_frechet")}
    assert floors["scenes-vae"] == pytest.approx(floors["true scenes"], abs=0.01)
    assert floors["scenes-vq"] == pytest.approx(floors["true scenes"], abs=0.01)
    for order, head in FOUR:
        assert score(order, head, "frechet") > 3 * max(floors.values())


def least_distance(order: str, head: str) -> float:
    return min(row["frechet"] for row in read_sweep(model=f"{order}-{head}-mini", **DEFAULT_STEPS))


def test_the_tokens_stand_as_notebook_07_says():
    """SceneEval for continuous tokens, surely in random order only; the distance for them at the settings of the
    scores, for discrete ones at each model's best; and no gap where no colour is asked for."""
    for order in ("raster", "random"):
        assert score(order, "diffusion", "sceneval_overall") > score(order, "softmax", "sceneval_overall") + 0.02
        assert score(order, "diffusion", "frechet") < 0.7 * score(order, "softmax", "frechet")
        assert least_distance(order, "softmax") < 0.8 * least_distance(order, "diffusion")
        for skill in ("single_object", "counting", "position"):
            assert score(order, "softmax", f"sceneval_{skill}") >= score(order, "diffusion", f"sceneval_{skill}_low")
    apart = {order: score(order, "diffusion", "sceneval_overall_low") > score(order, "softmax", "sceneval_overall_high")
             for order in ("raster", "random")}
    assert apart == {"raster": False, "random": True}


def test_the_orders_stand_as_notebook_07_says():
    """Raster a little ahead in SceneEval, within the intervals; random closer at the settings of the scores, and level
    (by less than a quarter) at each model's best."""
    for head in ("softmax", "diffusion"):
        raster, random = (score(order, head, "sceneval_overall") for order in ("raster", "random"))
        assert raster > random and score("random", head, "sceneval_overall_high") > score(
            "raster", head, "sceneval_overall_low")
        assert score("random", head, "frechet") < 0.6 * score("raster", head, "frechet")
        best = [least_distance(order, head) for order in ("raster", "random")]
        assert max(best) < 1.3 * min(best)


def test_guidance_costs_distance_most_of_all_with_codes():
    def at(model, guidance):
        (row,) = read_sweep(model=f"{model}-mini", guidance_scale=guidance, temperature=0.85, **DEFAULT_STEPS)
        return row["frechet"]
    for order in ("raster", "random"):
        assert 8 < at(f"{order}-softmax", 2.0) / at(f"{order}-softmax", 1.0) < 12
        assert at(f"{order}-diffusion", 2.0) < at(f"{order}-diffusion", 1.0)


def test_steps_stand_as_notebook_07_says():
    """Ten denoising steps are enough, five cost distance; 8 steps over the sequence nearly do, 2 do not."""
    def at(model, guidance, **steps):
        steps = {**DEFAULT_STEPS, **steps}
        (row,) = read_sweep(model=f"{model}-mini", guidance_scale=guidance, temperature=0.5, **steps)
        return row
    for model, guidance in (("random-diffusion", 2.0), ("raster-diffusion", 3.0)):
        five, ten, all_of_them = (at(model, guidance, num_denoising_steps=n) for n in (5, 10, 25))
        assert ten["sceneval_overall"] > all_of_them["sceneval_overall"] - 0.05
        assert five["sceneval_overall"] > 0.7 and five["frechet"] > 1.5 * all_of_them["frechet"]
    for model, guidance in (("random-diffusion", 2.0), ("random-softmax", 1.0)):
        two, eight, all_of_them = (at(model, guidance, num_inference_steps=n) for n in (2, 8, None))
        assert eight["sceneval_overall"] > all_of_them["sceneval_overall"] - 0.05
        assert two["sceneval_overall"] < all_of_them["sceneval_overall"] - 0.2
        assert two["frechet"] > 3 * eight["frechet"]


def test_the_sweep_has_every_combination_of_every_model():
    rows = read_sweep()
    for order, head in FOUR:
        mine = [row for row in rows if row["model"] == f"{order}-{head}-mini"
                and all(row[name] == value for name, value in DEFAULT_STEPS.items())]
        assert {(r["guidance_scale"], r["temperature"]) for r in mine} == {(g, t) for g in (1, 2, 3, 4, 6)
                                                                          for t in (0.5, 0.7, 0.85, 1)}
        assert len({row["images"] for row in mine}) == 1, "a Frechet distance compares at one number of images only"


def test_the_scores_are_those_of_the_shipped_weights(detector):
    """Six prompts of each skill, drawn now. The margin is five standard errors of 36 answers, so this sees weights that
    are broken, not weights that are a little other; SHA256SUMS sees those."""
    asked = prompt_list(6)
    setting = {**best_setting(read_sweep(model="random-diffusion-mini", **DEFAULT_STEPS)), "num_denoising_steps": 12}
    pipe = FluidPipeline.from_pretrained("random-diffusion-mini")
    pixels = pipe([prompt["caption"] for prompt in asked], seed=list(range(len(asked))), **setting).pixels
    right = [judge(prompt, found).correct for prompt, found in zip(asked, detector.detect(pixels), strict=True)]
    assert sum(right) / len(right) > score("random", "diffusion", "sceneval_overall") - 0.25
