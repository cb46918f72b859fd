"""Files that are whole: there completely or not at all when written, and refused by name when they are damaged."""

import json
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


def write_text(path: Path, text: str) -> None:
    """A text in UTF-8."""
    with whole_file(path) as beside:
        beside.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, values) -> None:
    """JSON, indented."""
    write_text(path, json.dumps(values, indent=2) + "\n")


def write_tensors(path: Path, tensors: dict) -> None:
    """Tensors by name as safetensors, from whatever device."""
    from safetensors.torch import save_file
    with whole_file(path) as beside:
        save_file({name: t.detach().contiguous().cpu() for name, t in tensors.items()}, beside)


def read_json(path: Path, *needed: str) -> dict:
    """A JSON object from a file.

    Args:
        needed: keys that it must have.

    Raises:
        ValueError: it is none, or lacks one of them.
        FileNotFoundError: there is no such file.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read as JSON ({error}): fetch or write it again.") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path} holds a {type(values).__name__}, but must hold a JSON object.")
    lacks = [key for key in needed if key not in values]
    if lacks:
        raise ValueError(f"{path} lacks {', '.join(lacks)}: fetch or write it again.")
    return values
