"""Pictures of what a tokenizer keeps and loses: side by side, zoomed, as error maps, as codes and as channels.

Knows tensors and no tokenizer: whoever has reconstructions can draw them. Images are (3, H, W) or (B, 3, H, W) floats
in [-1, 1]. Every function returns a matplotlib figure for `fluidlab.viz.show.show`. What to notice: all error maps of a
figure share one colour scale, since two pictures with scales of their own cannot be compared.
"""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import Normalize
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter
from torch import Tensor

from fluidlab.viz.show import to_array

ERROR_MAP = "magma"
WORST_ERROR = 64.0      # of 255 levels: where the colour scale of errors ends
BOX_COLOR = "#00E5FF"   # stays visible on fur, on paper and on both ends of the error map's colours


def error_map(image: Tensor, reconstruction: Tensor) -> Tensor:
    """Absolute error of each pixel, mean over the colours, in levels of 0 to 255.

    Args:
        image, reconstruction: (3, H, W) or (B, 3, H, W) in [-1, 1], of one shape.

    Returns:
        (H, W) or (B, H, W).

    Raises:
        ValueError: if the shapes differ.
    """
    if image.shape != reconstruction.shape:
        raise ValueError(f"The image is {tuple(image.shape)} and the reconstruction {tuple(reconstruction.shape)}; "
                         "they must be of one shape.")
    return (image - reconstruction).abs().mean(dim=-3) * 127.5


def crop(image: Tensor, box: tuple[int, int, int, int]) -> Tensor:
    """The part (..., y1 - y0, x1 - x0) of an image (..., H, W) inside box = (x0, y0, x1, y1), in pixels.

    Raises:
        ValueError: if the box is empty or leaves the image.
    """
    x0, y0, x1, y1 = box
    H, W = image.shape[-2:]
    if not (0 <= x0 < x1 <= W and 0 <= y0 < y1 <= H):
        raise ValueError(f"The box is {tuple(box)}; it must lie inside the image of {W}x{H} pixels and not be empty.")
    return image[..., y0:y1, x0:x1]


def comparison(images: dict[str, Tensor], box: tuple[int, int, int, int] | None = None):
    """Pictures side by side under large titles; below each, the part inside `box`, enlarged.

    Args:
        images: title -> (3, H, W) in [-1, 1], all of one size; the original first.
        box: (x0, y0, x1, y1) in pixels, or None for one row.
    """
    rows = 1 if box is None else 2
    figure, axes = plt.subplots(rows, len(images), figsize=(3.7 * len(images), 4.0 * rows), squeeze=False)
    for column, (title, image) in zip(axes.T, images.items(), strict=True):
        column[0].imshow(to_array(image), interpolation="antialiased")
        column[0].set_title(title, fontsize=17)
        if box is not None:
            x0, y0, x1, y1 = box
            column[0].add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, ec=BOX_COLOR, lw=2))
            column[1].imshow(to_array(crop(image, box)), interpolation="nearest")
    _bare(axes)
    for axis in axes[1:].flat:
        _frame(axis, BOX_COLOR)
    return figure


def reconstruction_rows(images: Tensor, reconstructions: dict[str, Tensor], worst: float = WORST_ERROR):
    """One row an image: original, every reconstruction, then every error map, all maps on one colour scale.

    Args:
        images: (B, 3, H, W) in [-1, 1].
        reconstructions: name -> (B, 3, H, W).
        worst: the error, in levels of 0 to 255, at which the colour scale ends.
    """
    rows, columns = len(images), 1 + 2 * len(reconstructions)
    figure, axes = plt.subplots(rows, columns, figsize=(2.1 * columns, 2.0 * rows + 0.5), squeeze=False)
    titles = ["original", *reconstructions, *(f"error, {name}" for name in reconstructions)]
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title)
    scale = Normalize(0.0, worst)
    for row, line in enumerate(axes):
        pictures = [images[row], *(r[row] for r in reconstructions.values())]
        for axis, picture in zip(line, pictures, strict=False):
            axis.imshow(to_array(picture), interpolation="nearest")
        for axis, r in zip(line[len(pictures):], reconstructions.values(), strict=True):
            drawn = axis.imshow(error_map(images[row], r[row]).numpy(), cmap=ERROR_MAP, norm=scale)
    _bare(axes)
    label = "mean absolute error of a pixel, levels of 255"
    figure.colorbar(drawn, ax=axes, orientation="horizontal", shrink=0.5, aspect=50, pad=0.02, label=label,
                    extend="max")
    return figure


def latent_channels(image: Tensor, latents: Tensor):
    """An image and the channels of its latent, all on one symmetric colour scale.

    Args:
        image: (3, H, W) in [-1, 1].
        latents: (C, h, w), standardised.
    """
    figure, axes = plt.subplots(1, 1 + len(latents), figsize=(2.4 * (1 + len(latents)), 2.9), squeeze=False)
    axes[0, 0].imshow(to_array(image))
    axes[0, 0].set_title("image")
    for c, axis in enumerate(axes[0, 1:]):
        drawn = axis.imshow(latents[c].numpy(), cmap="RdBu_r", vmin=-3, vmax=3)
        axis.set_title(f"channel {c}")
    _bare(axes)
    figure.colorbar(drawn, ax=axes, shrink=0.8, label="standard deviations", extend="both")
    return figure


def changed_pixels(before: Tensor, after: dict[str, Tensor], token: int, columns: int, patch: int = 16):
    """A reconstruction, what became of it when one token was changed, and which pixels moved by how much.

    Args:
        before: (3, H, W) in [-1, 1], all tokens as they were.
        after: title -> (3, H, W), one token changed.
        token: its place in raster order.  columns: tokens in a row.  patch: pixels a token covers.
    """
    figure, axes = plt.subplots(2, 1 + len(after), figsize=(2.6 * (1 + len(after)), 5.6), squeeze=False)
    axes[0, 0].imshow(to_array(before))
    axes[0, 0].set_title("before")
    axes[1, 0].set_visible(False)
    for (title, image), (top, bottom) in zip(after.items(), axes[:, 1:].T, strict=True):
        top.imshow(to_array(image))
        top.set_title(title)
        drawn = bottom.imshow(error_map(before, image).numpy(), cmap=ERROR_MAP, vmin=0, vmax=WORST_ERROR)
    corner = token % columns * patch - 0.5, token // columns * patch - 0.5      # pixel centres lie at whole numbers
    for axis in axes.flat:
        axis.add_patch(Rectangle(corner, patch, patch, fill=False, ec=BOX_COLOR, lw=1.5))
    _bare(axes)
    figure.colorbar(drawn, ax=axes[1, 1:], shrink=0.9, label="change, levels of 255", extend="max")
    return figure


def code_usage(counts: Tensor):
    """How often each code was used, most used first, beside how many codes were used how often.

    Args:
        counts: (V,) how often each code occurred.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6))
    ordered = counts.sort(descending=True).values.numpy()
    left.plot(np.arange(1, len(ordered) + 1), np.maximum(ordered, 0.5), color="#0072B2")
    left.set(xscale="log", yscale="log", xlabel="rank of the code", ylabel="times used", title="Most used codes first")
    classes = [("0", 0, 0), ("1", 1, 1), ("2", 2, 2), ("3 to 4", 3, 4), ("5 to 8", 5, 8), ("9 to 16", 9, 16),
               ("more", 17, np.inf)]
    heights = [int(((ordered >= low) & (ordered <= high)).sum()) for _, low, high in classes]
    bars = right.bar([name for name, _, _ in classes], heights, color="#0072B2")
    right.bar_label(bars)
    right.tick_params(axis="x", labelsize=10)
    right.set(xlabel="times used", ylabel="codes", title="How many codes were used so often")
    return figure


def code_shares(shares: dict[str, Tensor], worth: dict[str, float]):
    """How often each code of a small vocabulary is used, one panel a case, the perplexity in its title.

    Args:
        shares: name -> (V,), which add up to 1.  worth: name -> how many equally likely codes they are worth.
    """
    figure, axes = plt.subplots(1, len(shares), figsize=(3.6 * len(shares), 3.0), sharey=True, squeeze=False)
    for axis, (name, share) in zip(axes[0], shares.items(), strict=True):
        axis.bar(range(len(share)), 100 * share.numpy(), color="#0072B2")
        axis.set(title=f"{name}: {worth[name]:.2f}", xlabel="code")
    axes[0, 0].set_ylabel("share of the tokens, %")
    return figure


def nearest_codes(vectors: Tensor, codes: Tensor, chosen: Tensor):
    """Vectors of the plane, each joined to its code by a line and in the code's colour.

    Args:
        vectors: (M, 2).  codes: (V, 2), up to ten.  chosen: (M,) long, the code of each vector.
    """
    colors = plt.matplotlib.colormaps["tab10"](np.arange(len(codes)))
    figure, axis = plt.subplots(figsize=(6.4, 4.6))
    for vector, k in zip(vectors.numpy(), chosen.tolist(), strict=True):
        axis.plot(*np.stack([vector, codes[k].numpy()]).T, color=colors[k], lw=1.2)
        axis.plot(*vector, "o", color=colors[k], markersize=5)
    axis.scatter(*codes.T.numpy(), s=320, c=colors, edgecolor="black", zorder=3)
    for k, (x, y) in enumerate(codes.tolist()):
        axis.text(x, y, str(k), ha="center", va="center", color="white", fontweight="bold", zorder=4)
    axis.set(aspect="equal", xlabel="first number", ylabel="second number")
    return figure


def rate_curve(bits, quality, points: dict[str, tuple[float, float]], ceiling: float | None = None):
    """Quality against bits: the curve of rounded continuous tokens, and other tokenizers as points.

    Args:
        bits, quality: of the curve, sequences of equal length: bits per image and PSNR in dB.
        points: name -> (bits, PSNR).
        ceiling: PSNR without rounding, drawn as a line, or None.
    """
    figure, axis = plt.subplots(figsize=(8, 4.4))
    axis.plot(bits, quality, "-o", color="#009E73", label="continuous tokens, rounded")
    for name, (x, y) in points.items():
        axis.plot([x], [y], "s", markersize=11, color="#0072B2", label=name)
    if ceiling is not None:
        axis.axhline(ceiling, color="#009E73", linestyle=":", label="continuous tokens, not rounded")
    axis.set(xscale="log", xlabel="bits per image (each mark doubles)", ylabel="PSNR, dB")
    axis.xaxis.set_major_locator(LogLocator(base=2, numticks=12))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axis.legend(loc="lower right")
    return figure


def vocabulary_curves(codes, quality, usage):
    """What more codes buy and how many of them lie idle, side by side, over vocabularies trained for themselves.

    Args:
        codes, quality, usage: sequences of equal length: vocabulary, PSNR in dB, share of the codes in use, 0 to 1.
    """
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.4))
    for axis, values, label in zip(axes, (quality, [100 * share for share in usage]),
                                   ("PSNR, dB", "codes in use, %"), strict=True):
        axis.plot(codes, values, "-s", color="#0072B2")
        axis.set(xscale="log", xlabel="codes in the vocabulary", ylabel=label)
        axis.set_xticks(codes, [f"{count:,.0f}" for count in codes])
        axis.minorticks_off()
    axes[1].axhline(90, color="black", linestyle=":", lw=1.2)
    return figure


def drift(inputs: Tensor, outputs: dict[str, Tensor]):
    """How far a flat colour comes out from where it went in: a smooth line bends it, a saw has too few words for it.

    Args:
        inputs: (n,) levels of 0 to 255 that went in.
        outputs: name -> (n,) levels that came out; "continuous" and "discrete" have the course's colours.
    """
    colors = {"continuous": "#009E73", "discrete": "#0072B2"}
    figure, axis = plt.subplots(figsize=(8, 4.0))
    axis.axhline(0, color="black", linestyle=":", lw=1.2, label="perfect")
    for name, levels in outputs.items():
        axis.plot(inputs, levels - inputs, color=colors.get(name), label=name)
    axis.set(xlabel="level that goes in (of 255)", ylabel="out minus in, levels")
    axis.legend()
    return figure


def _bare(axes):
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        axis.grid(False)
        axis.spines[:].set_visible(False)


def _frame(axis, color):
    for spine in axis.spines.values():
        spine.set(visible=True, color=color, linewidth=3)
