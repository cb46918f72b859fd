"""Curves and sheets that several notebooks share: losses, live or finished, parameters by part, and picture tables.

Knows the names of the variants and nothing of how they work. Every function returns a matplotlib figure or a PIL
image, for `show` or `figure_html`. What to notice: discrete and continuous losses never share an axis, because nats
and squared errors are different units.
"""

import math
from collections.abc import Callable, Iterable

import ipywidgets
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from fluidlab.config import TOKEN_KINDS
from fluidlab.evaluate.results import read_results
from fluidlab.viz.show import VARIANT_COLORS, figure_html, image_grid, variant_style

UNITS = {"discrete": "cross-entropy (nats)", "continuous": "squared error"}
PART_COLORS = {"aligner": "#56B4E9", "order": "#000000", "head": "#E69F00", "backbone": "#999999"}
GAP, LINE = 6, 17                       # pixels between pictures, and of a line of a label
GREY = 0.55                             # of a token that is still unknown, in [-1, 1]; no pale background is as dark
Curves = dict[str, tuple[list[float], list[float]]]                      # variant -> (steps, losses)


def smooth(values: Iterable[float], window: int) -> np.ndarray:
    """Mean of each value and the `window - 1` before it, fewer at the start: a curve that lags but never looks ahead.

    Raises:
        ValueError: a window below 1.
    """
    if window < 1:
        raise ValueError(f"window must be at least 1, got {window}.")
    total = np.concatenate([[0.0], np.cumsum(np.asarray(list(values), dtype=float))])
    end = np.arange(1, len(total))
    start = np.maximum(end - window, 0)
    return (total[end] - total[start]) / (end - start)


def read_log(axis) -> None:
    """Ticks that can be read on the logarithmic axes of a panel: 0.2 and 300k in place of 2 x 10^-1; call it last."""
    for line, (low, high), log in ((axis.xaxis, axis.get_xlim(), axis.get_xscale() == "log"),
                                   (axis.yaxis, axis.get_ylim(), axis.get_yscale() == "log")):
        if log:
            ratio = high / low
            line.set_major_locator(LogLocator(subs=(1.0,)) if ratio > 30 else MaxNLocator(4, steps=[1, 2, 5, 10])
                                   if ratio < 1.5 else FixedLocator(few_ticks(low, high)))
            line.set_major_formatter(FuncFormatter(lambda value, _: short_number(value)))
            line.set_minor_formatter(NullFormatter())


def few_ticks(low: float, high: float, most: int = 4) -> list[float]:
    """Round numbers inside a range of a logarithmic axis, at most so many and far enough apart to be read."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for digits in (range(10, 100, 5), range(1, 10), (1, 2, 3, 5), (1, 2, 5), (1, 3), (1,)):
        scale = 10 if digits[0] == 10 else 1
        ticks = [d / scale * 10.0 ** k for k in decades for d in digits if low <= d / scale * 10.0 ** k <= high]
        apart = min((math.log(b / a) for a, b in zip(ticks, ticks[1:], strict=False)), default=math.inf)
        if len(ticks) <= most and apart > math.log(high / low) / most:
            return [float(f"{tick:.6g}") for tick in ticks]
    return [float(f"{math.sqrt(low * high):.2g}")]


def short_number(value: float) -> str:
    """0.25, 300k, 2M, and powers of ten beyond: as an axis has room for."""
    if value >= 1e9:
        power = math.floor(math.log10(value) + 1e-9)
        return f"$10^{{{power}}}$" if math.isclose(value, 10.0 ** power) else f"{value:.1e}"
    return f"{value / 1e6:g}M" if value >= 1e6 else f"{value / 1e3:g}k" if value >= 1e4 else f"{value:g}"


def kind_of(name: str) -> str:
    """"discrete" or "continuous" of a variant's name, such as "raster-softmax"."""
    return TOKEN_KINDS[name.split("-")[1]]


def loss_panels(curves: Curves, *, window: int = 1, first: dict[str, float] | None = None, raw: bool = True,
                xlabel: str = "step", log_x: bool = False) -> Figure:
    """Losses of several variants, discrete ones on the left and continuous ones on the right, each in its own unit.

    Args:
        curves: variant -> (steps, losses).  window: steps that are averaged for the line; 1 draws every value.
        first: head -> the loss that is known before training, drawn as a dotted line.
        raw: with a window, draw the values behind their mean, pale.
    """
    kinds = [kind for kind in UNITS if any(kind_of(name) == kind for name in curves)] or list(UNITS)
    figure, axes = plt.subplots(1, len(kinds), figsize=(8.0, 3.4), squeeze=False)
    for axis, kind in zip(axes[0], kinds, strict=True):
        for name, (steps, losses) in curves.items():
            if kind_of(name) == kind and len(steps):
                _draw_curve(axis, name, steps, losses, window, raw)
        for head, value in (first or {}).items():
            if TOKEN_KINDS[head] == kind:
                axis.axhline(value, color="black", linestyle=":", linewidth=1, label=f"knows nothing: {value:.2f}")
        axis.set(title=f"{kind} tokens", xlabel=xlabel, ylabel=UNITS[kind], **({"xscale": "log"} if log_x else {}))
        if axis.get_legend_handles_labels()[0]:
            axis.legend(loc="upper right", fontsize=10)
    return figure


def _draw_curve(axis, name: str, steps, losses, window: int, raw: bool) -> None:
    style = variant_style(*name.split("-"))
    if window > 1 and raw:
        axis.plot(steps, losses, color=style["color"], alpha=0.2, linewidth=1)
    axis.plot(steps, smooth(losses, window), **{**style, "marker": style["marker"] if len(steps) < 30 else None})


class LiveCurves:
    """Loss curves that grow while models train: one HTML widget, drawn anew every few steps.

    Args:
        every: steps between two drawings; each takes about a fifth of a second.
        window, first: as for `loss_panels`.

    Use `display(live.widget)` once, then `train(..., on_record=live.watch("random-diffusion"))` for each variant.
    """

    def __init__(self, every: int = 25, *, window: int = 10, first: dict[str, float] | None = None):
        self.every, self.window, self.first, self.curves = every, window, first, {}
        self.widget = ipywidgets.HTML()
        self.draw()

    def watch(self, name: str) -> Callable:
        """The callback for one variant's training; what was known of it before is forgotten."""
        variant_style(*name.split("-"))                                   # an unknown name is refused now
        steps, losses = self.curves[name] = ([], [])

        def on_record(record) -> None:
            steps.append(record.step)
            losses.append(record.loss)
            if record.step % self.every == 0:
                self.draw()
        return on_record

    def draw(self) -> None:
        """Put the present curves into the widget."""
        figure = loss_panels(self.curves, window=self.window, first=self.first)
        self.widget.value = figure_html(figure, alt=self.description())

    def description(self) -> str:
        """The curves in words."""
        said = [f"{name} at step {steps[-1]}: {smooth(losses, self.window)[-1]:.3f}"
                for name, (steps, losses) in self.curves.items() if steps]
        return "Training loss against step. " + ("; ".join(said) if said else "Nothing trained yet") + "."


def sweep(values: list[float], curves: dict[str, list[float]], *, xlabel: str, ylabel: str, log_x: bool = False,
          levels: tuple[float, ...] = (), ylim: tuple | None = None) -> Figure:
    """What a measure says of each variant while one setting is turned.

    Args:
        values: of the setting, marked on the axis.  curves: variant -> the measure at each value.
        levels: heights of dotted lines, for what the measure gives at best and by chance.
    """
    figure, axis = plt.subplots(figsize=(8.0, 3.2))
    for name, measured in curves.items():
        axis.plot(values, measured, **variant_style(*name.split("-")))
    for level in levels:
        axis.axhline(level, color="black", linestyle=":", linewidth=1)
    axis.set(xlabel=xlabel, ylabel=ylabel, ylim=ylim, **({"xscale": "log"} if log_x else {}))
    axis.set_xticks(values, [f"{value:g}" for value in values])
    axis.minorticks_off()
    axis.legend()
    return figure


def in_words(values: list[float], curves: dict[str, list[float]]) -> str:
    """The same curves as a sentence for alternative text: "random-flow: 1 gives 0.20, 2 gives 0.50."."""
    return "; ".join(f"{name}: " + ", ".join(f"{x:g} gives {y:.2f}" for x, y in zip(values, measured, strict=True))
                     for name, measured in curves.items()) + "."


def part_bars(counts: dict[str, dict[str, int]]) -> Figure:
    """Parameters of each part as one stacked bar per model.

    Args:
        counts: model's name -> what `Fluid.count_parameters` says.
    """
    figure, axis = plt.subplots(figsize=(8.0, 0.9 + 0.45 * len(counts)))
    for row, parts in enumerate(counts.values()):
        left = 0.0
        for part, color in PART_COLORS.items():
            millions = parts[part] / 1e6
            axis.barh(row, millions, left=left, color=color, label=part if row == 0 else None, height=0.7)
            left += millions
        axis.text(left, row, f" {left:.2f} M", va="center")
    axis.set(yticks=range(len(counts)), yticklabels=list(counts), xlabel="million parameters")
    axis.invert_yaxis()
    axis.grid(axis="y", visible=False)
    axis.set_xlim(right=axis.get_xlim()[1] * 1.12)
    figure.legend(loc="outside upper center", ncols=len(PART_COLORS))
    return figure


def contact_sheet(images, row_labels: list[str], column_labels: list[str], scale: int | None = None) -> Image.Image:
    """A table of pictures with a name for every row and every column.

    Args:
        images: row by row, anything that `image_grid` takes.
        row_labels, column_labels: one for each. A column's label is broken between words to fit its column; a row's
            is broken where it says so.

    Raises:
        ValueError: another number of images than rows x columns.
    """
    rows, columns = len(row_labels), len(column_labels)
    if len(images) != rows * columns:
        raise ValueError(f"The sheet was given {len(images)} images for {rows} rows x {columns} columns.")
    grid, font = image_grid(images, columns=columns, scale=scale), ImageFont.load_default(14)
    step_x, step_y = (grid.width + GAP) / columns, (grid.height + GAP) / rows
    broken = [_break(label, step_x - GAP, font) for label in column_labels]
    top = 7 + LINE * max(len(lines) for lines in broken)
    left = 10 + max(int(font.getlength(line)) for label in row_labels for line in label.split("\n"))
    sheet = Image.new("RGB", (left + grid.width, top + grid.height), "white")
    sheet.paste(grid, (left, top))
    draw = ImageDraw.Draw(sheet)
    for i, lines in enumerate(broken):
        x, y = left + (i + 0.5) * step_x - GAP / 2, top - 4 - LINE * len(lines)
        for k, line in enumerate(lines):
            draw.text((x, y + (k + 0.5) * LINE), line, fill="black", font=font, anchor="mm")
    for i, label in enumerate(row_labels):
        draw.multiline_text((0, top + (i + 0.5) * step_y - GAP / 2), label, fill="black", font=font, anchor="lm")
    return sheet


def _break(text: str, width: float, font) -> list[str]:
    """Lines of whole words, each as long as fits; a single word that does not fit stays whole."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def hide_unknown(pixels: Tensor, unknown: Tensor, patch_size: int = 16) -> Tensor:
    """Pictures whose unknown tokens are grey squares with a lighter cross, so that no pale background looks hidden.

    Args:
        pixels: (B, 3, H, W) in [-1, 1].  unknown: (B, N) bool over the token grid, row by row.

    Returns:
        (B, 3, H, W), a copy.
    """
    rows, columns = (side // patch_size for side in pixels.shape[-2:])
    mask = unknown.view(-1, 1, rows, columns).repeat_interleave(patch_size, 2).repeat_interleave(patch_size, 3)
    i, j = torch.meshgrid(torch.arange(patch_size), torch.arange(patch_size), indexing="ij")
    cross = torch.where((i == j) | (i + j == patch_size - 1), GREY, GREY - 0.8).repeat(rows, columns)      # (H, W)
    return torch.where(mask, cross, pixels)


def token_maps(marked: Tensor, grid: tuple[int, int], titles: list[str], values: Tensor | None = None) -> Figure:
    """Tokens on the grid of their image, coloured where marked, grey elsewhere, each with its number if there is one.

    Args:
        marked: (B, N) bool.  grid: (h, w), h w = N.  titles: one for each image.  values: (B, N), or None.
    """
    (h, w), B = grid, len(marked)
    figure, axes = plt.subplots(1, B, figsize=(min(3.0, 12 / B) * B, min(3.0, 12 / B) * h / w + 0.4), squeeze=False)
    colors = plt.matplotlib.colors.ListedColormap(["#dddddd", VARIANT_COLORS["random-diffusion"]])
    for i, (axis, title) in enumerate(zip(axes[0], titles, strict=True)):
        axis.pcolormesh(marked[i].view(h, w).float().numpy(), cmap=colors, vmin=0, vmax=1, edgecolors="white")
        for n in range(0 if values is None else h * w):
            axis.text(n % w + 0.5, n // w + 0.5, f"{values[i, n].item():g}", ha="center", va="center",
                      color="white" if marked[i, n] else "#777777", weight="bold" if marked[i, n] else "normal")
        axis.set(title=title, xticks=[], yticks=[], xlim=(0, w), ylim=(h, 0), aspect="equal")
        axis.grid(False)
    return figure


def result_curves(metric: str, **where: str) -> Curves:
    """The shipped `results.csv` as curves: variant -> (steps, values), sorted by step.

    Args:
        metric: for example "train_loss".  where: columns and what they must say, e.g. order="random".
    """
    curves: Curves = {}
    for row in sorted(read_results(metric=metric, **where), key=lambda row: int(float(row["steps"]))):
        steps, values = curves.setdefault(f"{row['order']}-{row['head']}", ([], []))
        steps.append(int(float(row["steps"])))
        values.append(float(row["value"]))
    return curves


def markdown_table(rows: list[dict]) -> str:
    """Rows with the same keys as a Markdown table, for `display(Markdown(...))`; numbers stand on the right.

    Raises:
        ValueError: no row, or rows with different keys.
    """
    if not rows or len({tuple(row) for row in rows}) != 1:
        raise ValueError(f"A table needs at least 1 row and the same columns in all, got {len(rows)} rows.")
    right = ["---:" if isinstance(value, int | float) else "---" for value in rows[0].values()]
    lines = [list(rows[0]), right, *([_cell(value) for value in row.values()] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}" if isinstance(value, float) else str(value)
