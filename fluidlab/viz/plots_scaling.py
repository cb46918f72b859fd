"""Pictures of notebook 08: laws on logarithmic axes, losses over compute, one measure against another.

Knows points and laws, not how they were trained or fitted. Discrete and continuous losses never share an axis.
"""

from collections.abc import Callable

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from fluidlab.evaluate.scaling import X_AXES, Point, VariantLaw
from fluidlab.evaluate.statistics import Interval
from fluidlab.viz.plots import UNITS, kind_of, read_log
from fluidlab.viz.show import variant_style

X_NAMES = dict(zip(X_AXES, ("parameters", "parameters of the backbone", "training FLOPs"), strict=True))


def law_panels(points: list[Point], laws: list[VariantLaw], x: str = "params", *,
               reach: float = 1.0) -> Figure:
    """Losses against size, with the fitted laws, discrete variants on the left and continuous ones on the right.

    Args:
        points: trained cells.  laws: of `study_laws` for the same x.  x: a name of `X_AXES`.
        reach: how many times the largest size the lines go on, dotted beyond the last point.
    """
    def draw(axis, kind: str) -> None:
        for found in (found for found in laws if kind_of(found.variant) == kind):
            style = variant_style(*found.variant.split("-"))
            mine = [point for point in points if point.variant == found.variant]
            sizes = np.array([getattr(point, x) for point in mine], dtype=float)
            axis.plot(sizes, [point.value for point in mine], style["marker"], color=style["color"],
                      label=f"{style['label']}: b = {found.law.b:.3f}")
            line = np.geomspace(sizes.min(), sizes.max(), 50)
            axis.plot(line, found.law(line), style["linestyle"], color=style["color"])
            if reach > 1:
                line = np.geomspace(sizes.max(), sizes.max() * reach, 30)
                axis.plot(line, found.law(line), ":", color=style["color"])
        axis.set(xlabel=X_NAMES[x], xscale="log", yscale="log")
        read_log(axis)
    return _panels([found.variant for found in laws], draw)


def compute_panels(by_steps: dict[int, list[Point]], variants: list[str]) -> Figure:
    """Loss against training FLOPs: one line a size, small sizes pale; a panel a variant.

    Args:
        by_steps: steps -> the points measured then.  variants: at most four.

    Raises:
        ValueError: points of several seeds.
    """
    _one_seed([point for points in by_steps.values() for point in points])
    figure, axes = plt.subplots(1, len(variants), figsize=(4.2 * len(variants), 3.6), squeeze=False)
    for axis, name in zip(axes[0], variants, strict=True):
        style, sizes = variant_style(*name.split("-")), {}
        for points in by_steps.values():
            for point in (point for point in points if point.variant == name):
                sizes.setdefault((point.params, point.size), []).append((point.flops, point.value))
        for k, ((_, size), line) in enumerate(sorted(sizes.items())):
            x, y = zip(*sorted(line), strict=True)
            axis.plot(x, y, "o-", color=style["color"], alpha=0.3 + 0.7 * k / max(1, len(sizes) - 1))
            axis.annotate(size, (x[-1], y[-1]), xytext=(4, 0), textcoords="offset points", fontsize=9, va="center")
        axis.set(title=name, xlabel="training FLOPs", ylabel=UNITS[kind_of(name)], xscale="log", yscale="log")
        axis.margins(x=0.15)
        read_log(axis)
    return figure


def _one_seed(points: list[Point]) -> None:
    seeds = sorted({point.seed for point in points})
    if len(seeds) > 1:
        raise ValueError(f"a line joins sizes or steps of one seed, got seeds {', '.join(map(str, seeds))}: "
                         f"choose one, or take the mean before.")


def size_panels(measures: dict[str, list[Point]], x: str = "params") -> Figure:
    """Measures of pictures against size, all variants in one panel, since one judge saw them all (figure 6).

    Args:
        measures: title -> points.  x: a name of `X_AXES`.

    Raises:
        ValueError: points of several seeds.
    """
    _one_seed([point for points in measures.values() for point in points])
    figure, axes = plt.subplots(1, len(measures), figsize=(4.6 * len(measures), 3.8), squeeze=False)
    for axis, (title, points) in zip(axes[0], measures.items(), strict=True):
        for name in dict.fromkeys(point.variant for point in points):
            mine = [(getattr(p, x), p.value) for p in points if p.variant == name]
            axis.plot(*zip(*sorted(mine), strict=True), **variant_style(*name.split("-")))
        axis.set(title=title, xlabel=X_NAMES[x], xscale="log")
        read_log(axis)
    axes[0, 0].legend(fontsize=9)
    return figure


def step_panels(measures: dict[str, list[Point]]) -> Figure:
    """Measures of one variant against the steps of its training: one line a size, small sizes pale (figure 7).

    Args:
        measures: title -> points of all moments.

    Raises:
        ValueError: points of more than one variant, or of several seeds.
    """
    _one_seed([point for points in measures.values() for point in points])
    variants = sorted({point.variant for points in measures.values() for point in points})
    if len(variants) != 1:
        raise ValueError(f"Steps are drawn for 1 variant, got {len(variants)}: {', '.join(variants)}.")
    color = variant_style(*variants[0].split("-"))["color"]
    figure, axes = plt.subplots(1, len(measures), figsize=(3.6 * len(measures), 3.4), squeeze=False)
    for axis, (title, points) in zip(axes[0], measures.items(), strict=True):
        sizes = list(dict.fromkeys(p.size for p in sorted(points, key=lambda p: p.params)))
        for k, size in enumerate(sizes):
            line = sorted((p.steps, p.value) for p in points if p.size == size)
            axis.plot(*zip(*line, strict=True), "o-", color=color, alpha=0.3 + 0.7 * k / max(1, len(sizes) - 1))
            axis.annotate(size, line[-1], xytext=(4, 0), textcoords="offset points", fontsize=9, va="center")
        axis.set(title=title, xlabel="training steps")
        axis.margins(x=0.15)
    return figure


def against(pairs: dict[str, list[tuple[float, float, str]]], *, ylabel: str, joined: bool = True) -> Figure:
    """A measure against the validation loss, each pair with the name of its size; discrete left, continuous right.

    Args:
        pairs: variant -> (loss, measure, name) of each cell.  joined: by a line, as sizes of one training are.
    """
    def draw(axis, kind: str) -> None:
        for name, cells in pairs.items():
            if kind_of(name) == kind:
                loss, measure, labels = zip(*sorted(cells), strict=True)
                style = variant_style(*name.split("-"))
                axis.plot(loss, measure, **(style if joined else {**style, "linestyle": "none"}))
                for k, cell in enumerate(zip(loss, measure, labels, strict=True)):
                    place = ((4, 5), (4, -11))[k % 2]                       # above and below in turn
                    axis.annotate(cell[2], cell[:2], xytext=place, textcoords="offset points", fontsize=8,
                                  color=style["color"])
        axis.set(xlabel=f"validation loss, {UNITS[kind]}", xscale="log")
        read_log(axis)
    figure = _panels(list(pairs), draw, legend="best")
    for axis in figure.axes:
        axis.set_ylabel(ylabel)
    return figure


def interval_rows(intervals: dict[str, Interval], xlabel: str) -> Figure:
    """Numbers with their intervals, a row each, and a line at 0: does the interval hold it?"""
    figure, axis = plt.subplots(figsize=(8.0, 1.0 + 0.32 * len(intervals)))
    for row, found in enumerate(intervals.values()):
        axis.plot([found.low, found.high], [row, row], "k-", linewidth=2)
        axis.plot(found.value, row, "ko", markersize=7)
    axis.axvline(0.0, color="black", linestyle=":", linewidth=1)
    axis.set(yticks=range(len(intervals)), yticklabels=list(intervals), xlabel=xlabel,
             ylim=(len(intervals) - 0.4, -0.6))
    axis.grid(axis="y", visible=False)
    return figure


def _panels(variants: list[str], draw: Callable, legend: str = "lower left") -> Figure:
    kinds = [kind for kind in UNITS if any(kind_of(name) == kind for name in variants)]
    figure, axes = plt.subplots(1, len(kinds), figsize=(4.6 * len(kinds), 3.8), squeeze=False)
    for axis, kind in zip(axes[0], kinds, strict=True):
        draw(axis, kind)
        axis.set(title=f"{kind} tokens", ylabel=UNITS[kind])
        axis.legend(fontsize=9, loc=legend)
    return figure
