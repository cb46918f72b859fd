"""Pictures of many models on one PNG, and in its text what each of them is.

The study's models are too many to ship, what they draw is not: rows of variants and prompts, columns of sizes.
"""

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image, PngImagePlugin
from torch import Tensor

from fluidlab.whole import whole_file

KEY = "fluidlab sheet"


def write_sheet(path: str | Path, pixels: Tensor, facts: dict) -> Path:
    """Write images as one PNG without gaps, and what is known of them into its text.

    Args:
        pixels: (rows, columns, 3, S, S), float in [-1, 1].
        facts: JSON; "rows" and "columns" name what the rows and columns are.

    Raises:
        ValueError: the names do not count as many rows and columns as there are.
    """
    path = Path(path)
    rows, columns, _, size, _ = pixels.shape
    named = (len(facts.get("rows", ())), len(facts.get("columns", ())))
    if named != (rows, columns):
        raise ValueError(f"the sheet has {rows} rows and {columns} columns, but names for {named[0]} and {named[1]}.")
    levels = ((pixels.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)          # (rows, columns, 3, S, S)
    array = levels.permute(0, 3, 1, 4, 2).reshape(rows * size, columns * size, 3)
    text = PngImagePlugin.PngInfo()
    text.add_itxt(KEY, json.dumps(facts))
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as beside:
        Image.fromarray(array.numpy()).save(beside, format="PNG", pnginfo=text, optimize=True)
    return path


def read_sheet(path: str | Path) -> tuple[Tensor, dict]:
    """The images (rows, columns, 3, S, S) in [-1, 1] and the facts of `write_sheet`.

    Raises:
        ValueError: there is no such file, or it is a PNG of something else.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path.name} is not in {path.parent.name}/; `fluidlab scale --draw` writes it.")
    with Image.open(path) as image:
        facts = json.loads(getattr(image, "text", {}).get(KEY, "{}"))
        array = np.asarray(image.convert("RGB"))
    rows, columns = len(facts.get("rows", ())), len(facts.get("columns", ()))
    size = array.shape[0] // max(1, rows)
    if not rows or not columns or array.shape[:2] != (rows * size, columns * size):
        raise ValueError(f"{path.name} is no sheet of square images: it names {rows} rows and {columns} columns for "
                         f"{array.shape[1]} x {array.shape[0]} pixels.")
    levels = torch.from_numpy(array.copy()).reshape(rows, size, columns, size, 3)
    return levels.permute(0, 2, 4, 1, 3).float() / 127.5 - 1, facts
