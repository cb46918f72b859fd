"""A file is there completely or not at all, whenever a process is stopped and however full the disk is."""

import os
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_file(path: Path):
    """Gives a path beside a file to write to; it gets the file's name when all is written, and is removed if not.

    Raises:
        OSError: it could not be written, as safetensors too says it; the former file is untouched.
    """
    beside = path.with_name(path.name + ".part")
    try:
        yield beside
        os.replace(beside, path)
    except BaseException as error:                                       # Ctrl-C too
        beside.unlink(missing_ok=True)
        if type(error).__name__ == "SafetensorError":                    # of a library that not every room has
            raise OSError(f"{path} could not be written ({error}).") from error
        raise
