"""Toy tokens, codes, distances, live losses and the dial for the temperature of three heads."""

import math

import pytest
import torch
from helpers import seeded

from fluidlab.viz import plots_heads as plots
from fluidlab.viz.toy_tokens import SHAPES, best_token, chamfer, kmeans, nearest, toy_tokens


@pytest.mark.parametrize("shape", range(len(SHAPES)))
def test_toy_tokens_have_mean_0_and_variance_1_and_repeat(shape):
    """20,000 draws; the allowed 0.1 is more than 10 standard errors of either."""
    condition = torch.full((20_000,), shape)
    tokens = toy_tokens(condition, seeded(0))
    assert tokens.shape == (20_000, 2) and tokens.equal(toy_tokens(condition, seeded(0)))
    assert tokens.mean(0).abs().max() < 0.1 and (tokens.var(0) - 1).abs().max() < 0.1
    assert tokens.abs().max() < plots.LIMIT + 1


def test_a_token_has_the_shape_that_its_condition_names():
    mixed = toy_tokens(torch.arange(3).repeat(500), seeded(0))
    alone = [toy_tokens(torch.full((3000,), shape), seeded(1)) for shape in range(3)]
    gaps = torch.tensor([[chamfer(mixed[i::3], cloud) for cloud in alone] for i in range(3)])     # (drawn, compared)
    assert gaps.argmin(dim=1).tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match=r"condition must lie in 0..2, got 0 to 3"):
        toy_tokens(torch.tensor([0, 3]))


def test_nearest_is_the_nearest():
    points, codes = torch.randn(200, 16, generator=seeded(0)), torch.randn(30, 16, generator=seeded(1))
    assert nearest(points, codes).equal(torch.cdist(points, codes).argmin(1))


def test_kmeans_finds_separate_clusters_and_leaves_no_code_dead():
    centers = torch.tensor([[-3.0, 0.0], [0.0, 3.0], [3.0, 0.0]])
    points = centers.repeat(100, 1) + 0.1 * torch.randn(300, 2, generator=seeded(0))
    codes = kmeans(points, 12, seeded(0))
    assert torch.cdist(centers, codes).min(1).values.max() < 0.2
    assert len(nearest(points, codes).unique()) == 12
    with pytest.raises(ValueError, match="num_codes must be from 1 to the number of points 300, got 301"):
        kmeans(points, 301)


def test_more_codes_lose_less():
    points = toy_tokens(torch.zeros(4000, dtype=torch.long), seeded(0))
    lost = [(points - (codes := kmeans(points, V, seeded(0)))[nearest(points, codes)]).square().mean().item()
            for V in (4, 16, 64)]
    assert lost[0] > 2 * lost[1] > 4 * lost[2]


def test_the_best_guess_is_the_mean_in_noise_the_nearest_token_without_and_between_them_weighted():
    data = torch.tensor([[-1.0, 0.0], [1.0, 0.0], [1.0, 3.0]])
    x = torch.tensor([[0.9, 2.0], [-0.2, 0.1]])
    assert torch.allclose(best_token(x, data, 0.0, 1.0), data.mean(dim=0).expand(2, 2))
    assert torch.allclose(best_token(x, data, 1.0, 0.05), data[[2, 0]], atol=1e-4)
    guess = best_token(torch.tensor([[-1.0, 1.0]]), data, 1.0, 1.0)
    weights = (-torch.tensor([1.0, 5.0, 8.0]) / 2).exp()                       # squared distances
    assert torch.allclose(guess[0], (weights[:, None] * data).sum(dim=0) / weights.sum())


def test_the_line_of_codes_has_a_piece_for_each_probability():
    axis = plots.line_of_codes(torch.tensor([0.2, 0.5, 0.3]), [0.1, 0.9]).axes[0]
    assert [round(p.get_width(), 3) for p in axis.patches[:3]] == [0.2, 0.5, 0.3]
    assert [round(p.get_x(), 3) for p in axis.patches[:3]] == [0.0, 0.2, 0.7]
    assert [text.get_text() for text in axis.texts[3:]] == ["u = 0.1", "u = 0.9"]


def test_chamfer_counts_strays_and_gaps_alike():
    data = torch.tensor([[0.0, 0.0], [1.0, 0.0]])
    assert chamfer(data, data) == 0
    assert chamfer(data[:1], data) == 0.25                      # nothing astray, half of the data 1 away: (0 + 0.5) / 2
    assert chamfer(data + torch.tensor([0.0, 0.3]), data) == pytest.approx(0.3)
    with pytest.raises(ValueError, match=r"both clouds must be \(B, C\) with one C, got \(2, 2\) and \(2, 3\)"):
        chamfer(data, torch.zeros(2, 3))


def test_straightness_is_1_for_a_line_and_less_for_a_detour():
    line = torch.stack([torch.linspace(0, 1, 5), torch.zeros(5)], dim=1)[:, None]             # (T, 1, 2)
    corner = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]])[:, None]
    assert plots.straightness(line) == pytest.approx(1) and plots.straightness(corner) == pytest.approx(2**0.5 / 2)


def test_clouds_name_their_rows_and_columns():
    rows = {name: [torch.zeros(3, 2)] * 2 for name in ("data", "softmax 16", "flow")}
    figure = plots.clouds(rows, ["left", "right"])
    assert [ax.get_title() for ax in figure.axes] == ["left", "right", "", "", "", ""]
    assert [ax.get_ylabel() for ax in figure.axes[::2]] == list(rows)


def test_figures_say_what_they_draw():
    figure, said = plots.curves({"a": ([1, 2], [0.5, 0.25]), "b": ([1, 4], [3.0, 1.0])}, "x", "y", floor=0.1)
    assert said == "a: 0.5 at 1, 0.25 at 2; b: 3 at 1, 1 at 4" and len(figure.axes[0].lines) == 3
    answers = torch.tensor([-0.9, 0.9])
    assert plots.fork(answers[:, None], answers[:, None], torch.zeros(2, 2), answers)[1] == pytest.approx(0, abs=1e-6)
    codes = torch.arange(64).repeat(10)
    _, said = plots.token_statistics(torch.randn(5000, 4, generator=seeded(0)), codes, 128)
    assert "50% of 128 codes occur among 640 tokens" in said
    assert f"entropy {math.log(64):.2f} of at most {math.log(128):.2f} nats" in said
    assert [len(ax.patches) for ax in plots.loss_by_time([1.0, 0.5]).axes] == [2]
    assert len(plots.schedule(torch.linspace(0.99, 0.01, 10)).axes) == 2
    assert len(plots.walks({"flow": torch.randn(4, 3, 2)}, {"flow": torch.zeros(5, 2)}).axes) == 1


def test_a_live_curve_is_redrawn_now_and_then_and_at_the_end():
    live = plots.LiveCurve("flow", 2.0, steps=5, every=2)
    seen = [live.widget.value]
    for loss in (2.0, 1.5, 1.4, 1.3, 1.2):
        live.add(loss)
        seen.append(live.widget.value)
    assert [a != b for a, b in zip(seen, seen[1:], strict=False)] == [False, True, False, True, True]
    assert "no step yet" in seen[0] and "after 5 steps 1.480" in seen[-1]


def draw_tokens(head, shape, temperature):
    if temperature > 1.5:
        raise ValueError(f"temperature must be at most 1.5, got {temperature}.")
    return temperature * toy_tokens(torch.full((50,), SHAPES.index(shape)), seeded(1))


def test_the_temperature_explorer_follows_its_dials_and_shows_mistakes_in_place():
    data = {shape: toy_tokens(torch.full((50,), i), seeded(0)) for i, shape in enumerate(SHAPES)}
    explorer = plots.temperature_explorer(draw_tokens, data)
    dial, shape, picture = *explorer.controls.values(), explorer.picture.widget
    first = picture.value
    assert "shape moons at temperature 1," in first and 'src="data:image/png' in first
    dial.slider.value = 0.5
    assert dial.value == 0.5 and "at temperature 0.5," in picture.value
    shape.value = "spiral"
    assert "shape spiral at temperature 0.5," in picture.value
    dial.value = 99.0                                                     # clamped to the end of the range, 2
    assert dial.value == 2.0 and "temperature must be at most 1.5, got 2.0." in picture.value
    assert "data:image/png" not in picture.value
    dial.value, shape.value = 1.0, "moons"
    assert picture.value == first
