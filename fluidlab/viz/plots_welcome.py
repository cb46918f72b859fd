"""The course's two pictures of itself: the four variants as a 2x2, and what a scene holds.

Knows no model. What to notice: the 2x2 is drawn from the orders' own permutation and chunk sizes, so that it shows what
the sampling loop does and not what somebody thought it does.
"""

import textwrap

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.patches import Rectangle

from fluidlab.config import TOKEN_KINDS
from fluidlab.model.orders import ORDERS
from fluidlab.viz.show import VARIANT_COLORS, to_array

SIDE = 4                                                # tokens a side of a 64-pixel scene
NICKNAMES = {"random-diffusion": "  =  Fluid"}
STEPS = {"raster": None, "random": 6}                   # raster has one step a token; 6 make the growing chunks visible
ORDER_TEXT = {"raster": "raster order: one token after the other,\nas a text is read",
              "random": "random order: any token next,\nmore of them in each step"}
KIND_TEXT = {"softmax": "discrete tokens:\none code each, chosen by a softmax",
             "diffusion": "continuous tokens:\n16 numbers each, drawn by diffusion"}


def filling_steps(order: str, seed: int = 0) -> np.ndarray:
    """In which step each token of a 4x4 image is filled, (4, 4), counted from 1, as `fluidlab.sample` walks it.

    Args:
        order: "raster" or "random".
        seed: of the random permutation.
    """
    walker, N = ORDERS[order](8), SIDE * SIDE
    permutation = walker.permutation(1, N, torch.Generator().manual_seed(seed))[0]          # (N,)
    sizes = torch.tensor(walker.chunk_sizes(N, STEPS[order]))
    steps = torch.empty(N, dtype=torch.long)
    steps[permutation] = torch.arange(1, len(sizes) + 1).repeat_interleave(sizes)           # (N,)
    return steps.reshape(SIDE, SIDE).numpy()


def two_by_two(seed: int = 0):
    """The four variants: in which step each token comes, and what a token is.

    Returns:
        matplotlib figure; rows are orders, columns kinds of token.
    """
    figure, axes = plt.subplots(2, 2, figsize=(9.2, 8.8))
    for line, order in zip(axes, ORDER_TEXT, strict=True):
        for axis, head in zip(line, KIND_TEXT, strict=True):
            _variant(axis, order, head, seed)
    for axis, text in zip(axes[0], KIND_TEXT.values(), strict=True):
        axis.annotate(text, (0.5, 1.16), xycoords="axes fraction", ha="center", fontsize=13, annotation_clip=False)
    for axis, text in zip(axes[:, 0], ORDER_TEXT.values(), strict=True):
        axis.annotate(text, (-0.08, 0.5), xycoords="axes fraction", ha="center", va="center", rotation=90, fontsize=13)
    return figure


def _variant(axis, order, head, seed):
    color = VARIANT_COLORS[f"{order}-{head}"]
    steps = filling_steps(order, seed)
    axis.imshow(steps, cmap="Greys", vmin=-2, vmax=steps.max() * 2.2, extent=(0, SIDE, SIDE, 0))
    rng = np.random.default_rng(seed)
    for (row, column), step in np.ndenumerate(steps):
        axis.text(column + 0.07, row + 0.09, str(step), va="top", fontsize=10, color="#444444")
        TOKEN_PICTURES[TOKEN_KINDS[head]](axis, column, row, rng, color)
    axis.set(xlim=(0, SIDE), ylim=(SIDE, 0), xticks=range(SIDE + 1), yticks=range(SIDE + 1), xticklabels=[],
             yticklabels=[])
    axis.grid(True, color="white", alpha=1.0, linewidth=2)
    axis.tick_params(length=0)
    axis.spines[:].set(visible=True, color=color, linewidth=3)
    name = f"{order}-{head}"
    axis.set_title(name + NICKNAMES.get(name, ""), color=color, fontsize=16, fontweight="bold")


def _code(axis, x, y, rng, color):
    """A discrete token: the number of a code."""
    axis.text(x + 0.5, y + 0.6, str(rng.integers(4096)), ha="center", va="center", fontsize=13, color="black")


def _numbers(axis, x, y, rng, color):
    """A continuous token: sixteen numbers as bars."""
    values = rng.normal(size=16).clip(-2, 2)
    axis.bar(x + 0.14 + np.arange(16) * 0.048, -0.13 * values, width=0.04, bottom=y + 0.62, color=color)


TOKEN_PICTURES = {"discrete": _code, "continuous": _numbers}


def scene_boxes(scenes: list[dict]):
    """Scenes with their objects framed and named.

    Args:
        scenes: items of `EmojiScenes`: "image" (3, H, W) uint8, "caption", "objects" with "class", "color", "box".
    """
    figure, axes = plt.subplots(1, len(scenes), figsize=(3.6 * len(scenes), 4.2), squeeze=False)
    figure.get_layout_engine().set(h_pad=0.1)      # a caption of two lines needs room below
    for axis, scene in zip(axes[0], scenes, strict=True):
        axis.imshow(to_array(scene["image"]))
        for thing in scene["objects"]:
            x0, y0, x1, y1 = thing["box"]
            axis.add_patch(Rectangle((x0 - 0.5, y0 - 0.5), x1 - x0, y1 - y0, fill=False, ec="#D55E00", lw=2))
            name = " ".join(filter(None, (thing["color"], thing["class"])))
            below = y1 < scene["image"].shape[-1] - 6
            axis.text(x0, y1 + 0.5 if below else y0 - 1.0, name, va="top" if below else "bottom", fontsize=11,
                      color="#8A3C00")
        axis.set(xticks=[], yticks=[])
        axis.set_xlabel(textwrap.fill(scene["caption"], 40), fontsize=11)
        axis.spines[:].set_visible(False)
        axis.grid(False)
    return figure
