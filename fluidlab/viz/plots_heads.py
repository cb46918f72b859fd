"""What notebook 04 draws: tokens of two numbers, whose whole distribution can be looked at, and the walks of a head.

The toy distributions have zero mean and unit variance per channel, as the tokens of a VAE have after normalisation, so
that a head meets them under the conditions it was built for. Distances are in standard deviations of a token.
"""

import math
from collections.abc import Callable

import ipywidgets as widgets
import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from torch import Tensor

from fluidlab.viz.plots import smooth
from fluidlab.viz.show import figure_html
from fluidlab.viz.widgets import Explorer, NumberSlider, choice

SHAPES = ("moons", "spiral", "pinwheel")
HEAD_COLORS = {"data": "#555555", "softmax": "#0072B2", "diffusion": "#009E73", "flow": "#D55E00"}
LIMIT = 3.0                                                       # half the side of a panel, in standard deviations


def toy_tokens(condition: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Draw one two-dimensional token for each condition.

    Args:
        condition: (B,) long, indices into `SHAPES`.
        generator: of a CPU; the same generator gives the same tokens.

    Returns:
        (B, 2) float32; over many draws of one condition mean 0 and variance 1 in each channel, within 0.1.

    Raises:
        ValueError: a condition that is no index into `SHAPES`.
    """
    if condition.numel() and not 0 <= int(condition.min()) <= int(condition.max()) < len(SHAPES):
        raise ValueError(f"condition must lie in 0..{len(SHAPES) - 1}, got {int(condition.min())} to "
                         f"{int(condition.max())}.")
    B = len(condition)
    u = torch.rand(B, generator=generator)                                           # (B,) place along the shape
    arm = torch.randint(60, (B,), generator=generator)                               # (B,) divides by 2, 3, 4 and 5
    noise = torch.randn(B, 2, generator=generator)                                   # (B, 2)
    drawn = torch.stack([_moons(u, arm, noise), _spiral(u, arm, noise), _pinwheel(u, arm, noise)])   # (3, B, 2)
    return drawn[condition, torch.arange(B)]                                         # (B, 2)


def _moons(u: Tensor, arm: Tensor, noise: Tensor) -> Tensor:
    angle, lower = math.pi * u, (arm % 2).float()                                    # (B,), (B,) 1 = the lower moon
    x = torch.where(lower > 0, 1 - angle.cos(), angle.cos())
    y = torch.where(lower > 0, 0.5 - angle.sin(), angle.sin())
    points = torch.stack([x, y], dim=1) + 0.06 * noise                               # (B, 2)
    return (points - torch.tensor([0.5, 0.25])) / torch.tensor([0.87, 0.50])


def _spiral(u: Tensor, arm: Tensor, noise: Tensor) -> Tensor:
    turn = u.sqrt()                                                                  # evenly dense along the arm
    angle, radius = 3.5 * math.pi * turn, 0.15 + 1.95 * turn
    points = torch.stack([radius * angle.cos(), radius * angle.sin()], dim=1)        # (B, 2)
    return (points + 0.06 * noise - torch.tensor([-0.39, -0.06])) / torch.tensor([0.99, 1.09])


def _pinwheel(u: Tensor, arm: Tensor, noise: Tensor) -> Tensor:
    radius = 1.35 + 0.42 * noise[:, 0]                                               # four blades, bent by the radius
    angle = 2 * math.pi * (arm % 4) / 4 + 0.12 * noise[:, 1] + 0.9 * radius
    return radius[:, None] * torch.stack([angle.cos(), angle.sin()], dim=1)


def kmeans(points: Tensor, num_codes: int, generator: torch.Generator | None = None, iterations: int = 25) -> Tensor:
    """A codebook by Lloyd's algorithm: codes (V, C) that minimise the squared distance to `points` (B, C).

    A code that no point chooses is put onto a random point, as a quantizer restarts its dead codes.

    Raises:
        ValueError: more codes than points, or none.
    """
    if not 1 <= num_codes <= len(points):
        raise ValueError(f"num_codes must be from 1 to the number of points {len(points)}, got {num_codes}.")
    codes = points[torch.randperm(len(points), generator=generator)[:num_codes]].clone()      # (V, C)
    for _ in range(iterations):
        chosen = nearest(points, codes)                                                       # (B,)
        counts = torch.bincount(chosen, minlength=num_codes)                                  # (V,)
        sums = torch.zeros_like(codes).index_add_(0, chosen, points)                          # (V, C)
        codes = sums / counts.clamp(min=1)[:, None]
        dead = counts == 0
        if dead.any():
            codes[dead] = points[torch.randint(len(points), (int(dead.sum()),), generator=generator)]
    return codes


def nearest(points: Tensor, codes: Tensor) -> Tensor:
    """The index of the nearest code: points (B, C), codes (V, C) -> (B,) long."""
    scores = codes.square().sum(1) - 2 * points @ codes.T                                     # (B, V) distance^2 - const
    return scores.argmin(dim=1)


def chamfer(drawn: Tensor, data: Tensor) -> float:
    """How far two clouds (B, C) and (M, C) are apart, as a length in the unit of the tokens.

    The mean distance from a drawn token to the nearest of the data (large when tokens lie where no data is) and from
    the data to the nearest drawn token (large when a part of the data is never drawn), averaged. Two samples of one
    distribution are not at 0: compare with the distance between two samples of the data.

    Raises:
        ValueError: clouds of different dimension.
    """
    if drawn.ndim != 2 or data.ndim != 2 or drawn.shape[1] != data.shape[1]:
        raise ValueError(f"both clouds must be (B, C) with one C, got {tuple(drawn.shape)} and {tuple(data.shape)}.")
    distance = torch.cdist(drawn, data)                                                       # (B, M)
    return float(distance.min(dim=1).values.mean() + distance.min(dim=0).values.mean()) / 2


def square_panel(ax, points: Tensor, title: str, color: str = HEAD_COLORS["data"], size: float = 2.0) -> None:
    """Scatter points (B, 2) into a square panel of side 2 x `LIMIT` without ticks."""
    ax.scatter(points[:, 0], points[:, 1], s=size, color=color, linewidths=0, alpha=0.7)
    ax.set(xlim=(-LIMIT, LIMIT), ylim=(-LIMIT, LIMIT), xticks=[], yticks=[], title=title, aspect="equal")


def clouds(rows: dict[str, list[Tensor]], titles, size: float = 2.0) -> Figure:
    """A grid of clouds.

    Args:
        rows: name of the row -> clouds (B, 2), one for each column; a name whose first word is a key of `HEAD_COLORS`
            has that colour.
        titles: of the columns.
    """
    figure, axes = plt.subplots(len(rows), len(titles), figsize=(2.3 * len(titles) + 0.5, 2.25 * len(rows) + 0.2),
                                squeeze=False)
    for axes_row, (name, points) in zip(axes, rows.items(), strict=True):
        color = HEAD_COLORS.get(name.split()[0], HEAD_COLORS["data"])
        for ax, cloud, title in zip(axes_row, points, titles, strict=True):
            square_panel(ax, cloud, title if axes_row is axes[0] else "", color, size)
        axes_row[0].set_ylabel(name)
    return figure


def walks(paths: dict[str, Tensor], ends: dict[str, Tensor]) -> Figure:
    """Trajectories from noise (open circle) to token (dot).

    Args:
        paths: name -> (T, K, 2), K walks of T points.  ends: name -> (B, 2), many end points, drawn pale behind.
    """
    figure, axes = plt.subplots(1, len(paths), figsize=(4.0 * len(paths), 4.1), squeeze=False)
    for ax, (name, path) in zip(axes[0], paths.items(), strict=True):
        square_panel(ax, ends[name], name, "#BBBBBB", 3.0)
        color = HEAD_COLORS.get(name.split()[0], HEAD_COLORS["data"])
        ax.plot(path[..., 0], path[..., 1], color=color, linewidth=1.0, alpha=0.8)
        ax.scatter(*path[0].T, s=28, facecolors="white", edgecolors=color, zorder=3)
        ax.scatter(*path[-1].T, s=22, color="black", zorder=4)
        ax.set(xlim=(-3.6, 3.6), ylim=(-3.6, 3.6))
    return figure


def straightness(path: Tensor) -> float:
    """Beeline over length of the walk, mean over walks: (T, K, 2) -> 1 for straight lines, near 0 for detours."""
    beeline = (path[-1] - path[0]).norm(dim=-1)                                               # (K,)
    length = (path[1:] - path[:-1]).norm(dim=-1).sum(0)                                       # (K,)
    return float((beeline / length).mean())


class LiveCurve:
    """A loss curve that is redrawn while training runs, in one `ipywidgets.HTML`.

    Args:
        name: a head, for the colour and the title.  first: the loss that is known before training, drawn as a line.
        steps: the length of the horizontal axis.  every: steps between two drawings.
    """

    def __init__(self, name: str, first: float, steps: int, every: int):
        self.name, self.first, self.steps, self.every = name, first, steps, every
        self.losses: list[float] = []
        self.widget = widgets.HTML()
        self.draw()

    def add(self, loss: float) -> None:
        """Take the loss of one step; redraw at every `every`-th and at the last one."""
        self.losses.append(loss)
        if len(self.losses) % self.every == 0 or len(self.losses) == self.steps:
            self.draw()

    def draw(self) -> None:
        figure, ax = plt.subplots(figsize=(7.0, 2.6))
        ax.axhline(self.first, color="black", linestyle=":", linewidth=1.2, label=f"before training: {self.first:.2f}")
        ax.plot(range(1, len(self.losses) + 1), self.losses, color=HEAD_COLORS[self.name], alpha=0.3, linewidth=1)
        mean = smooth(self.losses, 25)
        ax.plot(range(1, len(mean) + 1), mean, color=HEAD_COLORS[self.name], label="mean of 25 steps")
        ax.set(xlim=(0, self.steps), ylim=(0, 1.15 * max([self.first, *self.losses])), xlabel="step", ylabel="loss",
               title=f"{self.name} head")
        ax.legend(loc="upper right")
        last = f"after {len(mean)} steps {mean[-1]:.3f}" if len(mean) else "no step yet"
        self.widget.value = figure_html(figure, alt=f"Loss of the {self.name} head: before training {self.first:.2f}, "
                                                    f"{last}.")


def schedule(alphas: Tensor) -> Figure:
    """A noise schedule in two panels: shares of signal and noise, and their ratio on a logarithmic axis.

    Args:
        alphas: (T,) alpha-bar, the share of the signal's variance that is left at each time.
    """
    figure, (shares, ratio) = plt.subplots(1, 2, figsize=(8.0, 3.2))
    shares.plot(alphas, color=HEAD_COLORS["diffusion"], label="signal")
    shares.plot(1 - alphas, color="black", linestyle="--", label="noise")
    shares.set(xlabel="time t", ylabel="share of the variance", title="What a noisy token is made of")
    shares.legend()
    ratio.plot(alphas / (1 - alphas), color=HEAD_COLORS["diffusion"])
    ratio.axhline(1, color="black", linewidth=1)
    ratio.set(xlabel="time t", yscale="log", title="Signal to noise ratio")
    return figure


def temperature_explorer(draw_tokens: Callable[[str, str, float], Tensor], data: dict[str, Tensor]) -> Explorer:
    """One dial for the temperature of all heads, one for the shape; each head's tokens over the data.

    Args:
        draw_tokens: (head, shape, temperature) -> (B, 2), repeatable.  data: shape -> (B, 2).

    Returns:
        An `Explorer` with its first picture drawn; `display(explorer.widget)`.
    """
    def draw(temperature: float, shape: str) -> str:
        figure, axes = plt.subplots(1, 3, figsize=(8.0, 3.0))
        gaps = []
        for ax, head in zip(axes, ("softmax", "diffusion", "flow"), strict=True):
            tokens = draw_tokens(head, shape, temperature)
            gaps.append(f"{head} {chamfer(tokens, data[shape]):.3f}")
            ax.scatter(data[shape][:, 0], data[shape][:, 1], s=2, color="#CCCCCC", linewidths=0)
            square_panel(ax, tokens, head, HEAD_COLORS[head], 4.0)
        return figure_html(figure, alt=f"Tokens of three heads for the shape {shape} at temperature {temperature:g}, "
                                       f"over the data in grey. Distance to the data: {', '.join(gaps)}.",
                           caption="Distance to the data: " + ", ".join(gaps))

    explorer = Explorer({"temperature": NumberSlider("temperature", 1.0, 0.0, 2.0, 0.05),
                         "shape": choice("shape", list(data))}, draw)
    explorer.refresh()
    return explorer
