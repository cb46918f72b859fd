"""Curves show what they were given, sheets put every picture in its place, and the shared CSV is read as numbers."""

import base64
import io
import re
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from PIL import Image

from fluidlab.viz import plots
from fluidlab.viz.plots import (
    LiveCurves,
    contact_sheet,
    hide_unknown,
    loss_panels,
    part_bars,
    read_log,
    short_number,
    smooth,
)


def record(step, loss):
    return SimpleNamespace(step=step, loss=loss)


def test_smoothing_is_a_mean_of_the_past_only():
    assert smooth([4, 2, 6, 0], 2).tolist() == [4, 3, 4, 3]
    assert smooth([4, 2, 6, 0], 1).tolist() == [4, 2, 6, 0]
    assert smooth([4, 2, 6, 0], 9).tolist() == [4, 3, 4, 3]
    assert smooth([], 3).tolist() == []
    with pytest.raises(ValueError, match="at least 1, got 0"):
        smooth([1.0], 0)


def test_nats_and_squared_errors_never_share_an_axis():
    figure = loss_panels({"raster-softmax": ([1, 2], [8.3, 7.0]), "random-diffusion": ([1, 2], [1.0, 0.8]),
                          "random-softmax": ([1, 2], [8.3, 7.1])}, first={"softmax": 8.318, "diffusion": 1.0})
    left, right = figure.axes
    lines = {line.get_label(): list(line.get_ydata()) for line in left.lines}
    assert lines["raster-softmax"] == [8.3, 7.0] and "random-softmax" in lines and "knows nothing: 8.32" in lines
    assert [line.get_label() for line in right.lines] == ["random-diffusion", "knows nothing: 1.00"]
    assert "nats" in left.get_ylabel() and "squared error" in right.get_ylabel()


def test_one_kind_alone_fills_the_figure():
    assert len(loss_panels({"raster-flow": ([1], [2.0])}).axes) == 1


def test_live_curves_change_the_picture_every_few_steps_and_say_it_in_words():
    live = LiveCurves(every=2, window=2)
    assert "Nothing trained yet" in live.widget.value
    on_record, before = live.watch("random-diffusion"), live.widget.value
    on_record(record(1, 1.0))
    assert live.widget.value == before
    on_record(record(2, 0.5))
    assert live.widget.value != before and "random-diffusion at step 2: 0.750" in live.widget.value


def test_live_curves_refuse_an_unknown_variant_before_training():
    with pytest.raises(ValueError, match="no variant 'random-spiral'"):
        LiveCurves().watch("random-spiral")


def test_a_sweep_marks_its_values_and_says_the_same_in_words():
    curves = {"random-flow": [0.2, 0.5], "raster-flow": [0.1, 0.4]}
    axis = plots.sweep([1, 2.5], curves, xlabel="steps", ylabel="share", log_x=True, levels=(0.9,), ylim=(0, 1)).axes[0]
    assert [list(line.get_ydata()) for line in axis.lines] == [[0.2, 0.5], [0.1, 0.4], [0.9, 0.9]]
    assert [tick.get_text() for tick in axis.get_xticklabels()] == ["1", "2.5"]
    assert plots.in_words([1, 2.5], curves) == ("random-flow: 1 gives 0.20, 2.5 gives 0.50; "
                                                "raster-flow: 1 gives 0.10, 2.5 gives 0.40.")


def test_a_bar_is_as_long_as_its_parts():
    counts = {"a": {"aligner": 1_000_000, "order": 0, "head": 2_000_000, "backbone": 3_000_000, "total": 6_000_000}}
    axis = part_bars(counts).axes[0]
    assert [(p.get_x(), p.get_width()) for p in axis.patches] == [(0, 1), (1, 0), (1, 2), (3, 3)]
    assert axis.texts[0].get_text() == " 6.00 M"


def test_a_sheet_puts_every_picture_under_its_column_and_beside_its_row():
    images = [torch.full((3, 8, 8), value, dtype=torch.uint8) for value in (10, 60, 110, 160, 210, 250)]
    sheet = np.asarray(contact_sheet(images, ["first", "second\nrow"], ["a", "b", "c"], scale=4))
    left = sheet.shape[1] - (3 * 38 - 6)
    for i, value in enumerate((10, 60, 110, 160, 210, 250)):
        y, x = 24 + (i // 3) * 38, left + (i % 3) * 38
        assert (sheet[y:y + 32, x:x + 32] == value).all()
    assert (sheet[:24, left:] < 128).any() and (sheet[24:, :left] < 128).any()
    longer = contact_sheet(images, ["first", "second\nrow"], ["a", "words that must be broken", "c"], scale=4)
    assert longer.width == sheet.shape[1] and longer.height > sheet.shape[0]
    with pytest.raises(ValueError, match="6 images for 2 rows x 2 columns"):
        contact_sheet(images, ["1", "2"], ["a", "b"])


def test_only_unknown_tokens_are_hidden():
    pixels = torch.rand(2, 3, 32, 32) * 2 - 1
    unknown = torch.zeros(2, 4, dtype=torch.bool)
    unknown[1, 2] = True                                                  # second picture, lower left token
    shown = hide_unknown(pixels, unknown)
    assert torch.equal(shown[0], pixels[0])
    changed = (shown[1] != pixels[1]).all(dim=0)
    assert changed[16:, :16].all() and not changed[:16].any() and not changed[:, 16:].any()


def test_tokens_are_coloured_where_marked_and_numbered_where_they_lie():
    marked, values = torch.tensor([[True, False, False, False, False, True]]), torch.arange(6.0)[None] / 2
    axis = plots.token_maps(marked, (2, 3), ["two"], values).axes[0]
    assert axis.collections[0].get_array().tolist() == [[1, 0, 0], [0, 0, 1]] and axis.get_title() == "two"
    assert [(text.get_text(), text.get_weight()) for text in axis.texts] == [
        ("0", "bold"), ("0.5", "normal"), ("1", "normal"), ("1.5", "normal"), ("2", "normal"), ("2.5", "bold")]
    assert axis.texts[4].get_position() == (1.5, 1.5) and axis.get_ylim() == (2, 0)           # row 0 on top
    assert len(plots.token_maps(marked, (2, 3), ["two"]).axes[0].texts) == 0


def test_results_come_as_curves_of_numbers_in_the_order_of_their_steps(tmp_path, monkeypatch):
    (tmp_path / "results.csv").write_text(
        "order,head,preset,params,steps,seed,metric,value,torch,commit,command\n"
        "random,diffusion,mini,3200000,200,0,train_loss,0.5,2.13.0,abc,fluidlab train\n"
        "random,diffusion,mini,3200000,100,0,train_loss,0.75,2.13.0,abc,fluidlab train\n"
        "raster,softmax,mini,3400000,100,0,train_loss,6.5,2.13.0,abc,fluidlab train\n"
        "raster,softmax,mini,3400000,100,0,val_loss,6.6,2.13.0,abc,fluidlab train\n", encoding="utf-8")
    monkeypatch.setenv("FLUIDLAB_DATA", str(tmp_path))
    assert plots.result_curves("train_loss") == {"random-diffusion": ([100, 200], [0.75, 0.5]),
                                                 "raster-softmax": ([100], [6.5])}
    assert list(plots.result_curves("train_loss", order="raster")) == ["raster-softmax"]


def test_a_live_picture_is_a_png_of_the_page_width():
    live = LiveCurves()
    data = re.search(r'src="data:image/png;base64,([^"]+)"', live.widget.value).group(1)
    assert Image.open(io.BytesIO(base64.b64decode(data))).width == 800


def test_a_table_has_one_line_per_row_and_numbers_on_the_right():
    table = plots.markdown_table([{"variant": "raster-softmax", "loss": 6.5, "params": 1234567},
                                  {"variant": "random-flow", "loss": 2.0, "params": 1}])
    assert table == ("| variant | loss | params |\n| --- | ---: | ---: |\n| raster-softmax | 6.5000 | 1,234,567 |\n"
                     "| random-flow | 2.0000 | 1 |")
    assert plots.markdown_table([{"same": True}, {"same": False}]).split("\n")[2:] == ["| yes |", "| no |"]
    with pytest.raises(ValueError, match="the same columns in all, got 2 rows"):
        plots.markdown_table([{"a": 1}, {"b": 1}])


@pytest.mark.parametrize(("value", "said"), [(0.25, "0.25"), (4.0, "4"), (3e5, "300k"), (2e6, "2M"),
                                             (1e12, "$10^{12}$"), (9.999999999e11, "$10^{12}$"), (2e12, "2.0e+12")])
def test_numbers_on_an_axis_are_short(value, said):
    assert short_number(value) == said


@pytest.mark.parametrize(("low", "high"), [(0.16, 0.26), (1e5, 8e6), (1e11, 1e14), (0.001, 0.008), (5e-4, 4e-3),
                                           (0.002, 0.016), (1.0, 1.06)])
def test_tick_labels_of_a_narrow_panel_do_not_overlap(low, high):
    figure, axis = plt.subplots(figsize=(3.2, 3.2), layout="constrained")
    axis.plot([low, high], [low, high])
    axis.set(xscale="log", yscale="log")
    read_log(axis)
    figure.canvas.draw()
    inside = [label.get_window_extent() for label, at in zip(axis.get_xticklabels(), axis.get_xticks(), strict=True)
              if axis.get_xlim()[0] <= at <= axis.get_xlim()[1]]
    assert len(inside) >= 2 and all(a.x1 < b.x0 for a, b in zip(inside, inside[1:], strict=False))
    plt.close(figure)


@pytest.mark.parametrize(("low", "high"), [(0.16, 0.26), (1e5, 8e6), (1e11, 1e14), (0.001, 0.008)])
def test_ticks_of_a_logarithmic_axis_can_be_read(low, high):
    figure, axis = plt.subplots()
    axis.plot([low, high], [low, high])
    axis.set(xscale="log", yscale="log")
    read_log(axis)
    figure.canvas.draw()
    for line, limits in ((axis.xaxis, axis.get_xlim()), (axis.yaxis, axis.get_ylim())):
        inside = [tick.get_text() for tick, at in zip(line.get_ticklabels(), line.get_ticklocs(), strict=True)
                  if limits[0] <= at <= limits[1]]
        assert 2 <= len(set(inside)) == len(inside) <= 7 and not any("times" in text for text in inside)
        assert not any(tick.get_text() for tick in line.get_ticklabels(minor=True))
    plt.close(figure)
