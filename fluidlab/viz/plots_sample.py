"""What notebook 06 draws beside curves and sheets: probabilities under two dials, and a scale that grows."""

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from torch import Tensor

from fluidlab.viz.show import VARIANT_COLORS


def probability_bars(panels: dict[str, Tensor]) -> Figure:
    """Probabilities of a few codes as bars, one panel a setting: title -> (V,)."""
    figure, axes = plt.subplots(1, len(panels), figsize=(2.7 * len(panels), 2.6), sharey=True, squeeze=False)
    for axis, (title, probabilities) in zip(axes[0], panels.items(), strict=True):
        bars = axis.bar(range(len(probabilities)), probabilities.tolist(), color=VARIANT_COLORS["random-softmax"])
        axis.bar_label(bars, fmt="%.2f", fontsize=10)
        axis.set(xticks=range(len(probabilities)), xlabel="code", ylim=(0, 1.1))
        axis.set_title(title, fontsize=11)
    axes[0, 0].set_ylabel("probability")
    return figure


def scales_figure(panels: dict[str, tuple[list[int], list[float]]]) -> Figure:
    """Guidance over the tokens of a picture: a bar for each step, as wide as the tokens that it fills.

    Args:
        panels: title -> sizes and scales, one of each for every step.
    """
    figure, axes = plt.subplots(1, len(panels), figsize=(3.4 * len(panels), 2.8), sharey=True, squeeze=False)
    for axis, (title, (sizes, scales)) in zip(axes[0], panels.items(), strict=True):
        starts = [sum(sizes[:k]) for k in range(len(sizes))]
        axis.bar(starts, scales, width=sizes, align="edge", color=VARIANT_COLORS["random-diffusion"], edgecolor="white")
        axis.plot([0, sum(sizes)], [1, scales[-1]], color="black", linestyle=":")
        axis.set(title=title, xlabel="tokens that are known", xlim=(0, sum(sizes)))
    axes[0, 0].set_ylabel("guidance scale")
    return figure
