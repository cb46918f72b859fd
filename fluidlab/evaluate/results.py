"""`data/results.csv`: every number that is shown, with the command and the commit that made it."""

import csv
import shlex
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import torch

from fluidlab.config import data_dir
from fluidlab.whole import whole_file

COLUMNS = ("order", "head", "preset", "params", "steps", "seed", "metric", "value", "torch", "commit", "command")


def results_file() -> Path:
    return data_dir() / "results.csv"


def provenance() -> dict[str, str]:
    """torch's version, the commit of the clone ("unknown" in a wheel) and the command of this process."""
    package = Path(__file__).resolve().parent
    try:
        commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=package, capture_output=True, text=True,
                                check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        commit = "unknown"
    command = shlex.join(["fluidlab", *sys.argv[1:]])
    return {"torch": torch.__version__.split("+")[0], "commit": commit, "command": command}


def append_results(rows: list[dict], path: str | Path | None = None) -> Path:
    """Add rows; a row that measures the same thing of the same model again replaces the old one, which goes.

    Args:
        rows: dictionaries with the keys of `COLUMNS`.  path: default `results_file()`.

    Raises:
        ValueError: a row with other keys, or a file with other columns; nothing is written then.
    """
    path = Path(path or results_file())
    for row in rows:
        if set(row) != set(COLUMNS):
            raise ValueError(f"a row of results must have {', '.join(COLUMNS)}, got {', '.join(row)}.")
    kept = {_what(row): row for row in read_results(path)} if path.exists() else {}
    for row in rows:
        kept.pop(_what(row), None)                       # the newest stand last
        kept[_what(row)] = {k: str(v) for k, v in row.items()}
    return write_table(kept.values(), COLUMNS, path)


def write_table(rows: Iterable[dict], columns: tuple[str, ...], path: Path) -> Path:
    """Write a CSV file beside the old one and put it in its place, so that it is never half there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as beside, beside.open("w", newline="", encoding="utf-8") as f:
        writer = csv.DictWriter(f, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return path


def read_table(path: Path, columns: tuple[str, ...], writer: str) -> list[dict[str, str]]:
    """All rows of a CSV file.

    Raises:
        ValueError: the file is missing (then the sentence names its writer) or has other columns.
    """
    if not path.is_file():
        raise ValueError(f"{path.name} is not in {path.parent.name}/; {writer} writes it.")
    with path.open(newline="", encoding="utf-8") as f:
        reader = csv.DictReader(f)
        if tuple(reader.fieldnames or ()) != columns:
            raise ValueError(f"{path.name} must have the columns {', '.join(columns)}, "
                             f"got {', '.join(reader.fieldnames or ())}.")
        return list(reader)


def read_results(path: str | Path | None = None, **where: str) -> list[dict[str, str]]:
    """The rows whose columns equal `where`, for example `read_results(order="random", metric="val_loss")`.

    Raises:
        ValueError: the file is missing or has other columns.
    """
    rows = read_table(Path(path or results_file()), COLUMNS, "a training or evaluation command")
    return [row for row in rows if all(row[k] == str(v) for k, v in where.items())]


def _what(row: dict) -> tuple:
    return tuple(str(row[k]) for k in COLUMNS if k not in ("value", "torch", "commit", "command"))
