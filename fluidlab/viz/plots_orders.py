"""What notebook 03 draws: who may look at whom, what leaks where, how many tokens are hidden, how many each step fills.

Nothing here knows how a model is built. `influence` treats it as a black box: change one token, see which outputs
change. That is the only proof of an attention rule that does not trust the code that was meant to implement it.
"""

import math

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from fluidlab.viz.show import LINE_STYLES, VARIANT_COLORS

ORDER_COLORS = {"raster": VARIANT_COLORS["raster-softmax"], "random": VARIANT_COLORS["random-diffusion"]}
HIDDEN = "#dddddd"


def may_look(causal: bool, N: int) -> Tensor:
    """(N, N) bool: row i may look at column j. Causal: j <= i; bidirectional: everywhere."""
    everywhere = torch.ones(N, N, dtype=torch.bool)
    return everywhere.tril() if causal else everywhere


def _matrix(axis: Axes, values: np.ndarray, **options) -> None:
    """Squares with thin white lines between them, row 0 on top."""
    N = len(values)
    axis.imshow(values, **options)
    axis.set(xticks=range(0, N, 5), yticks=range(0, N, 5))
    axis.set_xticks(np.arange(-0.5, N), minor=True)
    axis.set_yticks(np.arange(-0.5, N), minor=True)
    axis.grid(False)
    axis.grid(which="minor", color="white", linewidth=1, alpha=1)
    axis.tick_params(which="minor", length=0)


def rules_figure(rules: dict[str, Tensor]) -> Figure:
    """Attention rules as matrices, side by side: filled = row i may look at column j.

    Args:
        rules: title -> (N, N) bool; a title that begins with the name of an order takes that order's colour.
    """
    figure, axes = plt.subplots(1, len(rules), figsize=(4.0 * len(rules), 4.2), squeeze=False)
    for axis, (title, allowed) in zip(axes[0], rules.items(), strict=True):
        color = ORDER_COLORS.get(title.split()[0], "#555555")
        _matrix(axis, allowed.float().numpy(), cmap=plt.matplotlib.colors.ListedColormap([HIDDEN, color]), vmin=0,
                vmax=1)
        axis.set(title=title, xlabel="position j that is looked at", ylabel="position i that looks")
    return figure


def shift_figure(tokens: Tensor, inputs: Tensor) -> Figure:
    """Tokens (N,) that are numbers, and what goes in at each position (N,), as two rows of bars side by side."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 2.6), sharey=True)
    for axis, title, values in ((axes[0], "tokens", tokens), (axes[1], "what goes in", inputs)):
        colors = [ORDER_COLORS["raster"] if value > 0 else "#D55E00" for value in values]
        axis.bar(range(len(values)), values.numpy(), color=colors)
        axis.axhline(0, color="#555555", linewidth=0.8)
        axis.set(title=title, xlabel="position")
    return figure


def sight_figure(rules: dict[str, Tensor], positions: list[int], grid: tuple[int, int]) -> Figure:
    """The same rules on the image: one small grid for each looking position, the hidden tokens hatched.

    Args:
        rules: title -> (N, N) bool.  positions: that look, outlined in black.  grid: (h, w), h w = N.
    """
    figure, axes = plt.subplots(len(rules), len(positions), squeeze=False,
                                figsize=(1.75 * len(positions), 1.9 * len(rules) + 0.2))
    for row, (title, allowed) in zip(axes, rules.items(), strict=True):
        color = ORDER_COLORS.get(title.split()[0], "#555555")
        for axis, position in zip(row, positions, strict=True):
            _sight(axis, allowed[position], position, grid, color)
            axis.set_title(f"position {position}", fontsize=11)
        row[0].set_ylabel(title, fontsize=12)
    return figure


def _sight(axis: Axes, seen: Tensor, position: int, grid: tuple[int, int], color: str) -> None:
    h, w = grid
    for n in range(h * w):
        y, x = divmod(n, w)
        axis.add_patch(Rectangle((x, y), 1, 1, facecolor=color if seen[n] else HIDDEN, edgecolor="white",
                                 hatch=None if seen[n] else "///"))
    y, x = divmod(position, w)
    axis.add_patch(Rectangle((x + 0.06, y + 0.06), 0.88, 0.88, fill=False, edgecolor="black", linewidth=3))
    axis.set(xlim=(0, w), ylim=(h, 0), xticks=[], yticks=[], aspect="equal")
    axis.grid(False)


@torch.no_grad()
def influence(model, tokens: Tensor, features: Tensor, mask: Tensor, is_target: Tensor, other: Tensor) -> Tensor:
    """Change one token at a time and measure how far every output moves.

    Args:
        model: a `Fluid`.  tokens: (1, N) or (1, N, C).  features, mask: of one text.  is_target: (1, N) bool, hidden
            from the model; a causal order ignores it.  other: like tokens; token j is replaced by other's token j.

    Returns:
        (N, N): row i, column j is |z_i' - z_i| / |z_i| after changing token j. Exactly 0 = nothing gets through.
    """
    text = model.aligner(features, mask)                                              # (1, S+1, D), (1, S+1)
    z = model.hidden(tokens, is_target, *text)[0]                                     # (N, D)
    moved = []
    for j in range(tokens.shape[1]):                # one image at a time: then "nothing" is 0 to the last bit
        changed = tokens.clone()
        changed[:, j] = other[:, j]
        moved.append((model.hidden(changed, is_target, *text)[0] - z).norm(dim=-1) / z.norm(dim=-1))     # (N,)
    return torch.stack(moved, dim=1)


def influence_figure(matrices: dict[str, Tensor], hidden: dict[str, Tensor] | None = None) -> Figure:
    """`influence` as matrices on a log scale; exact zeros stay white.

    Args:
        matrices: title -> (N, N).  hidden: title -> (N,) bool; these columns get an x above them: was hidden.
    """
    figure, axes = plt.subplots(1, len(matrices), figsize=(4.3 * len(matrices) + 0.7, 4.4), squeeze=False)
    for axis, (title, matrix) in zip(axes[0], matrices.items(), strict=True):
        values = np.where(matrix.numpy() == 0, np.nan, matrix.numpy())
        norm = plt.matplotlib.colors.LogNorm(vmin=1e-3, vmax=1)
        _matrix(axis, values, cmap="viridis_r", norm=norm)
        axis.set_title(title, pad=16)
        axis.set(xlabel="token j that was changed", ylabel="output z at position i")
        for j in torch.nonzero(hidden[title]).flatten().tolist() if hidden and title in hidden else []:
            axis.text(j, -0.6, "x", ha="center", va="bottom", fontsize=10, color="#D55E00", clip_on=False)
    figure.colorbar(axes[0, -1].images[0], ax=list(axes[0]), shrink=0.8, label="relative change of z (white: 0)")
    return figure


def change_map_figure(rows: dict[str, Tensor], changed: int, grid: tuple[int, int],
                      hidden: dict[str, Tensor] | None = None) -> Figure:
    """One changed token, seen on the image grid: which outputs moved.

    Args:
        rows: title -> (N,), a column of `influence`.  changed: the position j.  hidden: title -> (N,) bool, hatched.
    """
    h, w = grid
    figure, axes = plt.subplots(1, len(rows), figsize=(3.3 * len(rows) + 0.8, 3.3), squeeze=False)
    for axis, (title, moved) in zip(axes[0], rows.items(), strict=True):
        values = np.where(moved.numpy() == 0, np.nan, moved.numpy()).reshape(h, w)
        axis.imshow(values, cmap="viridis_r", norm=plt.matplotlib.colors.LogNorm(vmin=1e-3, vmax=1))
        for n in range(h * w):
            y, x = divmod(n, w)
            is_hidden = bool(hidden[title][n]) if hidden and title in hidden else False
            axis.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, fill=False, edgecolor="#999999", linewidth=0.8,
                                     hatch="///" if is_hidden else None))
        y, x = divmod(changed, w)
        axis.add_patch(Rectangle((x - 0.45, y - 0.45), 0.9, 0.9, fill=False, edgecolor="#D55E00", linewidth=3))
        axis.set(title=title, xticks=[], yticks=[], xlim=(-0.5, w - 0.5), ylim=(h - 0.5, -0.5))
        axis.grid(False)
    figure.colorbar(axes[0, -1].images[0], ax=list(axes[0]), shrink=0.8, label="relative change of z")
    return figure


def mask_ratio_figure(ratios: Tensor) -> Figure:
    """Many drawn mask ratios, the density that they follow and their mean.

    Args:
        ratios: (M,) from 0 to 1.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6))
    u = np.linspace(0, 1, 200)
    left.plot(u, np.cos(np.pi * u / 2), color=ORDER_COLORS["random"])
    left.set(title="from a uniform number to a ratio", xlabel="u", ylabel=r"ratio  $\cos(\pi u / 2)$")
    right.hist(ratios.numpy(), bins=np.linspace(0, 1, 33), density=True, color=ORDER_COLORS["random"], alpha=0.5,
               label=f"{len(ratios)} draws")
    r = np.linspace(0, 0.9985, 400)
    right.plot(r, 2 / (np.pi * np.sqrt(1 - r ** 2)), color="black", label=r"$2 / (\pi \sqrt{1 - r^2})$")
    right.axvline(2 / math.pi, color="#D55E00", linestyle="--", label=r"mean $2/\pi$")
    right.set(title="share of hidden tokens", xlabel="ratio r", ylabel="density", ylim=(0, 6))
    right.legend(loc="upper left")
    return figure


def schedule_figure(schedules: list[tuple[str, list[int]]]) -> Figure:
    """How many tokens each step fills (bars), and how many are still unknown after it (line, right axis).

    Args:
        schedules: (title, sizes of the chunks) of each panel.
    """
    figure, axes = plt.subplots(1, len(schedules), figsize=(4.1 * len(schedules), 3.7), squeeze=False)
    for axis, (title, sizes) in zip(axes[0], schedules, strict=True):
        steps, left = np.arange(1, len(sizes) + 1), sum(sizes) - np.cumsum(sizes)
        bars = axis.bar(steps, sizes, color=ORDER_COLORS["random"], width=0.85)
        if len(sizes) <= 16:
            axis.bar_label(bars, fontsize=10)
        axis.set(title=title, xlabel="step", ylabel="tokens filled", ylim=(0, max(sizes) * 1.25))
        unknown = axis.twinx()
        unknown.plot(np.r_[0, steps], np.r_[sum(sizes), left], color="black", linestyle=":", linewidth=1.6)
        unknown.set(ylabel="unknown (dotted)", ylim=(0, sum(sizes) * 1.05))
        for scale in (axis.xaxis, axis.yaxis, unknown.yaxis):
            scale.set_major_locator(MaxNLocator(6, integer=True))
        unknown.grid(False)
        unknown.spines["right"].set_visible(True)
    return figure


def orders_figure(permutations: list[tuple[str, Tensor]], grid: tuple[int, int]) -> Figure:
    """In which step each position is filled, as numbers on the image grid, dark = early.

    Args:
        permutations: (title, (N,) positions in the order in which they are filled).
    """
    h, w = grid
    figure, axes = plt.subplots(1, len(permutations), figsize=(2.5 * len(permutations), 2.8), squeeze=False)
    for axis, (title, permutation) in zip(axes[0], permutations, strict=True):
        place = permutation.argsort().view(h, w) + 1                                         # (h, w) from 1
        axis.imshow(place.numpy(), cmap="cividis")
        for y in range(h):
            for x in range(w):
                value = int(place[y, x])
                axis.text(x, y, value, ha="center", va="center", color="white" if value <= h * w // 2 else "black")
        axis.set(title=title, xticks=[], yticks=[])
        axis.grid(False)
    return figure



def weights_figure(matrices: dict[str, Tensor]) -> Figure:
    """Attention weights of real models, one colour scale; exact zeros stay white.

    Args:
        matrices: title -> (N, N), rows sum to 1.
    """
    figure, axes = plt.subplots(1, len(matrices), figsize=(4.3 * len(matrices) + 0.7, 4.2), squeeze=False)
    top = max(float(matrix.max()) for matrix in matrices.values())
    for axis, (title, matrix) in zip(axes[0], matrices.items(), strict=True):
        values = np.where(matrix.numpy() == 0, np.nan, matrix.numpy())
        _matrix(axis, values, cmap="viridis_r", norm=plt.matplotlib.colors.PowerNorm(0.5, vmin=0, vmax=top))
        axis.set(title=title, xlabel="position j that is looked at", ylabel="position i that looks")
    figure.colorbar(axes[0, -1].images[0], ax=list(axes[0]), shrink=0.8, label="attention (white: exactly 0)")
    return figure


SIDES = {"above": (-1, 0), "left": (0, -1), "right": (0, 1), "below": (1, 0)}


def known_neighbours(steps: Tensor, grid: tuple[int, int]) -> dict[str, float]:
    """On which sides a token's neighbour is already known when the token is drawn.

    Args:
        steps: (M, N), the step in which each position of M images is filled.  grid: (h, w).

    Returns:
        side -> share of the tokens that have a neighbour there, and have it known in an earlier step.
    """
    (h, w), steps = grid, steps.view(-1, *grid)                                              # (M, h, w)
    shares = {}
    for side, (dy, dx) in SIDES.items():
        here = steps[:, max(0, -dy):h - max(0, dy), max(0, -dx):w - max(0, dx)]
        there = steps[:, max(0, dy):h + min(0, dy), max(0, dx):w + min(0, dx)]
        shares[side] = (there < here).float().mean().item()
    return shares


def neighbours_figure(rows: dict[str, dict[str, float]]) -> Figure:
    """Bars of `known_neighbours`, one group a side.

    Args:
        rows: title -> side -> share from 0 to 1; a title that begins with the name of an order takes its colour.
    """
    figure, axis = plt.subplots(figsize=(8, 3.4))
    for k, (title, shares) in enumerate(rows.items()):
        at = np.arange(len(SIDES)) + (k - (len(rows) - 1) / 2) * 0.8 / len(rows)
        bars = axis.bar(at, [100 * shares[side] for side in SIDES], width=0.8 / len(rows) - 0.02, label=title,
                        color=ORDER_COLORS[title.split()[0].strip(",")], alpha=1.0 if k < 2 else 0.5)
        axis.bar_label(bars, fmt="%.0f", fontsize=10)
    axis.set(xticks=range(len(SIDES)), xticklabels=list(SIDES), ylabel="neighbour known [%]", ylim=(0, 125),
             yticks=range(0, 101, 25), xlabel="side of the neighbour")
    axis.legend(ncols=len(rows), loc="upper center")
    return figure


def context_figure(losses: dict[str, list[float]]) -> Figure:
    """Loss against the number of tokens that were known.

    Args:
        losses: title -> loss with 0, 1, 2, ... known tokens; a title that begins with the name of an order takes its
            colour, the first of an order its line, further ones dots.
    """
    figure, axis = plt.subplots(figsize=(8, 3.8))
    lines = dict(LINE_STYLES)
    for title, values in losses.items():
        order = title.split()[0].strip(",")
        axis.plot(range(len(values)), values, color=ORDER_COLORS[order], linestyle=lines[order], marker="o",
                  label=title)
        lines[order] = ":"
    axis.set(xlabel="known tokens", ylabel="loss of a hidden token")
    axis.legend()
    return figure
