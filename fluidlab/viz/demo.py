"""The demo for a lecture hall: discrete beside continuous reconstruction, every state computed before the lecture.

`states` puts pictures through both tokenizers at several sizes and qualities; `demo_page` makes them one HTML file with
all pictures inside, which any browser opens without a network. What to notice: the two qualities are not alike. Codes
are taken away from the discrete tokenizer, latent channels from the continuous one, and the bits stand below each
picture, so that nobody compares 64 bits with 65,536 unawares.
"""

import base64
import html
import io
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass

from PIL import Image
from torch import Tensor

from fluidlab.tokenizer.metrics import psnr
from fluidlab.viz.demo_page import TEMPLATE
from fluidlab.viz.plots_tokenizers import WORST_ERROR, error_map
from fluidlab.viz.reconstruction_lab import heat, reconstruct_one
from fluidlab.viz.show import to_array

LEVELS = ((4096, 4), (256, 2), (16, 1))             # codes and latent channels that are kept, best first
ERROR_COLORS = 64                                   # of an error map, which then takes a third of the bytes


@dataclass(frozen=True)
class State:
    """What the page shows at once; pictures are keys of the page's table of pictures.

    Args:
        picture, size: what is shown.  original, discrete, continuous: keys.  discrete_error, continuous_error: keys.
        discrete_said, continuous_said: quality, PSNR and bits in words.
    """

    picture: str
    size: int
    original: str
    discrete: str
    discrete_error: str
    discrete_said: str
    continuous: str
    continuous_error: str
    continuous_said: str


def states(discrete, continuous, pictures: dict[str, Callable[[int], Tensor]], sizes: Iterable[int],
           levels=LEVELS) -> tuple[list[State], dict[str, str]]:
    """All states in the order of a lecture, and their pictures as data URIs.

    Args:
        discrete, continuous: tokenizers.  pictures: name -> a function of the size that returns uint8 (3, size, size).
        sizes: pixels a side.  levels: (codes, latent channels) that are kept.
    """
    sources: dict[str, str] = {}
    return list(_walk(discrete, continuous, pictures, sizes, levels, sources)), sources


def _walk(discrete, continuous, pictures, sizes, levels, sources: dict[str, str]) -> Iterator[State]:
    for name, picture in pictures.items():
        for size in sizes:
            image = picture(size) / 127.5 - 1                                   # (3, size, size)
            original = f"{name} {size}"
            sources[original] = data_uri(Image.fromarray(to_array(image)))
            for codes, channels in levels:
                keys, said = {}, {}
                for kind, tokenizer in (("discrete", discrete), ("continuous", continuous)):
                    result, bits = reconstruct_one(tokenizer, image, channels=channels, codes=codes)
                    kept = f"{codes:,} codes" if tokenizer.kind == "discrete" else f"{4 * channels} numbers a token"
                    keys[kind] = f"{original} {kind} {codes}"
                    said[kind] = f"{kept}: {psnr(image[None], result[None]).item():.1f} dB, {bits:,.0f} bits"
                    errors = Image.fromarray(to_array(heat(error_map(image, result))))
                    sources[keys[kind]] = data_uri(Image.fromarray(to_array(result)))
                    sources[f"{keys[kind]} error"] = data_uri(
                        errors.quantize(ERROR_COLORS, dither=Image.Dither.NONE).convert("RGB"))
                yield State(name, size, original, keys["discrete"], f"{keys['discrete']} error", said["discrete"],
                            keys["continuous"], f"{keys['continuous']} error", said["continuous"])


def data_uri(image: Image.Image) -> str:
    """A picture inside a page, without loss: WebP takes three quarters of a PNG's bytes."""
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", lossless=True)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def demo_page(found: list[State], sources: dict[str, str]) -> str:
    """One HTML file: large type, dark and light, moved by arrow keys or buttons.

    Args:
        found, sources: of `states`.
    """
    table = json.dumps({"states": [asdict(state) for state in found], "sources": sources}).replace("</", "<\\/")
    legend = f"Error maps: black is equal, pale yellow is {WORST_ERROR:.0f} of 255 levels or more."
    return TEMPLATE.replace("@legend@", html.escape(legend)).replace("@table@", table)
