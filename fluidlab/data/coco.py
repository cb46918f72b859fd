"""MS-COCO 2014 as text-to-image papers use it: so many pairs of the validation set, by a fixed seed.

Every picture has five captions; a pair is a picture and one of them. Which pictures, and which caption of each, depends
on the seed and on COCO's own numbers alone, neither on the order of a file nor on the machine. A picture that cannot be
read is replaced by the next in the seed's order and is counted. The paper does not say which 30,000 it took, so its
FID and ours differ by that choice too.
"""

from pathlib import Path

from fluidlab.config import check_range
from fluidlab.data.splitmix import SplitMix64, hash_text
from fluidlab.hub import read_json

COCO_ON_THE_HUB = "sayakpaul/coco-30-val-2014"       # 30,000 pairs of the validation set, drawn by others
NUM_PAIRS = 30_000
SPLIT = "val2014"


def is_coco(folder: Path) -> bool:
    """Whether a folder is COCO, unpacked as it is shipped."""
    return any((folder / "annotations").glob("captions_*.json"))


def coco_captions(folder: Path, split: str = SPLIT) -> Path:
    """The official captions of a split; `ValueError` if they are not there."""
    path = folder / "annotations" / f"captions_{split}.json"
    if not path.is_file():
        raise ValueError(f"{str(folder)!r} is not COCO's {split} as it is shipped, because {path} does not exist: "
                         f"unpack annotations_trainval2014.zip and {split}.zip there.")
    return path


def coco_rows(folder: Path, split: str = SPLIT, seed: int = 0):
    """Rows of the official layout in the seed's order, one pair for each picture: image (a path), caption, id.

    Args:
        folder: with annotations/captions_SPLIT.json and the pictures in SPLIT/ or images/SPLIT/.
        split: "val2014" or "train2014".  seed: of the order and of the caption that each picture keeps.

    Returns:
        a `datasets.Dataset`; a picture without a caption has an empty one.

    Raises:
        ValueError: the annotations are missing or of another layout.
    """
    from datasets import Dataset  # takes a second to import: only when one is read
    check_range("seed", seed, 0, kind=int)
    path = coco_captions(folder, split)
    annotations = read_json(path)
    try:
        files = {int(picture["id"]): str(picture["file_name"]) for picture in annotations["images"]}
        captions = {number: [] for number in files}
        for note in sorted(annotations["annotations"], key=lambda note: note["id"]):
            captions[int(note["image_id"])].append(str(note["caption"]))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not of COCO's captions ({type(error).__name__}: {error}): it needs images with id "
                         "and file_name, and annotations with id, image_id and caption.") from error
    pictures = next((place for place in (folder / split, folder / "images" / split) if place.is_dir()), folder / split)
    order = shuffled(sorted(files), SplitMix64(hash_text(f"coco {split}"), seed))
    return Dataset.from_dict({"image": [f"{pictures.relative_to(folder).as_posix()}/{files[n]}" for n in order],
                              "caption": [one_of(captions[n], seed, n) for n in order], "id": order})


def one_of(captions: list[str], seed: int, number: int) -> str:
    """The caption that a picture keeps; "" if it has none."""
    return SplitMix64(hash_text("coco caption"), seed, number).choice(captions) if captions else ""


def shuffled(items: list, rng: SplitMix64) -> list:
    """A random order of a list (Fisher and Yates)."""
    items = list(items)
    for last in range(len(items) - 1, 0, -1):
        other = rng.below(last + 1)
        items[last], items[other] = items[other], items[last]
    return items
