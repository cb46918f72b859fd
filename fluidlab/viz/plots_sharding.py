"""Pictures of notebook 09: who holds which rows, what a step keeps and gathers, what fits, losses over each other.

Knows the JSON of `fluidlab shards` and the planner's numbers. Everything that a colour says is also said by a number,
a line style or the order of the legend.
"""

import math
from collections.abc import Callable

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from fluidlab.train.plan import USABLE, Device, Plan, describe
from fluidlab.train.shards import KINDS
from fluidlab.viz.plots import read_log

PROCESS_COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#999999")
DARK = ("#0072B2", "#D55E00")
KIND_COLORS = dict(zip(KINDS, ("#0072B2", "#56B4E9", "#009E73", "#E69F00", "#D55E00", "#CC79A7", "#BBBBBB"),
                       strict=True))
PHASE_SHADES = ("#FFFFFF", "#F0F0F0", "#FFFFFF")
LINES = ("-", "--", ":", "-.")


def shard_map(facts: dict, names: list[str] | None = None) -> Figure:
    """Parameters as bars as long as their bytes, each cut into the rows that a process holds, with its number.

    Args:
        facts: of `look_at_step`.  names: parameters to draw; default all matrices.

    Raises:
        ValueError: a name that is no parameter.
    """
    found = {p["name"]: p for p in facts["parameters"]}
    unknown = [name for name in names or [] if name not in found]
    if unknown:
        raise ValueError(f"there is no parameter {', '.join(unknown)}; there are {', '.join(found)}.")
    chosen = [found[n] for n in names] if names else [p for p in found.values() if len(p["shape"]) > 1]
    longest = max(p["bytes"] for p in chosen) / 1e3
    figure, axis = plt.subplots(figsize=(8.0, 0.8 + 0.3 * len(chosen)))
    for row, p in enumerate(chosen):
        left = 0.0
        for rank, (size, (first, last)) in enumerate(zip(p["held"], p["rows"], strict=True)):
            color, width = PROCESS_COLORS[rank % len(PROCESS_COLORS)], size / 1e3
            axis.barh(row, width, left=left, color=color, edgecolor="white", height=0.85)
            text = f"{first}-{last - 1}" if width > 0.11 * longest else str(rank) if width > 0.02 * longest else ""
            axis.text(left + width / 2, row, text, ha="center", va="center", fontsize=8,
                      color="white" if color in DARK else "black")
            left += width
    axis.set(yticks=range(len(chosen)), xlabel="kB")
    axis.set_yticklabels([f"{p['name']}  {'x'.join(map(str, p['shape']))}" for p in chosen], fontsize=8)
    axis.set_ylim(len(chosen) - 0.4, -0.6)
    axis.grid(axis="y", visible=False)
    handles = [plt.Rectangle((0, 0), 1, 1, color=PROCESS_COLORS[rank % len(PROCESS_COLORS)])
               for rank in range(facts["processes"])]
    figure.legend(handles, [f"process {rank}" for rank in range(facts["processes"])], loc="outside upper center",
                  ncols=min(4, len(handles)), fontsize=10)
    return figure


def shard_facts(shapes: dict[str, tuple[int, ...]], devices: int, rule: Callable) -> dict:
    """What `shard_map` draws, for float32 tensors of these shapes that are cut by any rule.

    Args:
        rule: rows and devices -> (first, last + 1) for each device.
    """
    parameters = []
    for name, shape in shapes.items():
        row, rows = 4 * math.prod(shape[1:]), rule(shape[0], devices)
        parameters.append({"name": name, "shape": list(shape), "bytes": row * shape[0], "rows": rows,
                           "held": [row * (end - first) for first, end in rows]})
    return {"processes": devices, "parameters": parameters}


def share_curve(held: dict[int, int]) -> Figure:
    """Bytes of one device against the number of devices, both logarithmic; dashed: if everything divided evenly.

    Args:
        held: number of devices -> bytes of the device that holds most; with an entry for one device.
    """
    figure, axis = plt.subplots(figsize=(8.0, 3.4))
    axis.plot(held.keys(), [held[1] / n / 1e6 for n in held], "--", color="black", label="whole / devices")
    axis.plot(held.keys(), [size / 1e6 for size in held.values()], "o-", color=PROCESS_COLORS[0], label="one device")
    axis.set(xlabel="devices", ylabel="MB", xscale="log", yscale="log")
    axis.set_xticks(list(held), map(str, held))
    axis.minorticks_off()
    axis.legend()
    return figure


def memory_panels(steps: dict[str, dict]) -> Figure:
    """What one process keeps in memory during a step, operation by operation, stacked by kind; one panel each.

    Args:
        steps: title -> facts of `look_at_step`.
    """
    figure, axes = plt.subplots(1, len(steps), figsize=(4.6 * len(steps), 3.8), sharey=True, squeeze=False)
    for axis, (title, facts) in zip(axes[0], steps.items(), strict=True):
        kinds = [np.array(facts["bytes"][kind]) / 1e6 for kind in KINDS]
        axis.stackplot(range(len(kinds[0])), kinds, colors=list(KIND_COLORS.values()), labels=KINDS, step="post")
        _phases(axis, facts["phases"])
        axis.set(title=title, xlabel="operations of the step")
        axis.margins(x=0)
    axes[0, 0].set(ylabel="MB of one process", ylim=(0, 1.08 * axes[0, 0].get_ylim()[1]))
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles[::-1], labels[::-1], loc="outside right upper", fontsize=10)
    return figure


def gather_chart(facts: dict) -> Figure:
    """When which unit was whole in one process (bars), and when its gradients had been added up (diamonds)."""
    units = facts["units"]
    figure, axis = plt.subplots(figsize=(8.0, 1.1 + 0.34 * len(units)))
    for row, unit in enumerate(units):
        spans = [(first, last - first) for first, last in unit["gathered"]]
        axis.broken_barh(spans, (row - 0.35, 0.7), color=KIND_COLORS["gathered"])
        axis.plot(unit["reduced"], row, "D", color="black", markersize=6)
    _phases(axis, facts["phases"])
    axis.set(yticks=range(len(units)), xlabel="operations of the step", xlim=(0, facts["phases"]["update"][1]))
    axis.set_yticklabels([f"{u['name']}  {u['bytes'] / 1e3:.3g} kB" for u in units], fontsize=10)
    axis.invert_yaxis()
    axis.grid(axis="y", visible=False)
    return figure


def _phases(axis, phases: dict[str, list[int]]) -> None:
    """Names above, and a shade behind every second one."""
    for shade, (name, (first, last)) in zip(PHASE_SHADES, phases.items(), strict=True):
        axis.axvspan(first, last, color=shade, zorder=-2)
        axis.axvline(first, color="black", linewidth=0.8, linestyle=":")
        axis.text((first + last) / 2, 0.99, name, transform=axis.get_xaxis_transform(), ha="center", va="top",
                  fontsize=9, rotation=90 if last - first < 0.15 * phases["update"][1] else 0)


def plan_bars(plans: dict[str, Plan], memory: float | None = None) -> Figure:
    """What the planner says that one device holds, stacked by kind; one bar a plan.

    Args:
        plans: title -> plan.  memory: bytes of a device, drawn as a line at the share that may be used.
    """
    figure, axis = plt.subplots(figsize=(8.0, 1.3 + 0.5 * len(plans)))
    for row, found in enumerate(plans.values()):
        left = 0.0
        for kind, size in describe(found).items():
            if kind != "total":
                axis.barh(row, size / 1e9, left=left, color=KIND_COLORS[kind], label=kind if row == 0 else None)
                left += size / 1e9
        axis.text(left, row, f" {left:.1f} GB", va="center")
    if memory is not None:
        axis.axvline(USABLE * memory / 1e9, color="black", linestyle="--")
        axis.text(USABLE * memory / 1e9, -0.62, f"{USABLE:.0%} of {memory / 1e9:.0f} GB", ha="center", va="bottom",
                  fontsize=10)
    axis.set(yticks=range(len(plans)), yticklabels=list(plans), xlabel="GB of one device")
    axis.invert_yaxis()
    axis.grid(axis="y", visible=False)
    axis.set_xlim(right=axis.get_xlim()[1] * 1.12)
    figure.legend(loc="outside upper center", ncols=6, fontsize=10)
    return figure


def fit_chart(needs: dict[int, list[tuple[str, int, float]]], devices: dict[str, Device]) -> Figure:
    """Bytes that a device needs against parameters, both logarithmic; a line for each number of devices.

    Args:
        needs: number of devices -> (size, parameters, bytes of one device), from small to large.
        devices: name -> a kind of device, drawn as the height of what may be used of its memory.
    """
    figure, axis = plt.subplots(figsize=(8.0, 4.4))
    for line, (count, points) in zip(LINES, needs.items(), strict=False):
        axis.plot([n for _, n, _ in points], [need / 1e9 for *_, need in points], f"ko{line}",
                  label=f"{count} device{'s' if count > 1 else ''}")
    first = next(iter(needs.values()))
    for name, n, need in first:
        axis.annotate(name, (n, need / 1e9), xytext=(-4, 5), textcoords="offset points", fontsize=9, ha="right")
    for color, (name, device) in zip(PROCESS_COLORS, devices.items(), strict=False):
        axis.axhline(USABLE * device.memory / 1e9, color=color, linewidth=1.5)
        axis.text(1.0, USABLE * device.memory / 1e9, f" {name}, {device.memory / 1e9:.0f} GB", va="center",
                  fontsize=9, transform=axis.get_yaxis_transform())
    axis.set(xlabel="parameters", ylabel="GB of one device", xscale="log", yscale="log")
    axis.margins(x=0.12)
    axis.legend(loc="upper left")
    read_log(axis)
    return figure


def loss_overlay(curves: dict[str, tuple[list[int], list[float]]]) -> Figure:
    """Losses that should be equal, over each other, and below how far each is from the first, relatively.

    Args:
        curves: title -> (steps, losses); the first has every step of the others.
    """
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(8.0, 4.6), sharex=True, height_ratios=(2, 1))
    (first, *others), truth = curves, dict(zip(*next(iter(curves.values())), strict=True))
    top.plot(truth.keys(), truth.values(), "-", color="#BBBBBB", linewidth=6, label=first)
    for color, line, title in zip(PROCESS_COLORS, LINES, others, strict=False):
        steps, losses = curves[title]
        top.plot(steps, losses, line, color=color, label=title)
        away = [abs(loss / truth[step] - 1) for step, loss in zip(steps, losses, strict=True)]
        bottom.plot(steps, np.maximum(away, 1e-9), line, color=color, marker=".")
    bottom.axhline(np.finfo(np.float32).eps, color="black", linestyle=":", linewidth=1)
    bottom.text(1.0, np.finfo(np.float32).eps, " float32's\n last digit", transform=bottom.get_yaxis_transform(),
                va="center", fontsize=9)
    bottom.set(xlabel="step", ylabel="difference", yscale="log", ylim=(5e-10, 1e-3))
    top.set_ylabel("loss")
    top.legend()
    return figure


def furthest(curves: dict[str, tuple[list[int], list[float]]]) -> dict[str, float]:
    """The largest relative difference of each curve from the first, for the same picture in words."""
    (_, *others), truth = curves, dict(zip(*next(iter(curves.values())), strict=True))
    return {title: max(abs(loss / truth[step] - 1) for step, loss in zip(*curves[title], strict=True))
            for title in others}
