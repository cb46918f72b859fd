"""Every choice a run can make, in three frozen dataclasses, and where the shipped files live.

This file knows no layer, no data set and no device. A configuration is checked the moment it is made, so that a
mistake is named before the first step and not after the first hour. All three travel as plain JSON.
"""

import dataclasses
import math
import os
from dataclasses import dataclass
from pathlib import Path

ORDER_NAMES = ("raster", "random")
HEAD_KINDS = {"softmax": "discrete", "diffusion": "continuous", "flow": "continuous"}


def data_dir() -> Path:
    """The folder of the files that the course ships.

    Returns:
        `$FLUIDLAB_DATA` if it is set, else `data/` beside the package (a clone), else `fluidlab/_data` (a wheel).
    """
    if os.environ.get("FLUIDLAB_DATA"):
        return Path(os.environ["FLUIDLAB_DATA"])
    package = Path(__file__).resolve().parent
    clone = package.parent / "data"
    return clone if (clone / "README.md").exists() else package / "_data"
