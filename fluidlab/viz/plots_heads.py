"""What notebook 04 draws: clouds of two-dimensional tokens, walks from noise to token, schedules, live losses.

It trains nothing and samples nothing: clouds, paths and losses come in, figures for `show` come out. One colour per
head. Distances are in standard deviations of a token.
"""

from collections.abc import Callable

import ipywidgets as widgets
import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from torch import Tensor

from fluidlab.viz.plots import smooth
from fluidlab.viz.show import figure_html
from fluidlab.viz.toy_tokens import chamfer
from fluidlab.viz.widgets import Explorer, NumberSlider, choice

HEAD_COLORS = {"data": "#555555", "softmax": "#0072B2", "diffusion": "#009E73", "flow": "#D55E00"}
LIMIT = 3.0                                                       # half the side of a panel, in standard deviations


def square_panel(ax, points: Tensor, title: str, color: str = HEAD_COLORS["data"], size: float = 2.0) -> None:
    """Scatter points (B, 2) into a square panel of side 2 x `LIMIT` without ticks."""
    ax.scatter(points[:, 0], points[:, 1], s=size, color=color, linewidths=0, alpha=0.7)
    ax.set(xlim=(-LIMIT, LIMIT), ylim=(-LIMIT, LIMIT), xticks=[], yticks=[], title=title, aspect="equal")
    ax.spines[:].set(visible=True, color="#BBBBBB", linewidth=0.8)


def clouds(rows: dict[str, list[Tensor]], titles, size: float = 2.0) -> Figure:
    """A grid of clouds.

    Args:
        rows: name of the row -> clouds (B, 2), one for each column; a name whose first word is a key of `HEAD_COLORS`
            has that colour.
        titles: of the columns.
    """
    figure, axes = plt.subplots(len(rows), len(titles), figsize=(2.3 * len(titles) + 0.5, 2.25 * len(rows) + 0.2),
                                squeeze=False)
    for i, (axes_row, (name, points)) in enumerate(zip(axes, rows.items(), strict=True)):
        color = HEAD_COLORS.get(name.split()[0], HEAD_COLORS["data"])
        for ax, cloud, title in zip(axes_row, points, titles, strict=True):
            square_panel(ax, cloud, "" if i else title, color, size)
        axes_row[0].set_ylabel(name)
    return figure


def line_of_codes(probabilities: Tensor, u: list[float]) -> Figure:
    """Probabilities (V,) side by side on a line of length 1, and where the numbers u fall."""
    figure, ax = plt.subplots(figsize=(8.0, 1.9))
    ends = probabilities.cumsum(0).tolist()
    for code, (size, end) in enumerate(zip(probabilities.tolist(), ends, strict=True)):
        ax.barh(0, size, left=end - size, height=0.8, color=HEAD_COLORS["softmax"], alpha=0.75 if code % 2 else 0.45,
                edgecolor="white")
        ax.text(end - size / 2, 0, f"code {code}\n{size:.2f}", ha="center", va="center", fontsize=11)
    for number in u:
        ax.annotate(f"u = {number:g}", (number, 0.4), (number, 0.95), ha="center", arrowprops={"arrowstyle": "->"})
    ax.set(xlim=(0, 1), ylim=(-0.45, 1.25), yticks=[], xlabel="sum of the probabilities")
    ax.grid(False)
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
        name: a head, for the colour.  title: above the curve; None for the head's name.
        first: the loss that is known before training, drawn as a line.
        steps: the length of the horizontal axis.  every: steps between two drawings.
    """

    def __init__(self, name: str, first: float, steps: int, every: int, title: str | None = None):
        self.title = title or f"{name} head"
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
               title=self.title)
        ax.legend(loc="lower left", ncols=2)
        last = f"after {len(mean)} steps {mean[-1]:.3f}" if len(mean) else "no step yet"
        self.widget.value = figure_html(figure, alt=f"Loss of the {self.title}: before training {self.first:.2f}, "
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


def loss_by_time(losses: list[float]) -> Figure:
    """Bars of a diffusion head's loss over equal parts of the times 0 to 1000."""
    figure, ax = plt.subplots(figsize=(7.0, 3.0))
    width = 1000 / len(losses)
    ax.bar([(i + 0.5) * width for i in range(len(losses))], losses, width=0.9 * width, color=HEAD_COLORS["diffusion"])
    ax.set(xlabel="time t", ylabel="squared error on the noise", title="Loss of the trained diffusion head")
    return figure


def fork(x: Tensor, y: Tensor, curve: Tensor, answers: Tensor) -> tuple[Figure, float]:
    """Why squared error misleads, in two panels.

    Args:
        x, y: (B, 1) two right answers for each x.  curve: (M, 2) what a regressor says, points (x, answer).
        answers: (K,) the right answers for nearly one x; right panel, with the mean squared error of every guess.

    Returns:
        The figure, and the guess with the smallest mean squared error.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.0, 3.4))
    left.scatter(x, y, s=2, color="#999999", label="right answers")
    left.plot(curve[:, 0], curve[:, 1], color="#D55E00", label="trained with squared error")
    left.set(xlabel="x", ylabel="y", title="A fork", ylim=(-1.3, 1.7))
    left.legend(loc="upper left", fontsize=10)
    guesses = torch.linspace(-1.3, 1.3, 261)                                                  # (G,)
    error = (guesses[:, None] - answers).square().mean(dim=1)                                 # (G,)
    right.hist(answers.numpy(), bins=60, range=(-1.3, 1.3), density=True, color="#999999", label="right answers")
    right.plot(guesses, error, color="#D55E00", label="mean squared error of a guess")
    right.set(xlabel="guess for y where x is near 0.9", title="The best guess is no answer", ylim=(0, 4.8))
    right.legend(loc="upper center", fontsize=10)
    return figure, float(guesses[error.argmin()])


def curves(lines: dict[str, tuple], xlabel: str, ylabel: str, floor: float | None = None) -> tuple[Figure, str]:
    """Lines on logarithmic axes, told apart by colour, marker and dash.

    Args:
        lines: name -> (x, y), two lists.  floor: a dotted level, the distance between two samples of the data.

    Returns:
        The figure, and one sentence with the first and last point of each line, for alt text and caption.
    """
    figure, ax = plt.subplots(figsize=(7.0, 3.6))
    looks = (("#009E73", "o", "-"), ("#D55E00", "^", "--"), ("#D55E00", "v", "-"))
    for (name, (x, y)), (color, marker, dash) in zip(lines.items(), looks, strict=False):
        ax.plot(x, y, color=color, marker=marker, linestyle=dash, label=name)
    if floor is not None:
        ax.axhline(floor, color="black", linestyle=":", linewidth=1.2, label="two samples of the data")
    ax.set(xscale="log", yscale="log", xlabel=xlabel, ylabel=ylabel)
    ax.legend(fontsize=10)
    said = "; ".join(f"{name}: {y[0]:.3g} at {x[0]}, {y[-1]:.3g} at {x[-1]}" for name, (x, y) in lines.items())
    return figure, said


def token_statistics(latents: Tensor, codes: Tensor, codebook_size: int) -> tuple[Figure, str]:
    """How real tokens are distributed: four channels of a VAE beside a normal curve, and the codes of a VQ by rank.

    Args:
        latents: (B, C) continuous tokens, C at least 4.  codes: (B,) discrete tokens below `codebook_size`.

    Returns:
        The figure, and a sentence with kurtosis, share of codes that occur and entropy in nats.
    """
    share = torch.bincount(codes, minlength=codebook_size).sort(descending=True).values / len(codes)    # (V,)
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.0, 3.4))
    for channel in range(4):
        left.hist(latents[:, channel].numpy(), bins=80, range=(-4, 4), density=True, histtype="step", linewidth=1.4,
                  label=f"channel {channel}")
    grid = torch.linspace(-4, 4, 161)
    left.plot(grid, torch.distributions.Normal(0.0, 1.0).log_prob(grid).exp(), "k--", linewidth=1.4, label="normal")
    left.set(xlabel="value", ylabel="density", title="VAE tokens")
    left.legend(fontsize=9, loc="upper right")
    right.plot(range(1, codebook_size + 1), share, color=HEAD_COLORS["softmax"])
    right.axhline(1 / codebook_size, color="black", linestyle=":", linewidth=1.2, label="all equally often")
    right.set(xlabel="rank of the code", ylabel="share of all tokens", xscale="log", yscale="log", title="VQ codes")
    right.legend(fontsize=10)
    fourth = ((latents - latents.mean(0)) / latents.std(0)).pow(4).mean(0)                    # (C,) 3 if normal
    entropy = -(share * share.clamp(min=1e-12).log()).sum()
    return figure, (f"kurtosis of the channels {fourth.min():.1f} to {fourth.max():.1f} (normal: 3); "
                    f"{(share > 0).float().mean():.0%} of {codebook_size} codes occur among {len(codes):,} tokens, "
                    f"entropy {entropy:.2f} of at most {float(torch.tensor(codebook_size).log()):.2f} nats")


def temperature_explorer(draw_tokens: Callable[[str, str, float], Tensor], data: dict[str, Tensor]) -> Explorer:
    """One dial for the temperature of all heads, one for the shape; each head's tokens over the data.

    Args:
        draw_tokens: (head, shape, temperature) -> (B, 2), repeatable.  data: shape -> (B, 2).

    Returns:
        An `Explorer` with its first picture drawn; `display(explorer.widget)`.
    """
    def draw(temperature: float, shape: str) -> str:
        figure = Figure(figsize=(8.0, 3.0))     # not pyplot's, which would show it below a cell that ends meanwhile
        gaps = []
        for ax, head in zip(figure.subplots(1, 3), ("softmax", "diffusion", "flow"), strict=True):
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
