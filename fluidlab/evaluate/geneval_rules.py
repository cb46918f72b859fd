"""GenEval's rules: from the objects that were found in a picture to right or wrong, and why.

Nothing here looks at a picture. Detections come in, are thinned out as the published evaluator thins them out, and are
held against a prompt; colours are asked of a function, only for the objects whose colour the prompt names. The numbers
are the published ones (Ghosh et al. 2023, 2310.11513, section 3, and its code's defaults). What to notice: the detector
is believed from 0.3 on, but from 0.9 when it counts, since a doubtful third object would spoil a right count.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from fluidlab.config import check_range
from fluidlab.evaluate.geneval_prompts import CLASSES
from fluidlab.evaluate.sceneval import MARGIN, relations


@dataclass(frozen=True)
class Found:
    """An object in a picture: class, how sure, box (left, top, right, bottom) in pixels, and its pixels (H, W) bool.

    `color` is for whoever knows it already; the judge's CLIP is asked otherwise.
    """

    name: str
    score: float
    box: tuple[float, float, float, float]
    mask: np.ndarray | None = field(default=None, compare=False, repr=False)
    color: str | None = None


@dataclass(frozen=True, kw_only=True)
class Rules:
    """The published numbers.

    Args:
        threshold, counting_threshold: an object counts if the detector is surer than that.
        max_objects: of a class, the surest.
        max_overlap: of two boxes of a class that overlap by so much (intersection over union) or more only the surer
            counts; 1 keeps all, as published.
        margin: of the boxes' sides, within which two middles are neither left nor right, above nor below.
    """

    threshold: float = 0.3
    counting_threshold: float = 0.9
    max_objects: int = 16
    max_overlap: float = 1.0
    margin: float = MARGIN

    def __post_init__(self):
        for name in ("threshold", "counting_threshold", "max_overlap", "margin"):
            check_range(name, getattr(self, name), 0, 1)
        check_range("max_objects", self.max_objects, 1, kind=int)


PUBLISHED = Rules()


def kept(found: list[Found], task: str, rules: Rules = PUBLISHED) -> dict[str, list[Found]]:
    """Class to the objects that count for a prompt of this task, the surest first; classes without any are left out."""
    floor = rules.counting_threshold if task == "counting" else rules.threshold
    objects = {}
    for name in CLASSES:
        sure = [thing for thing in found if thing.name == name and thing.score > floor]
        sure = sorted(sure, key=lambda thing: -thing.score)[:rules.max_objects]
        chosen: list[Found] = []
        for thing in sure:
            if rules.max_overlap == 1 or all(overlap(thing.box, c.box) < rules.max_overlap for c in chosen):
                chosen.append(thing)
        if chosen:
            objects[name] = chosen
    return objects


def overlap(a: tuple, b: tuple) -> float:
    """Intersection over union of two boxes whose edges are pixels that belong to them (so 0 to 9 is 10 wide)."""
    def area(left: float, top: float, right: float, bottom: float) -> float:
        return max(right - left + 1, 0) * max(bottom - top + 1, 0)

    shared = area(max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3]))
    union = area(*a) + area(*b) - shared
    return shared / union if union else 0.0


def known_colors(name: str, things: list[Found]) -> list[str | None]:
    """The colours that are written on the objects."""
    return [thing.color for thing in things]


def faults(prompt: dict, objects: dict[str, list[Found]],
           colors_of: Callable[[str, list[Found]], list] = known_colors, margin: float = MARGIN) -> list[str]:
    """What is wrong with a picture, one sentence a wish; an empty list if it shows what the prompt asks for.

    Of a class as many objects are looked at as are asked for, the surest; more of them do no harm unless the prompt
    excludes them, as the counting prompts do.

    Args:
        prompt: with `include` and maybe `exclude`, as `geneval_prompts` gives it.
        objects: as `kept` gives them.
        colors_of: class and objects to a colour for each.
    """
    said, targets = [], []
    for wish in prompt["include"]:
        things = objects.get(wish["class"], [])[:wish["count"]]
        fault = _fault(wish, things, targets, colors_of, margin)
        targets.append([] if fault else things)                                          # a wrong object is no target
        said += [fault] if fault else []
    for wish in prompt.get("exclude", []):
        there = len(objects.get(wish["class"], []))
        if there >= wish["count"]:
            said.append(f"{there} {wish['class']}, which is not fewer than {wish['count']}")
    return said


def _fault(wish: dict, things: list[Found], targets: list[list[Found]], colors_of: Callable, margin: float) -> str:
    """The first thing that is wrong with one wish, in words; empty if nothing is."""
    name, count = wish["class"], wish["count"]
    if len(things) < count:
        return f"{len(things)} of {count} {name}"
    if "color" in wish:
        seen = colors_of(name, things)
        if seen.count(wish["color"]) < count:
            return f"{name} is {' and '.join(map(str, seen))}, not {wish['color']}"
    if "position" in wish:
        relation, target = wish["position"]
        if not targets[target]:
            return f"nothing there for {name} to be {relation}"
        for thing in things:
            for other in targets[target]:
                holds = relations(thing.box, other.box, margin)
                if relation not in holds:
                    return f"{name} is {' and '.join(sorted(holds)) or 'beside'} the {other.name}, not {relation}"
    return ""
