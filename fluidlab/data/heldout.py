"""Which compositions training never shows: some pairs of classes, some coloured classes.

A model that draws them must have understood the parts, for it cannot have memorised the whole. The choice hangs on the
names alone, so that it is the same for every seed, size and dial.
"""

import functools
import itertools

from fluidlab.data.splitmix import hash_text

HELDOUT_SHARE = 10  # per cent of the pairs and of the coloured classes


@functools.cache
def is_heldout_pair(first: str, second: str) -> bool:
    """Whether two classes are kept apart in training, in either order."""
    return hash_text("pair " + " + ".join(sorted((first, second)))) % 100 < HELDOUT_SHARE


@functools.cache
def is_heldout_color(name: str, color: str) -> bool:
    """Whether a class never has this colour in training."""
    return hash_text(f"color {color} {name}") % 100 < HELDOUT_SHARE


def is_heldout(objects: list[dict]) -> bool:
    """Whether objects ({"class", "color" or None}) show a composition that training never does."""
    pairs = itertools.combinations(sorted({thing["class"] for thing in objects}), 2)
    painted = {(thing["class"], thing["color"]) for thing in objects if thing["color"]}
    return any(is_heldout_pair(*pair) for pair in pairs) or any(is_heldout_color(*both) for both in painted)
