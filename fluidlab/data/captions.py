"""Pictures with captions from any data set, one by one or as a stream: `.batch(indices) -> images, captions`.

A source like EmojiScenes, for `write_cache`. What may be broken in a stranger's data set is expected to be: such rows
are skipped, counted and named, and index i is the i-th picture that can be read, so that nothing else ever sees a gap.
Which rows those are is known only after reading them; a length therefore costs one reading of everything. This file
does not know where data sets come from (captions_open.py does), nor what a picture may be (pictures.py).
"""

import copy
import itertools
import os
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from tqdm.auto import tqdm

from fluidlab.config import check_range
from fluidlab.data.pictures import BrokenPicture, read_picture
from fluidlab.data.splitmix import SplitMix64

IMAGE_NAMES = ("image", "jpg", "jpeg", "png", "webp", "img", "picture")
CAPTION_NAMES = ("caption", "captions", "text", "txt", "sentences", "prompt", "description", "json.caption",
                 "json.captions", "json.text")
ID_NAMES = ("__key__", "id", "image_id", "cocoid", "filename", "file_name", "key")
INNER_NAMES = ("raw", "caption", "text", "sentence")     # where a caption hides inside a structure
BLOCK = 64                                               # rows read at a time
HOPELESS = 256                                           # this many unreadable rows from the start are no accident
NAMED = 20                                               # skipped rows that a warning names, one by one


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Where a row keeps its picture, its captions and its name; "json.caption" is a key inside a column."""

    image: str
    caption: str
    id: str | None = None


def choose_columns(row: dict, image: str | None = None, caption: str | None = None, id: str | None = None) -> Columns:
    """The columns of a data set by one of its rows; those that are not given are found by type and name.

    Raises:
        ValueError: a given column does not exist, none or several could be meant, or pictures are only addresses.
    """
    there = f"the columns are {', '.join(row)}"
    for name in filter(None, (image, caption, id)):
        if look(row, name) is _NOTHING:
            raise ValueError(f"There is no column {name!r}; {there}.")
    if image is None:
        found = [name for name, value in row.items() if _is_picture(value)]
        found = found if len(found) <= 1 else [name for name in IMAGE_NAMES if name in found][:1] or found
        if len(found) != 1:
            raise ValueError(f"{len(found)} columns hold pictures{': ' if found else ''}{', '.join(found)}; name one "
                             f"with image_column ({there}).")
        image = found[0]
    value = look(row, image)
    if isinstance(value, str) and "://" in value:
        raise ValueError(f"Column {image!r} holds addresses ({value[:60]}) and no pictures: fetch these first, for "
                         "example with img2dataset into webdataset shards, and give that folder.")
    if caption is None:
        named = [name for name in CAPTION_NAMES if captions_of(look(row, name))]
        typed = [name for name, value in row.items() if captions_of(value) and name != image and name not in ID_NAMES
                 and not name.startswith("__")]
        found = named[:1] or typed
        if len(found) != 1:
            raise ValueError(f"{len(found)} columns could hold captions{': ' if found else ''}{', '.join(found)}; name "
                             f"one with caption_column ({there}).")
        caption = found[0]
    return Columns(image=image, caption=caption, id=id or next((name for name in ID_NAMES if name in row), None))


_NOTHING = object()


def look(row: dict, name: str):
    """A value of a row by column, or by "column.key"; `_NOTHING` if there is none."""
    if name in row:
        return row[name]
    for key in name.split("."):
        if not isinstance(row, dict) or key not in row:
            return _NOTHING
        row = row[key]
    return row


def _is_picture(value) -> bool:
    structure = isinstance(value, dict) and set(value) == {"bytes", "path"}
    return structure or isinstance(value, bytes) or (
        isinstance(value, str) and value.lower().endswith((".jpg", ".jpeg", ".png", ".webp")))


def captions_of(value) -> list[str]:
    """All captions in a value: a text, a list of texts, or structures with one of INNER_NAMES; without empty ones."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", errors="replace")
    if isinstance(value, str):
        return [" ".join(value.split())] if value.strip() else []
    if isinstance(value, dict):
        return next((captions_of(value[name]) for name in INNER_NAMES if name in value), [])
    if isinstance(value, list | tuple):
        return [caption for part in value for caption in captions_of(part)]
    return []


@dataclass(frozen=True, kw_only=True)
class Reader:
    """From a row to a picture and one of its captions.

    Args:
        columns: where they are.  image_size: side in pixels.
        caption: which one of several: a number, counted round where there are fewer; None for one that is drawn and
            depends on (seed, epoch, row) alone.
        roots: folders that a picture's path may lead to; the first is where relative ones start.
    """

    columns: Columns
    image_size: int = 256
    caption: int | None = None
    seed: int = 0
    epoch: int = 0
    roots: tuple[Path, ...] = ()

    def __post_init__(self):
        check_range("image_size", self.image_size, 16, 1024, kind=int)
        for name in ("seed", "epoch"):
            check_range(name, getattr(self, name), 0, kind=int)
        if self.caption is not None:
            check_range("caption", self.caption, 0, kind=int)

    def __call__(self, number: int, row: dict) -> tuple[torch.Tensor, str]:
        """uint8 (3, H, W) and a caption, or `BrokenPicture`."""
        captions = captions_of(look(row, self.columns.caption))
        if not captions:
            raise BrokenPicture("it has no caption")
        picture = read_picture(self._source(look(row, self.columns.image)), self.image_size)
        return picture, self._choose(number, captions)

    def name(self, number: int, row: dict) -> str:
        """What to call a row: its number, and its id or file."""
        picture = look(row, self.columns.image)
        path = picture.get("path") if isinstance(picture, dict) else picture if isinstance(picture, str) else None
        found = look(row, self.columns.id) if self.columns.id else path and os.path.basename(path)
        return f"row {number}" + (f" ({found})" if found not in (None, _NOTHING) else "")

    def _choose(self, number: int, captions: list[str]) -> str:
        if self.caption is not None:
            return captions[self.caption % len(captions)]
        return SplitMix64(self.seed, self.epoch, number).choice(captions)

    def _source(self, value) -> bytes | Path:
        if isinstance(value, dict):
            value = value.get("bytes") or value.get("path")
        if isinstance(value, bytes | bytearray):
            return bytes(value)
        if not isinstance(value, str) or not value:
            raise BrokenPicture("it has no picture")
        container = value.split("::")[-1]                        # "zip://picture::archive", out of an archive
        if container.startswith("hf://datasets/"):               # a stream from the hub
            return _remote(value)
        return _remote(value) if value.startswith("zip://") and self._inside(container) else self._inside(value)

    def _inside(self, path: str) -> Path:
        """A path that does not leave the data set's folders, whatever the data set says."""
        for root in self.roots:
            whole = os.path.normpath(os.path.join(root, path))
            if whole.startswith(os.path.join(root, "")):
                return Path(whole)
        raise BrokenPicture("its path leads out of the data set's folder")


def _remote(path: str) -> bytes:
    """The bytes of a picture in an archive or on the hub.

    Raises:
        BrokenPicture: it is missing or damaged.
        ValueError: the hub did not give it, and will not give the next one either.
    """
    from datasets.utils.file_utils import xopen
    try:
        with xopen(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        raise BrokenPicture("its file is missing") from None
    except Exception as error:                               # what archives and clients raise varies
        told = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        if "hf://" in path and not isinstance(error, zipfile.BadZipFile | zlib.error):
            raise ValueError(f"{path} cannot be fetched ({told}): check the network and start again.") from error
        raise BrokenPicture(told) from error


@dataclass
class Found:
    """What reading has shown so far: how many rows were seen, which of them are good, which are not and why."""

    name: str
    seen: int = 0
    good: list[int] = field(default_factory=list)
    broken: list[tuple[str, str]] = field(default_factory=list)

    def skip(self, row: str, why: BrokenPicture) -> None:
        self.broken.append((row, str(why)))
        if len(self.broken) <= NAMED:
            last = " Further ones are counted and not named here." if len(self.broken) == NAMED else ""
            warnings.warn(f"{row} of {self.name} is skipped: {why}.{last}", stacklevel=2)
        if not self.good and len(self.broken) >= HOPELESS:
            raise ValueError(f"None of the first {len(self.broken)} rows of {self.name} can be read ({row}: {why}); "
                             "are these its columns?")

    def report(self) -> str:
        """One line for the end: how many rows were skipped, and why, the commonest reasons first."""
        reasons: dict[str, list[str]] = {}
        for row, why in self.broken:
            reasons.setdefault(why, []).append(row)
        told = [f"{len(rows)} because {why} ({', '.join(rows[:3])}{', ...' if len(rows) > 3 else ''})"
                for why, rows in sorted(reasons.items(), key=lambda item: -len(item[1]))]
        return f"{self.name}: {len(self.broken)} of {self.seen} rows skipped" + (f": {'; '.join(told)}" if told else "")


def read_rows(reader: Reader, rows: list[tuple[int, dict]],
              threads: int) -> Iterator[tuple[int, tuple | BrokenPicture]]:
    """Read rows in order, several at once: Pillow lets go of Python's lock while it unpacks."""
    def one(numbered):
        try:
            return reader(*numbered)
        except BrokenPicture as why:
            return why
    if threads == 1 or len(rows) == 1:
        yield from ((row[0], one(row)) for row in rows)
        return
    with ThreadPoolExecutor(threads) as pool:
        yield from zip([number for number, _ in rows], pool.map(one, rows), strict=True)


def stack_pairs(pairs: list[tuple[torch.Tensor, str]]) -> tuple[torch.Tensor, list[str]]:
    """Pictures uint8 (B, 3, H, W) and captions of pairs."""
    return torch.stack([image for image, _ in pairs]), [caption for _, caption in pairs]


class NoSuchPicture(IndexError, ValueError):
    """An index behind the last picture: an IndexError to Python's loops, a user's mistake to the command line."""


def default_threads() -> int:
    """Threads that read pictures when nobody says how many."""
    return max(1, min(16, os.cpu_count() or 1))


class CaptionedImages:
    """A data set whose rows can be had in any order.

    Args:
        rows: a `datasets.Dataset` whose pictures are not decoded.
        reader: from a row to a picture and a caption.
        limit: no more pictures than that; None for all.
        name: for messages.  threads: that read pictures at once; None for as many as there are cores, at most 16.

    `broken` lists the skipped rows seen so far with the reason of each, `report()` sums them up.
    """

    def __init__(self, rows, reader: Reader, *, limit: int | None = None, name: str = "the data set",
                 threads: int | None = None):
        if limit is not None:
            check_range("num_images", limit, 1, kind=int)
        self.rows, self.reader, self.limit = rows, reader, limit
        self.threads = default_threads() if threads is None else threads
        check_range("threads", self.threads, 1, kind=int)
        self.found = Found(name)

    def __len__(self) -> int:
        """Pictures that can be read. The first call reads every one that was not read before."""
        self._read_on(len(self.rows) if self.limit is None else self.limit, {}, progress=True)
        if not self.found.good:
            raise ValueError(f"No picture can be read: {self.report()}.")
        return len(self.found.good) if self.limit is None else min(self.limit, len(self.found.good))

    def __getitem__(self, index: int) -> dict:
        """Picture `index`: "image" uint8 (3, H, W) and "caption"."""
        images, captions = self.batch([index])
        return {"image": images[0], "caption": captions[0]}

    def batch(self, indices) -> tuple[torch.Tensor, list[str]]:
        """Pictures uint8 (B, 3, H, W) and captions.

        Raises:
            NoSuchPicture: there are fewer that can be read.
        """
        indices = [int(index) for index in indices]
        kept = dict.fromkeys(indices)
        self._read_on(max(indices, default=-1) + 1, kept)
        for index in indices:
            if not 0 <= index < min(len(self.found.good), self.limit or len(self.rows)):
                raise NoSuchPicture(f"picture {index} does not exist; there are {len(self)} ({self.report()}).")
        again = sorted(index for index in kept if kept[index] is None)
        rows = self.rows_at([self.found.good[index] for index in again])
        for index, (number, pair) in zip(again, read_rows(self.reader, rows, self.threads), strict=True):
            if isinstance(pair, BrokenPicture):
                raise ValueError(f"row {number} of {self.found.name} could be read before and no longer can: {pair}.")
            kept[index] = pair
        return stack_pairs([kept[index] for index in indices])

    @property
    def broken(self) -> list[tuple[str, str]]:
        return self.found.broken

    def report(self) -> str:
        """How many of the rows seen so far were skipped, and why."""
        return self.found.report()

    def at_epoch(self, epoch: int) -> "CaptionedImages":
        """The same pictures with the captions of another epoch, where there are several."""
        other = copy.copy(self)                              # `found` stays shared: what is broken stays broken
        other.reader = replace(self.reader, epoch=epoch)
        return other

    def _read_on(self, good: int, kept: dict, progress: bool = False) -> None:
        """Read further rows until so many are good; keep those pictures whose index is in `kept`."""
        found, total = self.found, len(self.rows)
        with tqdm(total=total, initial=found.seen, desc="pictures", unit="row", leave=False, mininterval=1.0,
                  disable=not progress or total - found.seen <= BLOCK) as bar:
            while len(found.good) < good and found.seen < total:
                ahead = min(BLOCK, good - len(found.good))           # no further, or what is read now is read again
                numbers = range(found.seen, min(found.seen + ahead, total))
                rows = self.rows_at(numbers)
                for (number, pair), (_, row) in zip(read_rows(self.reader, rows, self.threads), rows, strict=True):
                    if isinstance(pair, BrokenPicture):
                        found.skip(self.reader.name(number, row), pair)
                    else:
                        if len(found.good) in kept:
                            kept[len(found.good)] = pair
                        found.good.append(number)
                    found.seen = number + 1
                bar.update(len(numbers))

    def rows_at(self, numbers) -> list[tuple[int, dict]]:
        """Rows by their numbers, each with its number, nothing of them read."""
        if not numbers:
            return []
        columns = self.rows[list(numbers)]                                                   # {column: values}
        return [(number, dict(zip(columns, values, strict=True)))
                for number, values in zip(numbers, zip(*columns.values(), strict=True), strict=True)]


def follow(rows, name: str) -> Iterator[dict]:
    """The rows of a stream; `ValueError` where an archive or a connection is cut."""
    number = 0
    try:
        for row in rows:
            yield row
            number += 1
    except Exception as error:                                # what is raised varies
        told = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise ValueError(f"{name} breaks off after {number} rows ({told}): fetch it again, or say fewer "
                         "num_images.") from error


class NoLength(ValueError, TypeError):
    """A user's mistake to us, and to Python, which asks for a length before it makes a list, no mistake at all."""


class CaptionStream:
    """A data set that comes as a stream, never whole on this disk; the same `.batch` for indices that only grow.

    Args:
        rows: a `datasets.IterableDataset` whose pictures are not decoded.
        limit: its length; a stream has none of its own.  The rest as for `CaptionedImages`.

    Iterating gives {"image", "caption"} dictionaries from the start. `batch` reads on, and starts again when asked
    for something that has passed.
    """

    def __init__(self, rows, reader: Reader, *, limit: int | None = None, name: str = "the stream",
                 threads: int | None = None):
        if limit is not None:
            check_range("num_images", limit, 1, kind=int)
        self.rows, self.reader, self.limit = rows, reader, limit
        self.threads = default_threads() if threads is None else threads
        check_range("threads", self.threads, 1, kind=int)
        self.found, self._pairs, self._next = Found(name), None, 0

    def __len__(self) -> int:
        if self.limit is None:
            raise NoLength(f"{self.found.name} is a stream and has no length: say num_images.")
        return self.limit

    def __iter__(self) -> Iterator[dict]:
        for image, caption in self._start(Found(self.found.name)):
            yield {"image": image, "caption": caption}

    def batch(self, indices) -> tuple[torch.Tensor, list[str]]:
        """Pictures uint8 (B, 3, H, W) and captions, for indices each larger than the one before.

        Raises:
            ValueError: the indices do not grow.
            NoSuchPicture: the stream has ended before.
        """
        indices = [int(index) for index in indices]
        if any(a >= b for a, b in zip([-1, *indices], indices, strict=False)):
            raise ValueError(f"A stream gives what comes next: indices must grow from 0 or above, got {indices[:8]}.")
        if self._pairs is None or (indices and indices[0] < self._next):
            self.found, self._next = Found(self.found.name), 0
            self._pairs = self._start(self.found)
        found = []
        for index in indices:
            while self._next <= index:
                pair = next(self._pairs, None)
                if pair is None:
                    raise NoSuchPicture(f"picture {index} does not exist; the stream has {self._next} "
                                        f"({self.report()}).")
                self._next += 1
            found.append(pair)
        return stack_pairs(found)

    @property
    def broken(self) -> list[tuple[str, str]]:
        return self.found.broken

    def report(self) -> str:
        """How many of the rows seen so far were skipped, and why."""
        return self.found.report()

    def _start(self, found: Found) -> Iterator[tuple[torch.Tensor, str]]:
        rows = enumerate(follow(self.rows, self.found.name))
        while self.limit is None or len(found.good) < self.limit:
            block = list(itertools.islice(rows, min(BLOCK, 4 * self.threads)))
            if not block:
                return
            for (number, pair), (_, row) in zip(read_rows(self.reader, block, self.threads), block, strict=True):
                found.seen = number + 1
                if isinstance(pair, BrokenPicture):
                    found.skip(self.reader.name(number, row), pair)
                elif self.limit is None or len(found.good) < self.limit:
                    found.good.append(number)
                    yield pair
