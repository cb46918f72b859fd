"""The scaling lab from control to picture, on losses whose law is known."""

import numpy as np
import pytest

from fluidlab.evaluate.powerlaw import fit_power_law, law_band
from fluidlab.evaluate.scaling import Point
from fluidlab.viz.scaling_lab import ScalingLab, fit_picture

SIZES = {"femto": 1e5, "pico": 3e5, "nano": 1e6, "micro": 3e6, "mini": 1e7}


def points(head="diffusion", bend=0.0):
    wobble = (1.01, 0.99, 1.0, 1.01, 0.99)
    return [Point("random", head, size, 0, 100, int(n), int(n / 2), n * 1e6, (2 * n ** -0.2 + bend) * w)
            for (size, n), w in zip(SIZES.items(), wobble, strict=True)]


@pytest.fixture
def lab():
    return ScalingLab(points() + points("softmax", bend=0.1))


def shown(lab):
    return lab.explorer.picture.widget.value


@pytest.mark.parametrize("name, value", [("variant", "random-softmax"), ("inside", ["femto", "pico", "nano"]),
                                         ("x", "flops"), ("floor", True), ("reach", 3.0)])
def test_every_control_changes_the_picture_and_back(lab, name, value):
    control, first = lab.explorer.controls[name], shown(lab)
    before = control.value
    control.value = value
    assert "<img" in shown(lab) and shown(lab) != first
    control.value = before
    assert shown(lab) == first


def test_the_caption_says_the_law_of_the_sizes_inside_and_what_it_says_of_the_others(lab):
    lab.explorer.controls["inside"].value = ["femto", "pico", "nano", "micro"]
    used = points()[:4]
    law = fit_power_law([p.params for p in used], [p.value for p in used], bootstrap=100)
    off = float(law(1e7)) / points()[4].value - 1
    assert f"b = {law.b_interval}" in shown(lab)
    assert f"mini, not fitted, is predicted {abs(off):.1%} too {'low' if off < 0 else 'high'}" in shown(lab)


def test_too_few_sizes_are_told_in_place_and_the_picture_comes_back(lab):
    lab.explorer.controls["inside"].value = ["femto", "mini"]
    assert 'role="alert"' in shown(lab) and "needs at least 3 different sizes" in shown(lab)
    lab.explorer.controls["inside"].value = ["femto", "nano", "mini"]
    assert "<img" in shown(lab)


def test_a_band_holds_its_law_and_is_wider_where_nothing_was_measured():
    n, y = [p.params for p in points()], [p.value for p in points()]
    law, at = fit_power_law(n, y), np.array([1e6, 1e9])
    low, high = law_band(law, n, y, at)
    assert (low < law(at)).all() and (law(at) < high).all()
    assert np.log(high / low)[1] > 2 * np.log(high / low)[0]


def test_seeds_of_a_size_that_is_left_out_are_averaged():
    more = [*points(), Point("random", "diffusion", "mini", 1, 100, int(1e7), int(5e6), 1e13, 0.5)]
    law = fit_power_law([p.params for p in more[:4]], [p.value for p in more[:4]], bootstrap=0)
    off = float(law(1e7)) / np.mean([more[4].value, 0.5]) - 1
    assert f"mini, not fitted, is predicted {abs(off):.1%} too low" in fit_picture(more, list(SIZES)[:4], bootstrap=5)


def test_no_points_are_refused():
    with pytest.raises(ValueError, match="given 0 points"):
        ScalingLab([])
