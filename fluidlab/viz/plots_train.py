"""What notebook 05 draws beside curves: which tokens count in a loss, and what clipping does to a gradient."""

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from torch import Tensor

from fluidlab.viz.plots_orders import HIDDEN, ORDER_COLORS


def loss_maps(losses: Tensor, hidden: Tensor, grid: tuple[int, int], titles: list[str]) -> Figure:
    """The loss of every token on its image's grid: coloured where the token was hidden, grey where it does not count.

    Args:
        losses: (B, N).  hidden: (B, N) bool.  grid: (h, w), h w = N.  titles: one for each image.
    """
    figure, axes = plt.subplots(1, len(losses), figsize=(3.0 * len(losses), 3.3), squeeze=False)
    colors = plt.matplotlib.colors.ListedColormap([HIDDEN, ORDER_COLORS["random"]])
    for axis, values, counts, title in zip(axes[0], losses, hidden, titles, strict=True):
        axis.imshow(counts.view(grid).float().numpy(), cmap=colors, vmin=0, vmax=1)
        for n, value in enumerate(values.tolist()):
            axis.text(n % grid[1], n // grid[1], f"{value:.1f}", ha="center", va="center",
                      color="white" if counts[n] else "#888888", weight="bold" if counts[n] else "normal")
        axis.set(title=title, xticks=[], yticks=[])
        axis.grid(False)
    return figure


def clip_figure(before: Tensor, after: dict[str, Tensor], limit: float) -> Figure:
    """Gradients of two numbers as arrows from the origin: as they were (grey) and after clipping, one panel a way.

    Args:
        before: (M, 2).  after: title -> (M, 2).  limit: the length that none should exceed, drawn as a circle.
    """
    figure, axes = plt.subplots(1, len(after), figsize=(4.2 * len(after), 4.7), squeeze=False)
    side = 1.1 * float(before.abs().max())
    for axis, (title, arrows) in zip(axes[0], after.items(), strict=True):
        axis.add_patch(Circle((0, 0), limit, fill=False, linestyle=":", edgecolor="black"))
        for gradients, color, width in ((before, "#BBBBBB", 0.006), (arrows, ORDER_COLORS["random"], 0.011)):
            origin = torch.zeros(len(gradients))
            axis.quiver(origin, origin, gradients[:, 0], gradients[:, 1], angles="xy", scale_units="xy", scale=1,
                        color=color, width=width)
        axis.set(title=title, xlim=(-side, side), ylim=(-side, side), aspect="equal",
                 xlabel="gradient of the first weight", ylabel="of the second")
    return figure
