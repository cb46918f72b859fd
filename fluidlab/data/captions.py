"""Pictures with captions from any data set, one by one or as a stream: `.batch(indices) -> images, captions`.

A source like EmojiScenes, for `write_cache`. Rows that cannot be read are skipped, counted and named, and index i is
the i-th picture that can be read, so that nothing else ever sees a gap. Which rows those are is known only after
reading them; a length therefore costs one reading of everything. This file does not know where data sets come from
(captions_open.py does), nor how a row is read (captions_reading.py).
"""

import copy
import itertools
from collections.abc import Iterator
from dataclasses import replace

import torch
from tqdm.auto import tqdm

from fluidlab.config import check_range
from fluidlab.data.captions_reading import Found, Reader, default_threads, read_rows, stack_pairs
from fluidlab.data.pictures import BrokenPicture

BLOCK = 64                                               # rows read at a time


class NoSuchPicture(IndexError, ValueError):
    """An index behind the last picture: an IndexError to Python's loops, a user's mistake to the command line."""


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
