"""Memory that a training step frees is kept for the next one; and what to do when there is not enough.

glibc gives large blocks back to the system as soon as they are freed, and the next step has them mapped and filled
with zeros again, page by page. A CPU step over 32 scenes did that 5,000 to 8,000 times, which was 12 % of the time of
mini with a diffusion head and 28 % of pico's with a softmax over 4,096 codes.
"""

import ctypes
import re
import sys
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import torch

from fluidlab.presets import SIZES
from fluidlab.train.checkpoint import checkpoints

RAN_OUT = re.compile(r"(?i)out of memory|(not enough|can't allocate|cannot allocate) memory|resource_?exhausted")
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3    # of glibc's malloc.h
LARGEST_MMAP_THRESHOLD = 32 * 2 ** 20          # what glibc accepts at most on 64-bit machines


def keep_freed_memory() -> bool:
    """Ask the allocator to keep what is freed, for the rest of the process; False where it cannot be asked."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):           # another C library, such as musl
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, LARGEST_MMAP_THRESHOLD) and mallopt(M_TRIM_THRESHOLD, 2 ** 31 - 1))


class OutOfMemory(MemoryError):
    """A lack of memory that was already put into a sentence."""


@contextmanager
def enough_memory(trainer, run: Path | None, finish: Callable[[], None]):
    """Around the steps: a lack of memory becomes one sentence that names the next smaller setting.

    Args:
        finish: waits for the checkpoint that is being written, which is whole then.

    Raises:
        OutOfMemory: there is not enough; what was saved stays.
    """
    told = None
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        told = lack_of_memory(error)
        if told is None:
            raise
    if told is not None:               # outside of the handler, whose traceback still holds every tensor of the step
        finish()
        saved = checkpoints(run) if run is not None else []
        kept = f"; the last complete checkpoint is {saved[-1].name}" if saved else ""
        raise OutOfMemory(f"step {trainer.done + 1} {told.rstrip('.')}: {next_smaller(trainer)}{kept}.")


def lack_of_memory(error: Exception) -> str | None:
    """What an exception says of a lack of memory, or None if it is of something else.

    The processor's allocator and XLA have no class for it, only a sentence.
    """
    if isinstance(error, OutOfMemory):
        return str(error)
    said = " ".join(str(error).split())[:200].rstrip(".")
    if not isinstance(error, MemoryError | torch.OutOfMemoryError) and not RAN_OUT.search(said):
        return None
    return f"ran out of memory{f' ({said})' if said else ''}."


def next_smaller(trainer) -> str:
    """The next thing to try, in the order of what it costs: fewer images at once, recomputing, a smaller model."""
    at_once, c = len(trainer.micro_batches[0]), trainer.model.config
    if at_once > 1:
        half = next(n for n in range(at_once // 2, 0, -1) if at_once % n == 0)
        return f"go on with --micro-batch {half} (it was {at_once})"
    if not trainer.config.checkpointing:
        return "go on with --checkpointing, which recomputes instead of remembering (--micro-batch is 1 already)"
    smaller = [name for name, size in SIZES.items() if (size["width"], size["depth"]) < (c.width, c.depth)]
    what = f"--preset {smaller[-1]}" if smaller else "a device with more memory"
    return f"take {what} in a new folder (--micro-batch is 1 and --checkpointing is on already)"
