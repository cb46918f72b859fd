"""What notebook 05 draws beside curves: what clipping does to a gradient."""

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from torch import Tensor

from fluidlab.viz.plots_orders import ORDER_COLORS


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
