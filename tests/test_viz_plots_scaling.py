"""What notebook 08 draws: laws, losses over compute, a measure against the loss."""

import dataclasses

import pytest

from fluidlab.evaluate.scaling import Point, study_laws
from fluidlab.evaluate.statistics import Interval
from fluidlab.viz.plots_scaling import against, compute_panels, interval_rows, law_panels, size_panels, step_panels

SIZES = {"pico": 1e5, "nano": 4e5, "micro": 1.6e6, "mini": 6.4e6, "midi": 2.5e7}
POINTS = [Point(order, head, size, 0, 100, int(n), int(n / 2), n * 1e6, k * n ** -0.2)
          for k, (order, head) in enumerate([("raster", "softmax"), ("random", "diffusion")], start=1)
          for size, n in SIZES.items()]


@pytest.mark.parametrize("x", ["params", "backbone_params", "flops"])
def test_a_law_goes_through_its_points_in_the_panel_of_its_tokens(x):
    figure = law_panels(POINTS, study_laws(POINTS, x, bootstrap=2), x)
    assert [axis.get_title() for axis in figure.axes] == ["discrete tokens", "continuous tokens"]
    for axis in figure.axes:
        dots, line = axis.lines
        assert len(dots.get_xdata()) == 5 and axis.get_xscale() == axis.get_yscale() == "log"
        assert line.get_ydata()[0] == pytest.approx(dots.get_ydata()[0], rel=1e-6)
        assert line.get_ydata()[-1] == pytest.approx(dots.get_ydata()[-1], rel=1e-6)
        assert "b = 0.200" in axis.get_legend().get_texts()[0].get_text()


def test_a_law_is_followed_beyond_its_points_in_dots():
    axis = law_panels(POINTS, study_laws(POINTS, bootstrap=2), reach=10).axes[0]
    assert axis.lines[-1].get_linestyle() == ":" and axis.lines[-1].get_xdata()[-1] == pytest.approx(2.5e8)


def test_compute_has_a_line_for_each_size_with_a_point_for_each_moment():
    half = [dataclasses.replace(p, steps=50, flops=p.flops / 2, value=p.value * 1.1) for p in POINTS]
    figure = compute_panels({50: half, 100: POINTS}, ["random-diffusion"])
    lines = figure.axes[0].lines
    assert len(lines) == 5 and all(len(line.get_xdata()) == 2 for line in lines)
    assert [text.get_text() for text in figure.axes[0].texts] == list(SIZES)
    assert [line.get_alpha() for line in lines] == sorted(line.get_alpha() for line in lines)


def test_a_measure_stands_against_the_loss_of_the_same_cell():
    pairs = {"random-diffusion": [(0.3, 0.5, "pico"), (0.2, 0.8, "mini")]}
    figure = against(pairs, ylabel="SceneEval")
    (axis,) = figure.axes
    assert axis.get_ylabel() == "SceneEval" and list(axis.lines[0].get_ydata()) == [0.8, 0.5]
    assert {text.get_text() for text in axis.texts} == {"pico", "mini"}


def test_measures_stand_against_size_for_all_variants_in_one_panel():
    figure = size_panels({"SceneEval": POINTS, "Frechet": POINTS})
    assert [axis.get_title() for axis in figure.axes] == ["SceneEval", "Frechet"]
    assert {line.get_label() for line in figure.axes[0].lines} == {"raster-softmax", "random-diffusion"}
    assert list(figure.axes[1].lines[0].get_xdata()) == [int(n) for n in SIZES.values()]


def test_lines_do_not_join_seeds():
    two = [*POINTS, *(dataclasses.replace(p, seed=1) for p in POINTS)]
    for draw in (lambda: size_panels({"SceneEval": two}), lambda: compute_panels({100: two}, ["random-diffusion"]),
                 lambda: step_panels({"loss": two})):
        with pytest.raises(ValueError, match="of one seed, got seeds 0, 1"):
            draw()


def test_steps_have_a_line_for_each_size_and_one_variant_only():
    mine = [p for p in POINTS if p.variant == "random-diffusion"]
    both = [*mine, *(dataclasses.replace(p, steps=50, value=1.0) for p in mine)]
    (axis,) = step_panels({"loss": both}).axes
    assert len(axis.lines) == 5 and [text.get_text() for text in axis.texts] == list(SIZES)
    assert all(list(line.get_xdata()) == [50, 100] and line.get_ydata()[0] == 1.0 for line in axis.lines)
    with pytest.raises(ValueError, match="1 variant, got 2"):
        step_panels({"loss": POINTS})


def test_an_interval_has_a_row_with_its_name_from_end_to_end():
    (axis,) = interval_rows({"one": Interval(0.5, 0.1, 0.9), "two": Interval(-0.2, -0.9, 0.4)}, "r").axes
    assert [label.get_text() for label in axis.get_yticklabels()] == ["one", "two"]
    drawn = [list(line.get_xdata()) for line in axis.lines]
    assert drawn == [[0.1, 0.9], [0.5], [-0.9, 0.4], [-0.2], [0.0, 0.0]]
