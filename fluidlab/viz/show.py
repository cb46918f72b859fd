"""Pictures that reach every reader: each is shown with its alternative text and, if wanted, a caption.

Knows no model and no data set; it turns tensors, PIL images and matplotlib figures into small PNGs inside an HTML
<figure>. Notice: the alt text sits on the <img> itself, because text in the metadata of an output is dropped by
JupyterLab and by nbconvert. One colour, line and marker per variant hold through the whole course.
"""

import base64
import html
import io
import struct

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import torch
from IPython.display import HTML, display
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont

# The colours are Okabe and Ito's, which stay apart for every kind of colour vision. Line and marker say the same again.
VARIANT_COLORS = {
    "raster-softmax": "#D55E00",
    "raster-diffusion": "#E69F00",
    "raster-flow": "#CC79A7",
    "random-softmax": "#0072B2",
    "random-diffusion": "#009E73",
    "random-flow": "#56B4E9",
}
LINE_STYLES = {"raster": "--", "random": "-"}
MARKERS = {"softmax": "s", "diffusion": "o", "flow": "^"}
DPI = 100               # 8 inches are then 800 pixels, the width of a notebook's page
MAX_GRID_WIDTH = 1200   # pixels


def use_style():
    """Sets the course's matplotlib style: readable sizes, a light grid, the colours above."""
    mpl.rcParams.update({
        "figure.figsize": (8.0, 4.0), "figure.dpi": DPI, "savefig.dpi": DPI, "figure.constrained_layout.use": True,
        "font.size": 12, "axes.titlesize": 13, "axes.labelsize": 12, "legend.fontsize": 11,
        "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.3,
        "lines.linewidth": 2.0, "lines.markersize": 5.0, "image.interpolation": "nearest",
        "axes.prop_cycle": mpl.cycler(color=[*VARIANT_COLORS.values(), "#000000"]),
    })


def variant_style(order, head):
    """How a variant is drawn in every plot.

    Args:
        order: "raster" or "random".
        head: "softmax", "diffusion" or "flow".

    Returns:
        Keyword arguments for `Axes.plot`: color, linestyle, marker, label.

    Raises:
        ValueError: if there is no such variant.
    """
    name = f"{order}-{head}"
    if name not in VARIANT_COLORS:
        raise ValueError(f"There is no variant {name!r}; the variants are {', '.join(VARIANT_COLORS)}.")
    return {"color": VARIANT_COLORS[name], "linestyle": LINE_STYLES[order], "marker": MARKERS[head], "label": name}


def to_array(image):
    """One image as bytes.

    Args:
        image: a PIL image, a tensor (3, H, W) as uint8 or as float in [-1, 1], or a numpy array (H, W, 3) of uint8.

    Returns:
        numpy uint8 (H, W, 3).

    Raises:
        ValueError: for any other shape, type or range.
    """
    if isinstance(image, Image.Image):
        return np.asarray(image.convert("RGB"))
    if isinstance(image, torch.Tensor):
        image = _tensor_to_array(image)
    if not (isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3):
        given = f"{getattr(image, 'dtype', type(image).__name__)} {tuple(getattr(image, 'shape', ()))}"
        raise ValueError(f"The image is {given}; allowed are a PIL image, a tensor (3, H, W) or a uint8 array "
                         "(H, W, 3).")
    return image


def _tensor_to_array(image):
    image = image.detach().cpu()
    if image.is_floating_point():
        low, high = image.min().item(), image.max().item()
        if not (low >= -2.0 and high <= 2.0):   # a decoder may overshoot a little; an image in [0, 255] must not pass
            raise ValueError(f"The image's values lie in [{low:.2f}, {high:.2f}]; a float image must lie in [-1, 1].")
        image = ((image.float() + 1.0) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return image.permute(1, 2, 0).numpy() if image.ndim == 3 else image.numpy()     # (3, H, W) -> (H, W, 3)


def image_grid(images, titles=None, columns=None, scale=None, gap=6):
    """Lays images out in rows, enlarged without smoothing, so that a pixel stays a pixel.

    Args:
        images: tensor (B, 3, H, W), or a list of what `to_array` takes; all of one size.
        titles: a text under each image, cut to its width, or None.
        columns: images in a row; by default all of them up to 8.
        scale: whole enlargement factor; by default each image becomes about 128 pixels wide.
        gap: white pixels between images.

    Returns:
        A PIL image.

    Raises:
        ValueError: if there is no image, sizes differ, or titles do not match the images in number.
    """
    arrays = [to_array(image) for image in images]
    if not arrays or len({a.shape for a in arrays}) != 1:
        raise ValueError(f"The grid was given images of sizes {[a.shape[:2] for a in arrays]}; it needs at least one, "
                         "all of one size.")
    if titles is not None and len(titles) != len(arrays):
        raise ValueError(f"The grid was given {len(titles)} titles for {len(arrays)} images; the numbers must agree.")
    columns = columns or min(len(arrays), 8)
    height, width = arrays[0].shape[:2]
    scale = scale or max(1, min(round(128 / width), MAX_GRID_WIDTH // (columns * (width + gap))))
    cells = [Image.fromarray(a).resize((width * scale, height * scale), Image.Resampling.NEAREST) for a in arrays]
    return _paste(cells, titles, columns, gap)


def _paste(cells, titles, columns, gap):
    width, height = cells[0].size
    text_height = 18 if titles is not None else 0
    rows = -(-len(cells) // columns)
    grid = Image.new("RGB", (columns * (width + gap) - gap, rows * (height + text_height + gap) - gap), "white")
    draw, font = ImageDraw.Draw(grid), ImageFont.load_default(13)
    for i, cell in enumerate(cells):
        x, y = (i % columns) * (width + gap), (i // columns) * (height + text_height + gap)
        grid.paste(cell, (x, y))
        if titles is not None:
            draw.text((x, y + height + 1), _cut(str(titles[i]), width, font), fill="black", font=font)
    return grid


def _cut(text, width, font):
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "...") > width:
        text = text[:-1]
    return text.rstrip() + "..."


def png_bytes(picture):
    """A figure, or anything `to_array` or `image_grid` takes, as a small PNG.

    Images keep their exact colours, since their finest differences are what the course looks at. Plots without an image
    go down to 256 colours, which nobody sees. A matplotlib figure is closed.
    """
    if isinstance(picture, Figure):
        image, exact = _rendered(picture), any(axis.images for axis in picture.axes)
    else:
        batch = isinstance(picture, torch.Tensor) and picture.ndim == 4 or isinstance(picture, (list, tuple))
        image, exact = (image_grid(picture) if batch else Image.fromarray(to_array(picture))), True
    if not exact or image.getcolors(256):
        image = image.quantize(256, dither=Image.Dither.NONE)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")                   # not optimize=True: 2 % smaller, but a slider would wait for it
    return buffer.getvalue()


def _rendered(figure):
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", facecolor="white")
    plt.close(figure)                           # or the inline backend would show it a second time, without alt text
    return Image.open(buffer).convert("RGB")


def figure_html(picture, alt, caption=None):
    """The picture as an HTML <figure>, for `show` and for an `ipywidgets.HTML`.

    Args:
        picture: matplotlib figure, PIL image, tensor (3, H, W) or (B, 3, H, W), list of images, or array (H, W, 3).
        alt: what a reader who cannot see the picture needs to know.
        caption: what to notice; shown below the picture.

    Returns:
        str, without any reference to another file.

    Raises:
        ValueError: if alt is empty.
    """
    if not isinstance(alt, str) or not alt.strip():
        raise ValueError(f"The alt text is {alt!r}; every picture needs a sentence that says what it shows.")
    png = png_bytes(picture)
    width, height = struct.unpack(">II", png[16:24])       # with them the page does not jump when a picture changes
    image = (f'<img alt="{html.escape(alt, quote=True)}" src="data:image/png;base64,{base64.b64encode(png).decode()}" '
             f'width="{width}" height="{height}" style="max-width:100%;height:auto">')
    below = f"<figcaption>{html.escape(caption)}</figcaption>" if caption else ""
    return f'<figure style="margin:0.5em 0">{image}{below}</figure>'


def show(picture, alt, caption=None):
    """Displays the picture with its alt text and caption; the arguments are those of `figure_html`."""
    display(HTML(figure_html(picture, alt, caption)))


use_style()
