"""The rows of a data set by their own numbers: those of a batch that can be read, whichever these are.

So a cache can be made of all pictures of a data set without reading it first to count them, and several processes can
share it without each reading what the others do.
"""

import torch

from fluidlab.data.captions import CaptionedImages
from fluidlab.data.captions_reading import read_rows, stack_pairs
from fluidlab.data.pictures import BrokenPicture


class EveryRow:
    """A source for `write_cache` whose batches may be shorter than what is asked for.

    Args:
        images: whose rows, threads and list of broken ones are used.

    `len` is the number of rows, readable or not.
    """

    def __init__(self, images: CaptionedImages):
        self.images = images

    def __len__(self) -> int:
        return len(self.images.rows)

    def batch(self, numbers) -> tuple[torch.Tensor, list[str]]:
        """Pictures uint8 (b, 3, H, W) and captions of those rows that can be read, in their order."""
        images, found, pairs = self.images, self.images.found, []
        rows = images.rows_at([int(number) for number in numbers])
        for (number, pair), (_, row) in zip(read_rows(images.reader, rows, images.threads), rows, strict=True):
            found.seen += 1
            if isinstance(pair, BrokenPicture):
                found.skip(images.reader.name(number, row), pair)
            else:
                found.good.append(number)
                pairs.append(pair)
        side = images.reader.image_size
        return stack_pairs(pairs) if pairs else (torch.empty(0, 3, side, side, dtype=torch.uint8), [])

    def report(self) -> str:
        """How many of the rows read so far were skipped, and why."""
        return self.images.report()
