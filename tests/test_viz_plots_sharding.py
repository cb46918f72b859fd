"""What notebook 09 draws: shards as rows, a step's memory and gathers, what fits, losses over each other."""

import pytest

from fluidlab.presets import preset
from fluidlab.train.plan import DEVICES, USABLE, plan
from fluidlab.train.shards import KINDS
from fluidlab.viz.plots_sharding import (
    fit_chart,
    furthest,
    gather_chart,
    loss_overlay,
    memory_panels,
    plan_bars,
    shard_facts,
    shard_map,
    share_curve,
)

FACTS = {
    "processes": 2, "shards": 2,
    "parameters": [
        {"name": "head.bias", "unit": "head", "shape": [4], "bytes": 16, "rows": [[0, 2], [2, 4]], "held": [8, 8]},
        {"name": "head.weight", "unit": "head", "shape": [3, 8], "bytes": 96, "rows": [[0, 2], [2, 3]],
         "held": [64, 32]}],
    "units": [{"name": "head", "bytes": 112, "gathered": [[1, 3], [5, 7]], "reduced": 8}],
    "bytes": {kind: [k + 1] * 10 for k, kind in enumerate(KINDS)},
    "phases": {"forward": [0, 4], "backward": [4, 9], "update": [9, 10]},
}


def words(axis):
    return [text.get_text() for text in axis.texts]


def test_a_parameter_is_as_long_as_its_bytes_and_cut_where_the_rows_are():
    (axis,) = shard_map(FACTS).axes
    assert [label.get_text() for label in axis.get_yticklabels()] == ["head.weight  3x8"]
    assert [(bar.get_x(), bar.get_width()) for bar in axis.patches] == [(0.0, 0.064), (0.064, 0.032)]
    assert words(axis) == ["0-1", "2-2"]
    (axis,) = shard_map(FACTS, ["head.bias", "head.weight"]).axes
    assert len(axis.patches) == 4
    with pytest.raises(ValueError, match="no parameter tail; there are head.bias, head.weight"):
        shard_map(FACTS, ["tail"])


def test_a_rule_of_ones_own_is_drawn_like_a_measured_one():
    facts = shard_facts({"head.bias": (4,), "head.weight": (3, 8)}, 2, lambda n, devices: [[0, 2], [2, n]])
    assert facts["parameters"] == [{k: v for k, v in p.items() if k != "unit"} for p in FACTS["parameters"]]
    (axis,) = shard_map(facts).axes
    assert words(axis) == ["0-1", "2-2"]


def test_one_device_is_drawn_beside_its_even_share():
    (axis,) = share_curve({1: 8_000_000, 4: 2_500_000}).axes
    even, one = (line.get_ydata() for line in axis.lines)
    assert list(even) == [8.0, 2.0] and list(one) == [8.0, 2.5]


def test_memory_is_stacked_to_the_sum_of_all_kinds_on_one_scale():
    figure = memory_panels({"alone": FACTS, "together": FACTS})
    one, two = figure.axes
    assert (one.get_title(), two.get_title()) == ("alone", "together") and one.get_ylim() == two.get_ylim()
    top = max(path.vertices[:, 1].max() for kind in one.collections for path in kind.get_paths())
    assert top == pytest.approx(sum(range(1, len(KINDS) + 1)) / 1e6)
    assert words(one)[:2] == ["forward", "backward"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(KINDS)[::-1]


def test_a_unit_has_a_bar_while_it_is_whole_and_a_mark_where_it_was_reduced():
    (axis,) = gather_chart(FACTS).axes
    (bars,) = axis.collections
    spans = [(path.vertices[:, 0].min(), path.vertices[:, 0].max()) for path in bars.get_paths()]
    assert spans == [(1, 3), (5, 7)] and list(axis.lines[0].get_xdata()) == [8]
    assert axis.get_yticklabels()[0].get_text() == "head  0.112 kB"


def test_plans_are_bars_of_their_total_before_a_line_of_what_may_be_used():
    plans = {f"{n}": plan(preset("nano"), devices=n, batch_size=8) for n in (1, 4)}
    (axis,) = plan_bars(plans, 16e9).axes
    for row, found in enumerate(plans.values()):
        ends = [bar.get_x() + bar.get_width() for bar in axis.patches if round(bar.get_y() + 0.4) == row]
        assert max(ends) == pytest.approx(found.total / 1e9)
    assert axis.lines[0].get_xdata()[0] == pytest.approx(USABLE * 16) and "92% of 16 GB" in words(axis)


def test_needs_are_lines_and_devices_are_heights():
    (axis,) = fit_chart({1: [("a", 10, 2e9), ("b", 100, 2e10)], 8: [("a", 10, 3e8)]}, {"v5e": DEVICES["v5e"]}).axes
    assert list(axis.lines[0].get_ydata()) == [2, 20] and list(axis.lines[1].get_ydata()) == [0.3]
    assert axis.lines[2].get_ydata()[0] == pytest.approx(USABLE * 16)
    assert words(axis) == ["a", "b", " v5e, 16 GB"] and axis.get_xscale() == axis.get_yscale() == "log"
    assert [t.get_text() for t in axis.get_legend().get_texts()] == ["1 device", "8 devices"]


def test_losses_lie_over_each_other_with_their_difference_below():
    curves = {"one": ([1, 2, 3], [1.0, 0.5, 0.25]), "two": ([2, 3], [0.5, 0.25 * (1 + 1e-6)])}
    top, bottom = loss_overlay(curves).axes
    assert [line.get_label() for line in top.lines] == ["one", "two"]
    assert list(bottom.lines[0].get_ydata()) == pytest.approx([1e-9, 1e-6])
    assert furthest(curves) == {"two": pytest.approx(1e-6)}
