"""From a name to pictures with captions: a folder or file in any usual format, or a data set on the hub.

Local formats are told by what lies there: COCO as it is shipped, a data set saved by `datasets`, pictures with a text
file beside each, and whatever else `datasets` reads: pictures with a metadata file (imagefolder, also zipped), parquet,
webdataset shards. Archives are read in place and never unpacked.
"""

import glob
import itertools
from pathlib import Path

from fluidlab.config import check_range
from fluidlab.data.captions import CaptionedImages, CaptionStream, follow
from fluidlab.data.captions_columns import choose_columns
from fluidlab.data.captions_reading import Reader
from fluidlab.data.coco import COCO_ON_THE_HUB, NUM_PAIRS, SPLIT, coco_captions, coco_rows, is_coco, shuffled
from fluidlab.data.splitmix import SplitMix64, hash_text
from fluidlab.hub import as_path, can_only_be_a_path, hub_failure, split_name

BUILDERS = {".parquet": "parquet", ".tar": "webdataset", ".zip": "imagefolder", ".csv": "csv", ".jsonl": "json",
            ".json": "json", ".arrow": "arrow"}
PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")
METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
LOOKED_AT = 16                              # rows by which columns are found


def open_captions(name: str | Path, *, split: str = "train", config: str | None = None, revision: str | None = None,
                  image_column: str | None = None, caption_column: str | None = None, id_column: str | None = None,
                  image_size: int = 256, caption: int | None = None, seed: int = 0, epoch: int = 0,
                  num_images: int | None = None, streaming: bool = False, cache_dir: str | Path | None = None,
                  threads: int | None = None) -> CaptionedImages | CaptionStream:
    """Open a data set of pictures with captions as a source for `write_cache`.

    Args:
        name: a folder, a file ("x.parquet", "x.tar"), a pattern of files ("shards/*.tar"), or a data set on the hub
            ("owner/name", with "@revision" behind it to pin it).
        split: as the data set calls it; datasets' slices such as "train[:1000]" too, but not of a stream.
        config: which of several data sets in one repository.  revision: instead of in the name.
        image_column, caption_column, id_column: None for what type and name tell; "json.caption" for a key in a column.
        image_size: side of the square pictures.
        caption: which one where there are several; None for one drawn by (seed, epoch, row).
        num_images: no more than that; the length of a stream.
        streaming: read from where it lies, without a copy on this disk; then only in order.
        cache_dir: of `datasets`.  threads: that read pictures.

    Raises:
        ValueError: nothing of that name, or not such a data set; the sentence says what to do.
    """
    if not isinstance(name, str | Path) or not str(name).strip():
        raise ValueError(f"A data set is named by a folder, a file or a Hugging Face id, got {name!r}.")
    rows, roots = _rows(name, split, config, revision, seed, streaming, cache_dir)
    rows, columns = _undecoded(rows, str(name), image_column, caption_column, id_column)
    reader = Reader(columns=columns, image_size=image_size, caption=caption, seed=seed, epoch=epoch, roots=roots)
    source = CaptionStream if streaming else CaptionedImages
    return source(rows, reader, limit=num_images, name=str(name), threads=threads)


def coco_pairs(name: str | Path = COCO_ON_THE_HUB, *, split: str | None = None, num_pairs: int = NUM_PAIRS,
               seed: int = 0, image_size: int = 256, cache_dir: str | Path | None = None,
               threads: int | None = None) -> CaptionedImages:
    """The pairs of MS-COCO 2014 for zero-shot FID, or with split="train2014" those for the validation loss.

    Args:
        name: a folder with COCO as it is shipped, or a data set on the hub (then its rows are the pairs).
        split: None for "val2014" of the official layout, "train" of a data set on the hub.
        num_pairs: how many; the paper: 30,000.  seed: of the choice.

    Raises:
        ValueError: it is not there, or has fewer pictures.
    """
    check_range("num_pairs", num_pairs, 1, kind=int)
    folder = as_path(name)
    split = split or (SPLIT if folder.is_dir() else "train")
    if folder.is_dir():
        coco_captions(folder, split)        # refuse another layout now
    pairs = open_captions(name, split=split, image_size=image_size, seed=seed, num_images=num_pairs,
                          cache_dir=cache_dir, threads=threads)
    if len(pairs.rows) < num_pairs:
        raise ValueError(f"{str(name)!r} has {len(pairs.rows)} pictures in {split}, but {num_pairs} pairs were asked "
                         f"for.")
    if not folder.is_dir():
        pairs.rows = pairs.rows.select(shuffled(range(len(pairs.rows)), SplitMix64(hash_text("coco"), seed)))
    return pairs


def _rows(name, split, config, revision, seed, streaming, cache_dir):
    """A data set of `datasets`, and the folders that its pictures may lie in."""
    import datasets  # takes a second to import: only when one is read
    from huggingface_hub import constants
    path = as_path(name)
    options = {"split": split, "streaming": streaming, "cache_dir": str(cache_dir) if cache_dir else None}
    if path.exists() or _is_pattern(path):
        if revision is not None:
            raise ValueError(f"{str(name)!r} is here on the disk and has no revisions, got {revision!r}; leave it out.")
        root = next(place for place in (path.absolute(), *path.absolute().parents) if place.is_dir())
        if is_coco(path):
            rows = coco_rows(path, split, seed)
            return (rows.to_iterable_dataset() if streaming else rows), (root,)
        try:
            return _local(path, split, config, streaming, options), (root,)
        except Exception as error:
            inner = error.__cause__ or error    # datasets wraps what went wrong while it makes its copy
            told = " ".join(f"{type(inner).__name__}: {inner}".split())[:300].rstrip(".")
            raise ValueError(f"The data set {str(name)!r} cannot be read ({told}): give a folder of pictures with a "
                             "metadata.jsonl or text files, of parquet files or of webdataset shards, and a split that "
                             "it has.") from error
    if can_only_be_a_path(name):
        raise ValueError(f"The data set {str(name)!r} cannot be read, because there is no such folder or file.")
    repo, inside, revision = split_name(str(name), None, revision)
    try:
        rows = datasets.load_dataset(repo, config, data_dir=inside, revision=revision, **options)
    except Exception as error:              # what is raised varies, and all of it ends here
        raise hub_failure(error, "data set", str(name), repo=repo, revision=revision, kind="dataset",
                          cache=str(cache_dir or datasets.config.HF_DATASETS_CACHE)) from error
    places = (cache_dir, datasets.config.HF_DATASETS_CACHE, constants.HF_HUB_CACHE)
    return rows, tuple(Path(place).absolute() for place in places if place)


def _is_pattern(path: Path) -> bool:
    """Whether a name with * or ? in it stands for files that are here."""
    anchor = path.absolute().anchor
    return any(sign in str(path) for sign in "*?") and any(Path(anchor).glob(str(path.absolute().relative_to(anchor))))


def _local(path: Path, split: str, config: str | None, streaming: bool, options: dict):
    """The rows of a folder, a file or a pattern of files."""
    import datasets
    if not path.is_dir():
        suffix = path.suffix.lower()
        if suffix not in BUILDERS:
            raise ValueError(f"files ending with {suffix!r} are not read, only {', '.join(BUILDERS)}")
        files = glob.escape(str(path)) if path.is_file() else str(path)          # a [ in a name is no pattern
        return datasets.load_dataset(BUILDERS[suffix], data_files={split.split("[")[0]: files}, **options)
    if (path / "dataset_dict.json").is_file():
        rows = datasets.load_from_disk(str(path))[split]
    elif (path / "state.json").is_file():
        rows = datasets.load_from_disk(str(path))
    else:
        rows = _texts_beside(path, split)
        if rows is None and any(sign in str(path.resolve()) for sign in "*?["):
            raise ValueError("`datasets` takes the *, ? or [ in its path for a pattern, so rename the folder")
        if rows is None:
            return datasets.load_dataset(str(path), config, **options)
    if split != "train" and not ((path / "dataset_dict.json").is_file() or (path / split).is_dir()):
        raise ValueError(f"it has no split {split!r}, only 'train'")
    return rows.to_iterable_dataset() if streaming else rows


def _texts_beside(folder: Path, split: str):
    """Pictures with a text file of the same name beside each, one caption a line; None if there are no such files."""
    from datasets import Dataset
    files = sorted((folder / split if (folder / split).is_dir() else folder).rglob("*"))
    texts = {path.with_suffix("") for path in files if path.suffix.lower() == ".txt"}
    pictures = [path for path in files if path.suffix.lower() in PICTURES]
    if any(path.name in METADATA for path in files) or not any(path.with_suffix("") in texts for path in pictures):
        return None
    captions = [path.with_suffix(".txt").read_text(encoding="utf-8", errors="replace").splitlines()
                if path.with_suffix("") in texts else [] for path in pictures]
    return Dataset.from_dict({"image": [path.relative_to(folder).as_posix() for path in pictures],
                              "captions": captions})


def _undecoded(rows, name: str, image: str | None, caption: str | None, id: str | None):
    """The rows with their pictures left as bytes or paths, and the columns."""
    import datasets
    for column, feature in (rows.features or {}).items():
        if isinstance(feature, datasets.Image):
            rows = rows.cast_column(column, datasets.Image(decode=False))
    first = list(itertools.islice(follow(rows, name), LOOKED_AT))
    if not first:
        raise ValueError(f"The data set {name!r} has no rows.")
    sample = {column: next((row[column] for row in first if row[column] not in (None, "", [])), None)
              for column in first[0]}
    return rows, choose_columns(sample, image, caption, id)
