"""Real photographs without a download: those that the scikit-image wheel carries, and the reader's own files.

Tokenizers learn from random crops of the training photographs; the held-out ones show what a tokenizer does to a
picture that it has never seen. The pictures are read straight from scikit-image's data folder; most are in the public
domain or CC0, and scikit-image's documentation names the source of each.
"""

import functools
import math
from importlib import resources
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch.utils.data import Dataset

from fluidlab.data.splitmix import SplitMix64, hash_text

# name: (file, how often it is drawn). Colour photographs come more often; the motorcycles are one scene seen twice.
PHOTOS = {
    "astronaut":        ("astronaut.png", 6),
    "motorcycle_left":  ("motorcycle_left.png", 4),
    "motorcycle_right": ("motorcycle_right.png", 4),
    "tissue":           ("ihc.png", 3),
    "retina":           ("retina.jpg", 2),
    "galaxies":         ("hubble_deep_field.jpg", 1),
    "camera":           ("camera.png", 3),
    "coins":            ("coins.png", 2),
    "grass":            ("grass.png", 1),
    "gravel":           ("gravel.png", 1),
    "brick":            ("brick.png", 1),
    "moon":             ("moon.png", 1),
    "page":             ("page.png", 1),
    "chelsea":          ("chelsea.png", 1),
    "coffee":           ("coffee.png", 1),
    "rocket":           ("rocket.jpg", 1),
}  # fmt: skip
PHOTOS_HELDOUT = ("chelsea", "coffee", "rocket")  # never trained on; all three in colour
PHOTOS_TRAIN = tuple(name for name in PHOTOS if name not in PHOTOS_HELDOUT)
SPLITS = {"train": PHOTOS_TRAIN, "test": PHOTOS_HELDOUT}
SMALLEST, LARGEST = 16, 1024  # pixels a side


@functools.lru_cache(maxsize=len(PHOTOS))
def _open_photo(name: str) -> Image.Image:
    file = resources.files("skimage") / "data" / PHOTOS[name][0]
    with resources.as_file(file) as path, Image.open(path) as image:
        return image.convert("RGB")


def _check_photo(name: str) -> None:
    if name not in PHOTOS:
        raise ValueError(f"photo is {name!r}; allowed are {', '.join(PHOTOS)}.")


def _check_size(size: int) -> None:
    if isinstance(size, bool) or not isinstance(size, int) or not SMALLEST <= size <= LARGEST:
        raise ValueError(f"image_size is {size!r}; allowed are whole numbers from {SMALLEST} to {LARGEST}.")


def to_tensor(image: Image.Image) -> torch.Tensor:
    """An RGB picture as a uint8 tensor (3, H, W)."""
    return torch.from_numpy(np.array(image, dtype=np.uint8)).permute(2, 0, 1).contiguous()


def _center_square(image: Image.Image) -> Image.Image:
    side = min(image.size)
    x, y = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((x, y, x + side, y + side))


def load_photo(name: str, size: int | None = None, crop: str | None = "center") -> torch.Tensor:
    """One of the photographs.

    Args:
        name: a key of PHOTOS.
        size: the shorter side in pixels, 16 to 1024; None for the photograph's own.
        crop: "center" for the middle square, None for the whole photograph.

    Returns:
        uint8 (3, H, W).

    Raises:
        ValueError: no such photograph, size or crop.
    """
    _check_photo(name)
    if crop not in ("center", None):
        raise ValueError(f"crop is {crop!r}; allowed are 'center' and None.")
    image = _open_photo(name)
    image = _center_square(image) if crop == "center" else image
    if size is not None:
        _check_size(size)
        scale = size / min(image.size)
        image = image.resize([round(side * scale) for side in image.size], Image.Resampling.LANCZOS)
    return to_tensor(image)


def _flatten(image: Image.Image) -> Image.Image:
    """Any mode to RGB: transparency lies on white, 16-bit greys keep their high byte."""
    if image.mode.startswith("I"):
        grey = np.asarray(image).astype(np.int64)
        image = Image.fromarray((grey >> (8 if grey.max() > 255 else 0)).clip(0, 255).astype(np.uint8))
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def image_to_tensor(image: Image.Image | str | Path, image_size: int = 256) -> torch.Tensor:
    """Any picture as a tokenizer wants it: upright, the middle square, resized with antialiasing.

    Args:
        image: a Pillow image or the path of a file that Pillow can read.
        image_size: side in pixels, 16 to 1024.

    Returns:
        uint8 (3, image_size, image_size).

    Raises:
        ValueError: the file is missing or no picture, or the size is out of range.
    """
    _check_size(image_size)
    if not isinstance(image, Image.Image):
        try:
            with Image.open(image) as opened:
                opened.load()
                return image_to_tensor(opened, image_size)
        except FileNotFoundError:
            raise ValueError(f"there is no file {str(image)!r}; give the path of a picture.") from None
        except Exception as error:                   # what decoders raise for a stranger's bytes varies without end
            raise ValueError(f"{str(image)!r} cannot be read as a picture ({error}); give a PNG or JPEG.") from None
    square = _center_square(_flatten(ImageOps.exif_transpose(image)))
    return to_tensor(square.resize((image_size, image_size), Image.Resampling.LANCZOS))


class PhotoCrops(Dataset):
    """Random square crops of the photographs at random scales; a map-style data set of uint8 (3, H, W).

    A crop of the training split may be mirrored and have its colour channels exchanged, because the photographs are
    few; held-out crops are left as they are. The same (split, seed, index) gives the same crop.

    Args:
        split: "train" or "test" (the held-out photographs).
        image_size: side of a crop in pixels, 16 to 1024.
        seed: another number gives other crops, at least 0.
        size: how many crops there are; crops are made when asked for, so any number will do.

    Raises:
        ValueError: an argument is outside its range.
        IndexError: `crops[i]` with i outside [0, len(crops)).
    """

    def __init__(self, split: str = "train", image_size: int = 64, seed: int = 0, *, size: int = 1_000_000):
        if split not in SPLITS:
            raise ValueError(f"split is {split!r}; allowed are {', '.join(map(repr, SPLITS))}.")
        _check_size(image_size)
        if seed < 0 or size < 1:
            raise ValueError(f"seed is {seed} and size is {size}; allowed are at least 0 and at least 1.")
        self.split, self.image_size, self.seed, self.size = split, image_size, seed, size
        self._lots = [name for name in SPLITS[split] for _ in range(PHOTOS[name][1])]

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> torch.Tensor:
        if not 0 <= index < self.size:
            raise IndexError(f"crop {index} does not exist; this split has crops 0 to {self.size - 1}.")
        rng = SplitMix64(hash_text(f"photos {self.split}"), self.seed, int(index))
        image = _open_photo(rng.choice(self._lots))
        shorter = min(image.size)
        smallest = min(self.image_size, shorter)
        side = round(smallest * math.exp(rng.below(2**20) / 2**20 * math.log(shorter / smallest)))  # even in scale
        x, y = rng.between(0, image.width - side), rng.between(0, image.height - side)
        size = (self.image_size, self.image_size)
        crop = to_tensor(image.resize(size, Image.Resampling.BICUBIC, box=(x, y, x + side, y + side)))
        return self._vary(crop, rng) if self.split == "train" else crop

    def _vary(self, crop: torch.Tensor, rng: SplitMix64) -> torch.Tensor:
        crop = crop.flip(-1) if rng.below(2) else crop
        return crop[rng.sample((0, 1, 2), 3)] if rng.below(2) else crop

    def batch(self, indices) -> torch.Tensor:
        """Crops uint8 (B, 3, H, W), equal to `crops[i]`."""
        return torch.stack([self[int(index)] for index in indices])
