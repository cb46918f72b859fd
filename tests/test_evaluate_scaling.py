"""The study's bookkeeping: cells, costs, points from results, laws of points, broken results."""

import pytest

from fluidlab.evaluate.results import COLUMNS
from fluidlab.evaluate.scaling import STUDY_BATCH, STUDY_SIZES, rate_at, study_cells, study_laws, study_points
from fluidlab.model.cost import part_counts, training_flops
from fluidlab.presets import preset


def config_of(size, order, head):
    return preset(size, order=order, head=head)


def row(size, value, steps=100, order="random", head="diffusion", metric="study_loss", seed=0):
    params = str(part_counts(config_of(size, order, head))["total"])
    return dict(zip(COLUMNS, (order, head, size, params, str(steps), str(seed), metric, str(value), "", "", ""),
                    strict=True))


def test_cells_begin_with_the_small_ones_of_all_variants():
    cells = study_cells(("pico", "mini"))
    assert [cell.name for cell in cells[:4]] == ["raster-softmax-pico-0", "raster-diffusion-pico-0",
                                                 "random-softmax-pico-0", "random-diffusion-pico-0"]
    assert len(cells) == 8 and len({cell.name for cell in study_cells(seeds=(0, 1))}) == 2 * 4 * len(STUDY_SIZES)


def test_the_rate_falls_with_the_width():
    assert rate_at(1e-3, 192) == 1e-3 and rate_at(1e-3, 32) == pytest.approx(6e-3)


@pytest.mark.parametrize("head", ["softmax", "diffusion"])
def test_the_study_spans_thirty_fold(head):
    counts = [part_counts(preset(size, head=head))["total"] for size in STUDY_SIZES]
    assert len(counts) >= 5 and counts == sorted(counts) and counts[-1] / counts[0] >= 30


def test_flops_are_counted_as_arithmetic_says():
    """Twice the blocks add twice as many FLOPs; and a block's matrices cost 2 FLOPs a weight and token forward, 4 back.

    Self-attention and MLP see 16 image tokens; of cross-attention's four matrices two see the 18 text tokens.
    """
    flops = [training_flops(preset("mini", depth=depth)) for depth in (2, 4, 6)]
    assert flops[2] - flops[1] == pytest.approx(flops[1] - flops[0], rel=1e-9)
    d, image, text = 192, 16, 18
    matrices = 6 * d * d * ((4 + 8 + 2) * image + 2 * text)
    attention = 6 * 2 * d * image * (image + text)             # scores and sums, forward and back
    assert (flops[1] - flops[0]) / 2 == pytest.approx(matrices + attention, rel=0.01)


def test_points_take_the_last_measurement_or_the_asked_one():
    rows = [row("pico", 0.5, 50), row("pico", 0.4, 100), row("mini", 0.3, 100), row("mini", 9, metric="frechet")]
    points = study_points(rows, config_of, metric="study_loss")
    assert [(p.size, p.value, p.steps) for p in points] == [("pico", 0.4, 100), ("mini", 0.3, 100)]
    assert points[0].flops == training_flops(preset("pico")) * 100 * STUDY_BATCH
    assert points[0].variant == "random-diffusion"
    assert [p.value for p in study_points(rows, config_of, metric="study_loss", steps=50)] == [0.5]


@pytest.mark.parametrize("x", ["params", "backbone_params", "flops"])
def test_laws_of_every_variant_are_found(x):
    rows = []
    for order, b in (("raster", 0.1), ("random", 0.2)):
        for point in study_points([row(size, 1.0) for size in STUDY_SIZES], config_of, metric="study_loss"):
            rows.append(row(point.size, 3.0 * getattr(point, x) ** -b, order=order))
    laws = study_laws(study_points(rows, config_of, metric="study_loss"), x, bootstrap=0)
    assert {law.variant: round(law.law.b, 6) for law in laws} == {"raster-diffusion": 0.1, "random-diffusion": 0.2}
    assert all(abs(law.held_out_error) < 1e-6 and law.law.r2 > 0.999 for law in laws)


@pytest.mark.parametrize(("call", "said"), [
    (lambda: study_points([row("pico", "oops")], config_of, metric="study_loss"), "row 2 .* value 'oops'"),
    (lambda: study_points([row("pico", 0.1), row("mini", "nan")], config_of, metric="study_loss"),
     "row 3 .* random . diffusion after 100 steps is nan"),
    (lambda: study_points([row("pico", 0.1)], config_of, metric="fid"), "0 rows of fid.* got 1 rows of study_loss"),
    (lambda: study_points([], config_of), "got 0 rows of nothing"),
    (lambda: study_points([row("pico", 0.1) | {"params": "7"}], config_of, metric="study_loss"),
     "row 2 .* 7 parameters, but pico has 158944"),
    (lambda: study_points([row("pico", 0.1), row("pico", 0.2)], config_of, metric="study_loss"),
     "row 3 .* after 100 steps again, 0.2 after 0.1"),
    (lambda: study_points([row("pico", 0.1), row("mini", 0.2, 50)], config_of, metric="study_loss"),
     "trained for 50 to 100 steps"),
    (lambda: study_laws(study_points([row("pico", 0.1), row("mini", 0.05)], config_of, metric="study_loss")),
     "at least 3 different sizes, got 2"),
    (lambda: study_laws([], "watts"), "x must be one of params"),
    (lambda: study_cells(sizes=()), "got 0 cells"),
    (lambda: study_cells(heads=("gan",)), "head must be one of"),
])
def test_refusals_name_the_numbers(call, said):
    with pytest.raises(ValueError, match=said):
        call()
