"""Bytes or a file that claim to be a picture, made into what a tokenizer wants, or refused with the reason.

Pictures of a data set come from strangers. Only formats that are data are opened (Pillow also knows some that are
programs, such as PostScript), the size is looked at before a pixel is unpacked, and whatever a decoder raises becomes
one exception, so that a caller can count the picture and go on.
"""

import functools
import io
from pathlib import Path

import torch
from PIL import Image

from fluidlab.data.photos import image_to_tensor

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF")
MAX_PIXELS = 2**26                          # 8192 x 8192: a bomb of a few kilobytes may claim to be any number


class BrokenPicture(ValueError):
    """A picture that cannot be used, and why."""


@functools.cache
def _formats() -> tuple[str, ...]:
    Image.init()                            # what this build of Pillow knows
    return tuple(name for name in FORMATS if name in Image.OPEN)


def read_picture(source: bytes | str | Path, image_size: int = 256, max_pixels: int = MAX_PIXELS) -> torch.Tensor:
    """A picture upright, its middle square, resized with antialiasing, on white where it is transparent.

    Args:
        source: the bytes of a file, or its path.
        image_size: side in pixels.  max_pixels: of the picture; a larger one is refused unseen.

    Returns:
        uint8 (3, image_size, image_size). Of a moving picture the first frame.

    Raises:
        BrokenPicture: it is missing, damaged, in another format, or too large.
    """
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=_formats()) as picture:
            if picture.width * picture.height > max_pixels:
                raise BrokenPicture(f"{picture.width}x{picture.height} pixels, more than {max_pixels:,}")
            picture.load()
            return image_to_tensor(picture, image_size)
    except BrokenPicture:
        raise
    except FileNotFoundError:
        raise BrokenPicture("its file is missing") from None
    except Exception as error:              # what decoders raise for a stranger's bytes varies without end
        told = " ".join(str(error).split())[:120]
        raise BrokenPicture(f"{type(error).__name__}: {told}" if told else type(error).__name__) from error
