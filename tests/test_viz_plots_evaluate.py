"""What notebook 07 draws: judged pictures, scores with intervals, heat maps of a sweep."""

import numpy as np
import pytest
import torch

from fluidlab.evaluate.detector import Detection
from fluidlab.evaluate.frechet import Gaussian
from fluidlab.evaluate.sceneval import SKILLS, Verdict, relations
from fluidlab.evaluate.statistics import Interval
from fluidlab.viz.plots_evaluate import (
    RIGHT,
    TINT,
    WRONG,
    direction_map,
    gaussian_panels,
    heat_maps,
    interval_chart,
    judged_sheet,
    score_bars,
    skill_scores,
    steps_panels,
)

CAT = Detection("cat", "orange", (8.0, 8.0, 40.0, 40.0), 0.9)
GRID = [{"model": model, "guidance_scale": g, "temperature": t, "sceneval_overall": g / 10 + t / 100, "frechet": g + t}
        for model in ("raster-softmax-mini", "random-diffusion-mini") for g in (1.0, 3.0) for t in (0.5, 1.0)]


def colors_of(sheet) -> set:
    return {"#{:02X}{:02X}{:02X}".format(*pixel) for pixel in np.asarray(sheet).reshape(-1, 3)}


def test_a_verdict_frames_its_picture_and_is_written_below():
    images = torch.zeros(2, 3, 64, 64)
    right, wrong = Verdict("colors", False, True), Verdict("colors", False, False, "0 of 1 cat")
    one = judged_sheet(images[:1], [[CAT]], ["a cat"], [right])
    assert RIGHT in colors_of(one) and WRONG not in colors_of(one)
    both = judged_sheet(images, [[CAT], []], ["a cat", "a dog"], [right, wrong], columns=2)
    assert {RIGHT, WRONG} <= colors_of(both) and both.width == 2 * one.width + 8
    bare = judged_sheet(images, [[CAT], []], ["a cat", "a dog"], columns=1)
    assert not {RIGHT, WRONG} & colors_of(bare)
    empty = judged_sheet(images, [[], []], ["", ""], columns=1)
    assert bare.size == empty.size and not np.array_equal(np.asarray(bare), np.asarray(empty))


def test_a_box_beyond_the_picture_stays_inside_its_frame():
    sheet = judged_sheet(torch.zeros(1, 3, 64, 64), [[Detection("cat", "red", (-30.0, -9.0, 99.0, 70.0), 1.0)]], [""])
    frame = np.asarray(sheet)[:264, :4]
    assert (frame == 255).all()


def test_a_sheet_needs_one_of_each():
    with pytest.raises(ValueError, match="got 2, 1, 2 and 2"):
        judged_sheet(torch.zeros(2, 3, 64, 64), [[]], ["a", "b"])
    with pytest.raises(ValueError, match="at least 1, got 0"):
        judged_sheet([], [], [])


def test_bars_have_the_height_of_their_scores_and_ceilings_are_drawn():
    scores = {"raster-softmax": {"colors": Interval(0.5, 0.4, 0.6), "position": Interval(0.25, 0.2, 0.3)},
              "random-diffusion": {"colors": Interval(0.75, 0.7, 0.8), "position": Interval(1.0, 0.9, 1.0)}}
    axis = score_bars(scores).axes[0]
    assert sorted(bar.get_height() for bar in axis.patches) == [0.25, 0.5, 0.75, 1.0]
    with_lines = score_bars(scores, {name: {"colors": 0.9} for name in scores}).axes[0]
    assert len(with_lines.lines) == len(axis.lines) + 2


@pytest.mark.parametrize(("metric", "best"), [("sceneval_overall", (1, 1)), ("frechet", (0, 0))])
def test_the_best_setting_is_framed(metric, best):
    figure = heat_maps(GRID, metric)
    for axis in figure.axes:
        frame = axis.patches[-1]
        assert (round(frame.get_x() + 0.48), round(frame.get_y() + 0.48)) == best
    assert [axis.get_title() for axis in figure.axes] == ["raster\nsoftmax", "random\ndiffusion"]


def test_a_map_with_holes_is_refused():
    with pytest.raises(ValueError, match="random-diffusion-mini has 3 settings, .* 2 temperatures and 2 guid"):
        heat_maps(GRID[:-1], "frechet")
    with pytest.raises(ValueError, match="at least 1 row, got 0"):
        heat_maps([], "frechet")
    with pytest.raises(ValueError, match="raster-softmax-mini has 5 settings"):
        heat_maps([*GRID, dict(GRID[0], frechet=0.0)], "frechet")
    with pytest.raises(ValueError, match="metric must be one of sceneval_overall, frechet, got 'fid'"):
        heat_maps(GRID, "fid")


def test_curves_over_steps_put_one_step_a_token_at_the_end():
    rows = [dict(GRID[0], num_inference_steps=steps, sceneval_overall=value) for steps, value in
            ((None, 0.9), (2, 0.3), (8, 0.7))]
    left, right = steps_panels(rows, "num_inference_steps").axes
    assert left.lines[0].get_xydata().tolist() == [[2, 0.3], [8, 0.7], [16, 0.9]] and len(right.lines) == 1
    assert [tick.get_text() for tick in left.get_xticklabels()] == ["2", "8", "16"]
    with pytest.raises(ValueError, match="at least 1 row, got 0"):
        steps_panels([], "num_denoising_steps")
    with pytest.raises(ValueError, match="steps must be one of num_inference_steps, num_denoising_steps, got 'all'"):
        steps_panels(rows, "all")


def test_skill_scores_reads_what_a_report_wrote():
    metrics = {f"sceneval_{skill}{end}": value for skill in SKILLS
               for end, value in (("", 0.5), ("_low", 0.4), ("_high", 0.6))}
    assert skill_scores({**metrics, "frechet": 1.0}) == {skill: Interval(0.5, 0.4, 0.6) for skill in SKILLS}


def test_a_direction_has_its_colour_where_it_holds_and_none_near_the_middle():
    (axis,) = direction_map(relations).axes
    field = axis.images[0].get_array()
    middle = len(field) // 2
    edges = {"left of": (middle, 0), "right of": (middle, -1), "above": (0, middle), "below": (-1, middle)}
    assert {name: tuple(field[place]) for name, place in edges.items()} == TINT
    assert tuple(field[middle, middle]) == (1, 1, 1)
    assert tuple(field[0, 0]) == tuple(np.mean([TINT["left of"], TINT["above"]], axis=0))


def test_every_share_has_the_interval_that_the_rule_gives():
    (axis,) = interval_chart(lambda k, n: (k / n - 0.1, k / n + 0.2), 4).axes
    ends = np.array([line[:, 1] for line in axis.collections[0].get_segments()])
    assert np.allclose(ends, [(k / 4 - 0.1, k / 4 + 0.2) for k in range(5)])


def test_a_gaussian_is_as_wide_as_its_standard_deviation_and_has_its_distance_above():
    one = Gaussian(np.array([1.0, 0.0]), np.diag([4.0, 1.0]), 2)
    (axis,) = gaussian_panels({"pair": (one, one)}, lambda m, S, n, T: float(S.trace() + T.trace())).axes
    x, y = axis.lines[0].get_data()
    assert axis.get_title() == "pair\nd = 10.000"
    assert (x.min(), x.max(), y.max()) == pytest.approx((-1, 3, 1), abs=0.01)
