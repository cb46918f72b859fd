"""Image-text pairs on disk: which captions belong to which file, and a fixed random choice of them.

Two formats are read: MS-COCO's own annotations (captions_val2014.json, several captions an image) and metadata.jsonl as
Hugging Face's image folders have it (one line a picture). Pictures are not opened here. What to notice: the paper's
30,000 pairs are drawn once, by a seed, and every model draws the same captions and is compared with the same images.
"""

import json
from collections import defaultdict
from pathlib import Path

import torch

from fluidlab.config import check_range

Pairs = list[tuple[str, tuple[str, ...]]]  # file name and its captions
CAPTION_KEYS = ("caption", "text", "captions")
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


def read_captions(path: str | Path) -> Pairs:
    """The files that a captions file names, each with one caption or more, in the order of their names.

    Args:
        path: a .json file of MS-COCO's captions, or a .jsonl file with `file_name` and `caption`, `text` or `captions`.

    Raises:
        ValueError: the file is missing, is neither of the two, or holds no caption.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"there is no captions file {path}; give MS-COCO's captions_val2014.json or a metadata.jsonl.")
    try:
        text = path.read_text(encoding="utf-8")
        found = _coco(json.loads(text)) if path.suffix == ".json" else _lines(text)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is neither MS-COCO's annotations nor lines with file_name and a caption "
                         f"({type(error).__name__}: {error}).") from error
    pairs = sorted((name, tuple(captions)) for name, captions in found.items() if captions)
    if not pairs:
        raise ValueError(f"{path} holds no caption.")
    return pairs


def _coco(values: dict) -> dict[str, list[str]]:
    captions = defaultdict(list)
    for annotation in values["annotations"]:
        captions[annotation["image_id"]].append(annotation["caption"].strip())
    return {image["file_name"]: captions[image["id"]] for image in values["images"]}


def _lines(text: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for line in filter(str.strip, text.splitlines()):
        values = json.loads(line)
        [key, *_] = [k for k in CAPTION_KEYS if k in values] or [CAPTION_KEYS[0]]
        said = values[key]
        said = [said] if isinstance(said, str) else list(said)
        if not all(isinstance(one, str) for one in said):
            raise TypeError(f"captions are texts, got {said}")
        found[values["file_name"]] += said
    return found


def choose_pairs(pairs: Pairs, num_images: int, seed: int = 0) -> list[tuple[str, str]]:
    """So many different files, each with one of its captions, in a random order that the seed fixes.

    A smaller number with the same seed is a beginning of the larger one.

    Raises:
        ValueError: fewer files than that.
    """
    check_range("num_images", num_images, 1, kind=int)
    if num_images > len(pairs):
        raise ValueError(f"num_images is {num_images}, but there are only {len(pairs)} pairs of image and text.")
    g = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(pairs), generator=g).tolist()
    which = torch.rand(len(pairs), generator=g, dtype=torch.float64).tolist()
    chosen = []
    for index in order[:num_images]:
        name, captions = pairs[index]
        chosen.append((name, captions[int(which[index] * len(captions))]))
    return chosen


def find_pictures(folder: str | Path) -> list[Path]:
    """Every picture in a folder and the folders in it, in the order of their names.

    Raises:
        ValueError: the folder is missing or holds none.
    """
    found = sorted(path for path in Path(folder).rglob("*") if path.suffix.lower() in PICTURES and path.is_file())
    if not found:
        raise ValueError(f"{folder} holds no picture; pictures are files that end with {', '.join(PICTURES)}.")
    return found


def check_pictures(folder: Path, names: list[str]) -> list[Path]:
    """The paths of files of a folder; `ValueError` that counts those that are missing."""
    paths = [folder / name for name in names]
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise ValueError(f"{folder} lacks {len(missing)} of the {len(names)} pictures that the captions name, first "
                         f"{missing[0].name}.")
    return paths
