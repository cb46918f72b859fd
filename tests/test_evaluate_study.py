"""The shipped scaling study: what notebook 08 and the README say of it must be true of data/results.csv."""

import numpy as np
import pytest

from fluidlab.config import data_dir
from fluidlab.evaluate.results import read_results
from fluidlab.evaluate.scaling import STUDY_SIZES, study_laws, study_points
from fluidlab.evaluate.sheet import read_sheet
from fluidlab.evaluate.statistics import paired_difference, pearson
from fluidlab.presets import preset

VARIANTS = ["raster-softmax", "raster-diffusion", "random-softmax", "random-diffusion"]
STEPS = 3200


def points(metric="study_loss", steps=STEPS):
    return study_points(read_results(), lambda size, order, head: preset(size, order=order, head=head), metric=metric,
                        steps=steps)


def first(metric="study_loss", steps=STEPS):
    return [point for point in points(metric, steps) if point.seed == 0]


def by_size(metric, variant, steps=STEPS):
    return {p.size: p.value for p in first(metric, steps) if p.variant == variant}


def test_every_variant_was_trained_at_every_size_alike():
    assert {(p.variant, p.size) for p in first()} == {(v, s) for v in VARIANTS for s in STUDY_SIZES}
    assert len(first()) == len(VARIANTS) * len(STUDY_SIZES)
    for variant in VARIANTS:
        sizes = [p.params for p in first() if p.variant == variant]
        assert max(sizes) / min(sizes) >= 30


@pytest.mark.parametrize("variant", VARIANTS)
def test_losses_fall_with_every_size_and_follow_a_law(variant):
    """The issue's target: R2 of L = a N^-b + c at least 0.98."""
    mine = [p for p in first() if p.variant == variant]
    losses = [p.value for p in sorted(mine, key=lambda p: p.params)]
    assert losses == sorted(losses, reverse=True)
    (law,) = study_laws(mine, "params", floor=True, bootstrap=0)
    assert law.law.r2 >= 0.98 and law.law.b > 0


def test_every_cell_is_measured_at_four_moments():
    for steps in (800, 1600, 2400, 3200):
        assert len(first(steps=steps)) == len(VARIANTS) * len(STUDY_SIZES)


def test_after_a_longer_training_the_metrics_follow_the_loss_of_random_diffusion():
    """The paper: Pearson 0.917 with FID and -0.931 with GenEval. SceneEval reaches 0.9; the Frechet distance does from
    2,000 images, not from 600; after the study's short training it does not follow at all. So says notebook 08."""
    loss = by_size("long_loss", "random-diffusion", 9600)
    assert set(loss) == set(STUDY_SIZES)
    for metric, least, most in (("long_sceneval_overall", -1.0, -0.9), ("long_frechet", 0.7, 0.9),
                                ("fine_frechet", 0.9, 1.0)):
        values = by_size(metric, "random-diffusion", 9600)
        assert least < pearson([loss[s] for s in STUDY_SIZES], [values[s] for s in STUDY_SIZES]).value < most, metric
    short = by_size("study_loss", "random-diffusion"), by_size("study_frechet", "random-diffusion")
    assert abs(pearson([short[0][s] for s in STUDY_SIZES], [short[1][s] for s in STUDY_SIZES]).value) < 0.3
    assert 0.15 < by_size("long_sceneval_overall", "random-diffusion", 9600)["mini"] < 0.25
    assert 0.25 < by_size("long_sceneval_overall", "random-diffusion", 9600)["midi"] < 0.36


@pytest.mark.parametrize("variant", VARIANTS)
def test_after_a_longer_training_every_variant_draws_better_with_size(variant):
    """From femto to mini SceneEval at least triples, and mini is the best of its variant."""
    scores = by_size("long_sceneval_overall", variant, 9600)
    assert scores["mini"] > 3 * scores["femto"] and max(scores, key=scores.get) in ("mini", "midi")
    short = by_size("study_sceneval_overall", variant)
    assert all(scores[size] > short[size] for size in ("pico", "nano", "micro", "mini"))


def test_after_a_longer_training_codes_and_raster_order_are_ahead():
    """Mini, by more than the intervals of 300 prompts (0.06 to each side)."""
    mini = {variant: by_size("long_sceneval_overall", variant, 9600)["mini"] for variant in VARIANTS}
    for order in ("raster", "random"):
        assert mini[f"{order}-softmax"] > mini[f"{order}-diffusion"] + 0.12
    for head in ("softmax", "diffusion"):
        assert mini[f"raster-{head}"] > mini[f"random-{head}"] + 0.12


def test_on_the_way_the_judge_sees_larger_sizes_first():
    """Random + diffusion after half of the longer training: mini and midi are recognised, femto and pico are not."""
    half = by_size("long_sceneval_overall", "random-diffusion", 4800)
    assert min(half["mini"], half["midi"]) > 0.05 > 0.03 > max(half["femto"], half["pico"])


@pytest.mark.parametrize(("variant", "straight"), [("raster-diffusion", True), ("random-diffusion", True),
                                                   ("raster-softmax", False), ("random-softmax", False)])
def test_continuous_variants_are_straight_and_discrete_ones_bend(variant, straight):
    (law,) = study_laws([p for p in points() if p.variant == variant], "params", bootstrap=0)
    assert law.law.r2 >= 0.97 if straight else law.law.r2 < 0.95
    (over_backbone,) = study_laws([p for p in points() if p.variant == variant], "backbone_params", bootstrap=0)
    assert straight or over_backbone.law.r2 > law.law.r2 + 0.02


def test_sizes_part_as_training_goes_on():
    ratios = [by_size("study_loss", "random-diffusion", steps)["micro"]
              / by_size("study_loss", "random-diffusion", steps)["femto"] for steps in (800, 1600, 2400, 3200)]
    assert ratios == sorted(ratios, reverse=True) and ratios[0] > 0.94 and ratios[-1] < 0.90


def test_the_best_size_grows_with_the_budget():
    for variant in ("raster-diffusion", "random-diffusion"):
        mine = [p for steps in (800, 1600, 2400, 3200) for p in first(steps=steps) if p.variant == variant]
        budgets = np.geomspace(min(p.flops for p in mine) * 1.5, max(p.flops for p in mine), 5)
        best = [min((p for p in mine if p.flops <= budget), key=lambda p: p.value).params for budget in budgets]
        assert best == sorted(best) and best[-1] > 50 * best[0]


def test_with_codes_the_judge_follows_the_loss_and_with_vectors_there_is_little_to_judge():
    for order in ("raster", "random"):
        loss, seen = (by_size(metric, f"{order}-softmax") for metric in ("study_loss", "study_sceneval_overall"))
        assert pearson([loss[s] for s in STUDY_SIZES], [seen[s] for s in STUDY_SIZES]).value < -0.9
        assert max(by_size("study_sceneval_overall", f"{order}-diffusion").values()) < 0.15
    assert 0.4 < by_size("study_sceneval_overall", "raster-softmax")["midi"] < 0.5


def test_differences_that_survive_three_seeds():
    again = {variant: [p.value for p in sorted(points("study_sceneval_overall"), key=lambda p: p.seed)
                       if p.variant == variant and p.size == "micro"] for variant in VARIANTS}
    for ahead, behind in (("raster-softmax", "raster-diffusion"), ("random-softmax", "random-diffusion"),
                          ("raster-softmax", "random-softmax")):
        assert paired_difference(again[ahead], again[behind]).low > 0


def test_three_seeds_of_one_size():
    again = [p for p in points() if p.size == "micro"]
    assert sorted((p.variant, p.seed) for p in again) == sorted((v, s) for v in VARIANTS for s in (0, 1, 2))
    for variant in VARIANTS:
        values = [p.value for p in again if p.variant == variant]
        assert np.std(values, ddof=1) / np.mean(values) < 0.02


def test_the_sheet_shows_every_cell():
    pixels, facts = read_sheet(data_dir() / "study.png")
    assert facts["columns"] == list(STUDY_SIZES)
    assert {row["variant"] for row in facts["rows"]} == set(VARIANTS) and pixels.shape[0] == 4 * len(VARIANTS)
