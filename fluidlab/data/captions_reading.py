"""From rows to pictures and captions, several at once; what cannot be read is named and counted.

What may be broken in a stranger's data set is expected to be. What a picture may be is told by pictures.py.
"""

import os
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import torch

from fluidlab.config import check_range
from fluidlab.data.captions_columns import NOTHING, Columns, captions_of, look
from fluidlab.data.pictures import BrokenPicture, read_picture
from fluidlab.data.splitmix import SplitMix64

HOPELESS = 256                                           # this many unreadable rows from the start are no accident
NAMED = 20                                               # skipped rows that a warning names, one by one


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
        return f"row {number}" + (f" ({found})" if found not in (None, NOTHING) else "")

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


def default_threads() -> int:
    """Threads that read pictures when nobody says how many."""
    return max(1, min(16, os.cpu_count() or 1))
