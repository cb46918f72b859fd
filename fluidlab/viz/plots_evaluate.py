"""Pictures of notebook 07: what the judge found and by which rule, intervals, clouds, heat maps and curves of a sweep.

Knows detections and verdicts, not the judge that made them. What to notice: a verdict is never shown by colour alone.
"""

from collections.abc import Callable

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont

from fluidlab.config import check_choice
from fluidlab.evaluate.detector import Detection
from fluidlab.evaluate.frechet import Gaussian
from fluidlab.evaluate.sceneval import SKILLS, Verdict
from fluidlab.evaluate.statistics import Interval
from fluidlab.evaluate.sweep import SETTINGS, SWEEP_METRICS
from fluidlab.viz.show import to_array, variant_style

RIGHT, WRONG = "#009E73", "#D55E00"
TINT = {"left of": (0.0, 0.45, 0.7), "right of": (0.84, 0.37, 0.0), "above": (0.0, 0.62, 0.45),
        "below": (0.9, 0.62, 0.0)}
LABEL, EDGE, SPACE = 17, 4, 8  # pixels: a line of text, a frame, the room between pictures


def judged_sheet(images, found: list[list[Detection]], labels: list[str], verdicts: list[Verdict] | None = None, *,
                 columns: int = 4, scale: int = 4) -> Image.Image:
    """Images with the boxes that a judge found, a label below each, and in a second line its verdict.

    Args:
        images: what `to_array` takes, all of one size.  found: of each, in pixels of the image.
        labels: for example the prompts.  verdicts: of each; without them no frame and no second line.

    Raises:
        ValueError: not one list of objects, one label and (if given) one verdict for every image.
    """
    arrays = [to_array(image) for image in images]
    numbers = {len(arrays), len(found), len(labels), len(verdicts or labels)}
    if len(numbers) != 1 or not arrays:
        raise ValueError(f"A judged sheet needs as many images as objects, labels and verdicts, and at least 1, got "
                         f"{len(arrays)}, {len(found)}, {len(labels)} and {len(verdicts or labels)}.")
    font, small = ImageFont.load_default(13), ImageFont.load_default(11)
    side = arrays[0].shape[0] * scale + 2 * EDGE
    cell = side + LABEL * (2 if verdicts else 1) + SPACE
    columns = min(columns, len(arrays))
    rows = -(-len(arrays) // columns)
    sheet = Image.new("RGB", (columns * (side + SPACE) - SPACE, rows * cell - SPACE), "white")
    draw = ImageDraw.Draw(sheet)
    for i, (array, objects) in enumerate(zip(arrays, found, strict=True)):
        x, y = i % columns * (side + SPACE), i // columns * cell
        if verdicts:
            draw.rectangle([x, y, x + side - 1, y + side - 1], fill=RIGHT if verdicts[i].correct else WRONG)
        size = (array.shape[1] * scale, array.shape[0] * scale)
        sheet.paste(Image.fromarray(array).resize(size, Image.Resampling.NEAREST), (x + EDGE, y + EDGE))
        for thing in objects:
            _box(draw, thing, x + EDGE, y + EDGE, scale, size[0], small)
        draw.text((x, y + side), _fit(labels[i], side, font), fill="black", font=font)
        if verdicts:
            said = "right" if verdicts[i].correct else f"wrong: {verdicts[i].reason}"
            draw.text((x, y + side + LABEL), _fit(said, side, font), fill=RIGHT if verdicts[i].correct else WRONG,
                      font=font)
    return sheet


def _box(draw: ImageDraw.ImageDraw, thing: Detection, left: int, top: int, scale: int, width: int, font) -> None:
    """One box inside the picture, and the name of what it holds in its upper corner."""
    x0, y0, x1, y1 = (min(max(value * scale, 0), width - 1) for value in thing.box)
    draw.rectangle([left + x0, top + y0, left + x1, top + y1], outline="black")
    text = f"{thing.color} {thing.name} {thing.score:.2f}"
    long = font.getlength(text) + 4
    x, y = left + max(0, min(x0, width - long)), top + max(0, y0 - 13)
    draw.rectangle([x, y, x + long, y + 13], fill="white")
    draw.text((x + 2, y), text, fill="black", font=font)


def _fit(text: str, width: float, font) -> str:
    while text and font.getlength(text) > width:
        text = text[:-2] + "…" if len(text) > 2 else ""
    return text


def score_bars(scores: dict[str, dict[str, Interval]], ceilings: dict[str, dict[str, float]] | None = None) -> Figure:
    """SceneEval of several variants, skill by skill, with intervals.

    Args:
        scores: variant -> skill -> share and its interval.
        ceilings: variant -> skill -> what true scenes reach, for example on its tokenizer: a short line above its bar.
    """
    groups = list(next(iter(scores.values())))
    figure, axis = plt.subplots(figsize=(9.0, 3.6))
    width, places = 0.8 / len(scores), np.arange(len(groups))
    for k, (name, of) in enumerate(scores.items()):
        style, x = variant_style(*name.split("-")), places + (k - (len(scores) - 1) / 2) * width
        values = np.array([of[group].value for group in groups])
        reach = np.array([[of[group].value - of[group].low, of[group].high - of[group].value] for group in groups]).T
        axis.bar(x, values, width * 0.92, color=style["color"], label=style["label"], yerr=reach.clip(min=0),
                 error_kw={"elinewidth": 1}, hatch="//" if name.startswith("raster") else None, edgecolor="white")
        for group, place in zip(groups, x, strict=True):
            if ceilings is not None and group in ceilings[name]:
                axis.plot([place - width / 2, place + width / 2], [ceilings[name][group]] * 2, color="black",
                          linewidth=1.5)
    axis.set(xticks=places, xticklabels=[group.replace("_", "\n") for group in groups], ylim=(0, 1.05),
             ylabel="share of images that are right")
    axis.grid(axis="x", visible=False)
    figure.legend(loc="outside upper center", ncols=len(scores))
    return figure


def heat_maps(rows: list[dict], metric: str) -> Figure:
    """A sweep over guidance scale and temperature, one map a model, the best setting framed.

    Args:
        rows: of `read_sweep`, at one number of steps for each model.  metric: "sceneval_overall" or "frechet".

    Raises:
        ValueError: an unknown metric, no rows, or a model that does not have every combination once.
    """
    check_choice("metric", metric, SWEEP_METRICS)
    models = list(dict.fromkeys(row["model"] for row in rows))
    if not models:
        raise ValueError(f"A heat map of {metric} needs at least 1 row, got 0.")
    figure, axes = plt.subplots(1, len(models), figsize=(2.6 * len(models), 3.2), squeeze=False, sharey=True)
    less = metric == SWEEP_METRICS[1]
    spread = [row[metric] for row in rows]
    for axis, model in zip(axes[0], models, strict=True):
        mine = [row for row in rows if row["model"] == model]
        of = {(row["temperature"], row["guidance_scale"]): row[metric] for row in mine}
        temperatures, scales = (sorted({key[axis] for key in of}) for axis in (0, 1))
        if not len(mine) == len(of) == len(temperatures) * len(scales):
            raise ValueError(f"{model} has {len(mine)} settings, a heat map of {len(temperatures)} temperatures and "
                             f"{len(scales)} guidance scales needs {len(temperatures) * len(scales)}.")
        values = np.array([[of[t, g] for g in scales] for t in temperatures])
        axis.imshow(values, cmap="cividis_r" if less else "cividis", vmin=min(spread), vmax=max(spread), aspect="auto",
                    origin="lower")
        best = np.unravel_index((values.argmin if less else values.argmax)(), values.shape)
        middle = (min(spread) + max(spread)) / 2
        for (i, j), value in np.ndenumerate(values):
            light = (value > middle) == less  # which end of the map is dark
            axis.text(j, i, f"{value:.2f}" if value < 10 else f"{value:.0f}", ha="center", va="center", fontsize=9,
                      color="white" if light else "black", fontweight="bold" if (i, j) == best else None)
        axis.add_patch(plt.Rectangle((best[1] - 0.48, best[0] - 0.48), 0.96, 0.96, fill=False, edgecolor="#D55E00",
                                     linewidth=2.5))
        axis.set(title=model.removesuffix("-mini").replace("-", "\n"), xticks=range(len(scales)),
                 xticklabels=[f"{g:g}" for g in scales], yticks=range(len(temperatures)),
                 yticklabels=[f"{t:g}" for t in temperatures])
        axis.grid(visible=False)
    axes[0, 0].set_ylabel("temperature")
    figure.supxlabel("guidance scale", fontsize=12)
    return figure


def steps_panels(rows: list[dict], steps: str, all_steps: int = 16) -> Figure:
    """SceneEval and the Frechet distance over a number of sampling steps, all else as it was, a line for each model.

    Args:
        rows: of `read_sweep`; for each model the rows of one guidance scale and temperature.
        steps: "num_inference_steps" or "num_denoising_steps".
        all_steps: what an empty number of steps stands for: one for each token.

    Raises:
        ValueError: no rows.
    """
    check_choice("steps", steps, SETTINGS[2:])
    if not rows:
        raise ValueError(f"A curve over {steps} needs at least 1 row, got 0.")
    figure, axes = plt.subplots(1, 2, figsize=(8.6, 3.2))
    for axis, metric, title in zip(axes, SWEEP_METRICS, ("SceneEval (more is better)",
                                                         "Frechet distance (less is better)"), strict=True):
        for model in dict.fromkeys(row["model"] for row in rows):
            line = sorted((row[steps] or all_steps, row[metric]) for row in rows if row["model"] == model)
            axis.plot(*zip(*line, strict=True), **variant_style(*model.split("-")[:2]))
        ticks = sorted({row[steps] or all_steps for row in rows})
        axis.set(title=title, xlabel=steps, xscale="log", ylim=(0, None))
        axis.set_xticks(ticks, map(str, ticks))
        axis.minorticks_off()
    axes[0].legend(fontsize=9)
    return figure


def skill_scores(metrics: dict[str, float]) -> dict[str, Interval]:
    """The intervals of the six skills among the metrics of a report, as `data/results.csv` keeps them."""
    return {skill: Interval(*(metrics[f"sceneval_{skill}{end}"] for end in ("", "_low", "_high"))) for skill in SKILLS}


def direction_map(rule: Callable[[tuple, tuple], set[str]], side: int = 24) -> Figure:
    """Where one box must lie to be left of, right of, above or below another in the middle of an image of 64 pixels.

    Args:
        rule: two boxes (left, top, right, bottom) -> where the first lies, for example `relations`.
        side: of both boxes, in pixels.
    """
    def box(x: float, y: float) -> tuple[float, float, float, float]:
        return x - side / 2, y - side / 2, x + side / 2, y + side / 2

    middles = range(4, 61, 2)
    field = np.ones((len(middles), len(middles), 3))
    for i, y in enumerate(middles):
        for j, x in enumerate(middles):
            said = rule(box(x, y), box(32, 32))
            if said:
                field[i, j] = np.mean([TINT[name] for name in said], axis=0)
    figure, axis = plt.subplots(figsize=(4.6, 4.4))
    first, last = middles[0], middles[-1]
    axis.imshow(field, extent=(first, last, last, first), interpolation="nearest")
    for name, (x, y) in dict(zip(TINT, ((10, 32), (54, 32), (32, 10), (32, 54)), strict=True)).items():
        axis.text(x, y, name, ha="center", va="center", color="white", fontweight="bold")
    axis.plot(32, 32, "k+", markersize=14)
    axis.set(xlabel="middle of the first object (pixels)", ylabel="")
    axis.grid(visible=False)
    return figure


def interval_chart(rule: Callable[[int, int], tuple[float, float]], trials: int) -> Figure:
    """The interval of every possible share of so many trials, and where p +- 2 standard errors would end.

    Args:
        rule: successes and trials -> lower and upper end.
    """
    figure, axis = plt.subplots(figsize=(8.0, 3.2))
    counts = np.arange(trials + 1)
    shares = counts / trials
    low, high = np.array([rule(int(k), trials) for k in counts]).T
    plain = 1.96 * np.sqrt(shares * (1 - shares) / trials)
    axis.vlines(counts, low, high, color=RIGHT, linewidth=6, label="interval")
    axis.plot(counts, shares, "ko", label="share")
    axis.plot(counts, shares - plain, "k_", counts, shares + plain, "k_", markersize=12)
    axis.plot([], [], "k_", markersize=12, label="share ± 1.96 standard errors")
    axis.axhspan(0, 1, color="#F0F0F0", zorder=-2)
    axis.set(xlabel=f"right images of {trials}", ylabel="share", ylim=(-0.15, 1.15), xticks=counts)
    axis.legend(loc="upper left", fontsize=9)
    return figure


def gaussian_panels(pairs: dict[str, tuple[Gaussian, Gaussian]], distance: Callable[..., float]) -> Figure:
    """Pairs of Gaussians of two features as ellipses of one standard deviation, their distance in the title.

    Args:
        pairs: title -> two Gaussians.  distance: mean, covariance, mean, covariance -> a number.
    """
    figure, axes = plt.subplots(1, len(pairs), figsize=(2.4 * len(pairs), 2.9), sharex=True, sharey=True, squeeze=False)
    angle = np.linspace(0, 2 * np.pi, 100)
    circle = np.stack([np.cos(angle), np.sin(angle)])                                 # (2, 100)
    for axis, (title, pair) in zip(axes[0], pairs.items(), strict=True):
        for one, line, color in zip(pair, ("-", "--"), ("#0072B2", "#D55E00"), strict=True):
            values, vectors = np.linalg.eigh(one.covariance)
            axis.plot(*(one.mean[:, None] + vectors * np.sqrt(values.clip(min=0)) @ circle), line, color=color)
        a, b = pair
        axis.set(title=f"{title}\nd = {distance(a.mean, a.covariance, b.mean, b.covariance):.3f}", aspect="equal")
    return figure
