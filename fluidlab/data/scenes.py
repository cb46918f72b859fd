"""EmojiScenes: a text-to-image problem that fits into a pip package, with the truth about every picture known.

A scene shows 1 to 4 objects on a soft background, and its caption asks for one of GenEval's six skills. Scene i of a
split is made from (split, seed, i) alone, by whole numbers only (see atlas.py and splitmix.py), so it has the same
bytes on every machine and there is no end of them. It knows nothing of models or tokens.

What to notice: background hue, gradient and offset are continuous, which is what a discrete code must lose; and some
pairs of classes and some coloured classes never occur outside the test split, so that composition can be told from
memory.
"""

import itertools
import operator
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import Dataset

from fluidlab.config import check_type
from fluidlab.data.atlas import CLASSES, COLORS, scale_layers, tint
from fluidlab.data.grammar import RELATIONS, SKILLS, describe
from fluidlab.data.heldout import is_heldout, is_heldout_color, is_heldout_pair
from fluidlab.data.splitmix import SplitMix64, hash_text

# The dials. Lengths are pixels of a 64-pixel scene and grow with the image.
SIZES = {"train": 1_000_000, "validation": 10_000, "test": 10_000}  # scenes a split has unless told otherwise
SKILL_MIX = ("single_object", "two_object", "counting", "colors", "position", "color_attr")  # drawn evenly from this
CELL = 32                          # 2x2 cells, one object each, so that objects never overlap
SMALL = (26, 28, 30)               # the longer side of an object in its cell
LARGE = (40, 44, 48)               # and of a single object that has the scene to itself
LARGE_SHARE = 33                   # per cent of the scenes with one object
OFFSET = 2                         # how far an object may lie from the middle of its cell
COUNTS = (2, 3, 4)
IMAGE_SIZES = tuple(range(64, 257, 16))
EXTRA_COLOR_SHARE = 25             # per cent of the counting and position scenes that name colours too
PALE = (214, 252)                  # range of each channel of a background's two hues
HELDOUT_TEST_SHARE = 50            # per cent of the test scenes of COMPOSED skills that show one of these
COMPOSED = ("two_object", "colors", "position", "color_attr")
CACHE_BYTES = 128 * 2**20          # of ready sprites; a 64-pixel data set needs a fifth of it


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A scene before it is drawn. `cells` holds for each object where it may lie: (x, y, side, size), 64-pixel units;
    `relation` is where the first object lies as seen from the second, or None."""

    skill: str
    objects: list[dict]
    relation: str | None
    cells: list[tuple[int, int, int, int]]
    heldout: bool


def _check(name: str, value, allowed) -> None:
    if value not in allowed or type(value) is not type(allowed[0]):
        raise ValueError(f"{name} is {value!r}; allowed are {', '.join(map(repr, allowed))}.")


def _whole(index) -> int:
    """An index as a plain number, if it is a whole one of any library."""
    try:
        return operator.index(index)
    except TypeError:
        raise ValueError(f"the index of a scene is {index!r}; allowed are whole numbers.") from None


class EmojiScenes(Dataset):
    """Pictures of emoji with captions; a map-style data set.

    Args:
        split: "train", "validation" or "test". Only "test" shows the held-out compositions.
        image_size: side in pixels, a multiple of 16 from 64 to 256.
        seed: another number gives other scenes, at least 0.
        size: how many scenes there are; None for SIZES[split]. Scenes are made when asked for, so any number will do.
        num_classes, num_colors: use the first of CLASSES and of COLORS only; None for all.
        offset: how far an object may lie from the middle of its cell, in pixels of a 64-pixel scene.
        backgrounds: False for plain white.
        skills: the skills that scenes are drawn from, evenly; repeat one to have more of it.

    Raises:
        ValueError: an argument is outside its range.
        IndexError: `scenes[i]` with i outside [0, len(scenes)).
    """

    def __init__(self, split="train", image_size=64, seed=0, *, size=None, num_classes=None, num_colors=None,
                 offset=OFFSET, backgrounds=True, skills=SKILL_MIX):  # fmt: skip
        _check("split", split, tuple(SIZES))
        _check("image_size", image_size, IMAGE_SIZES)
        num_classes = len(CLASSES) if num_classes is None else num_classes
        num_colors = len(COLORS) if num_colors is None else num_colors
        size = SIZES[split] if size is None else size
        for name, value, low, high in (("seed", seed, 0, 2**63 - 1), ("size", size, 1, 2**63 - 1),
                                       ("num_classes", num_classes, 4, len(CLASSES)), ("offset", offset, 0, 32),
                                       ("num_colors", num_colors, 2, len(COLORS))):  # fmt: skip
            if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
                raise ValueError(f"{name} is {value!r}; allowed are whole numbers from {low} to {high}.")
        if not isinstance(skills, tuple | list) or not skills:
            raise ValueError(f"skills is {skills!r}; allowed are lists of {', '.join(map(repr, SKILLS))}.")
        for skill in skills:
            _check("skill", skill, SKILLS)
        _check("backgrounds", backgrounds, (True, False))
        self.split, self.image_size, self.seed, self.size = split, image_size, seed, size
        self.classes, self.colors = CLASSES[:num_classes], tuple(COLORS)[:num_colors]
        self.offset, self.backgrounds, self.skills = offset, backgrounds, tuple(skills)
        self._can_hold_out = self._skills_with_heldout() if split == "test" else frozenset()
        self._forget()

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> dict:
        """Scene `index`: "image" uint8 (3, H, W), "caption", "objects" [{"class", "color" or None, "box"}], "skill",
        "heldout". A box is [x0, y0, x1, y1] in pixels, x1 and y1 just outside, tight around what is visible."""
        rng = self._rng(index)
        plan = self._plan(rng)
        caption = describe(plan.skill, plan.objects, plan.relation, rng)
        image = np.empty((3, self.image_size, self.image_size), np.uint8)
        boxes = self._draw(plan, rng, image)
        objects = [{**thing, "box": box} for thing, box in zip(plan.objects, boxes, strict=True)]
        return {"image": torch.from_numpy(image), "caption": caption, "objects": objects, "skill": plan.skill,
                "heldout": plan.heldout}  # fmt: skip

    def batch(self, indices) -> tuple[torch.Tensor, list[str]]:
        """Images uint8 (B, 3, H, W) and captions of several scenes, equal to those of `scenes[i]`."""
        check_type("indices", indices, Iterable, "a list of whole numbers")
        indices = [_whole(index) for index in indices]
        images = np.empty((len(indices), 3, self.image_size, self.image_size), np.uint8)
        captions = []
        for index, image in zip(indices, images, strict=True):
            rng = self._rng(index)
            plan = self._plan(rng)
            captions.append(describe(plan.skill, plan.objects, plan.relation, rng))
            self._draw(plan, rng, image)
        return torch.from_numpy(images), captions

    def caption(self, index: int, canonical: bool = False) -> str:
        """The caption of a scene without drawing it; `canonical` for GenEval's plain wording."""
        rng = self._rng(index)
        plan = self._plan(rng)
        return describe(plan.skill, plan.objects, plan.relation, None if canonical else rng)

    def plan(self, index: int) -> Plan:
        """What a scene shows, without drawing it."""
        return self._plan(self._rng(index))

    def as_hf_dataset(self, num_scenes: int):
        """The first `num_scenes` scenes as a Hugging Face `datasets.Dataset`.

        Columns: image (datasets.Image), caption, boxes, classes, colors ("" for natural), skill, heldout.
        """
        from fluidlab.data.scenes_hf import to_hf_dataset  # imports `datasets`, which takes a second

        return to_hf_dataset(self, num_scenes)

    def _rng(self, index: int) -> SplitMix64:
        if not 0 <= _whole(index) < self.size:
            raise IndexError(f"scene {index} does not exist; this split has scenes 0 to {self.size - 1}.")
        return SplitMix64(hash_text(self.split), self.seed, int(index))

    def _skills_with_heldout(self) -> frozenset[str]:
        """The skills of which the dials leave something held out; a handful of classes may leave nothing."""
        pairs = any(is_heldout_pair(a, b) for a, b in itertools.combinations(self.classes, 2))
        colors = any(is_heldout_color(a, b) for a, b in itertools.product(self.classes, self.colors))
        return frozenset(skill for skill in COMPOSED if (colors if skill == "colors" else pairs))

    def _plan(self, rng: SplitMix64) -> Plan:
        skill = rng.choice(self.skills)
        wanted = skill in self._can_hold_out and rng.below(100) < HELDOUT_TEST_SHARE
        for _ in range(10_000):  # about ten tries when wanted, one when not
            objects = self._draw_objects(rng, skill)
            heldout = is_heldout(objects)
            if heldout == wanted:
                relation = rng.choice(tuple(RELATIONS)) if skill == "position" else None
                cells = _place(rng, len(objects), relation)
                return Plan(skill=skill, objects=objects, relation=relation, cells=cells, heldout=heldout)
        raise AssertionError(f"no {skill} scene with heldout={wanted} in {len(self.classes)} classes")

    def _draw_objects(self, rng: SplitMix64, skill: str) -> list[dict]:
        painted = skill in ("colors", "color_attr")
        if skill in ("counting", "position"):
            painted = rng.below(100) < EXTRA_COLOR_SHARE
        kinds = 1 if skill in ("single_object", "colors", "counting") else 2
        names = rng.sample(self.classes, kinds)
        colors = rng.sample(self.colors, kinds) if painted else [None] * kinds
        copies = rng.choice(COUNTS) if skill == "counting" else 1
        return [{"class": name, "color": color} for name, color in zip(names, colors, strict=True)] * copies

    def _draw(self, plan: Plan, rng: SplitMix64, image: np.ndarray) -> list[list[int]]:
        """Fill `image` (3, H, W) uint8; return the boxes."""
        _paint_background(rng, image, self.backgrounds)
        boxes = []
        for thing, (x, y, side, size) in zip(plan.objects, plan.cells, strict=True):
            scale = self.image_size
            ink, through = self._sprite(thing["class"], thing["color"], size * scale // 64)
            h, w = through.shape
            reach = self.offset * scale // 64
            x0 = x * scale // 64 + _wander(rng, side * scale // 64 - w, reach)
            y0 = y * scale // 64 + _wander(rng, side * scale // 64 - h, reach)
            _composite(image[:, y0 : y0 + h, x0 : x0 + w], ink, through)
            boxes.append([x0, y0, x0 + w, y0 + h])
        return boxes

    def _sprite(self, name: str, color: str | None, size: int) -> tuple[np.ndarray, np.ndarray]:
        """A sprite in one colour; the first use of a class and size makes all its colours."""
        if (name, size) not in self._sprites:
            scaled = scale_layers(name, size)
            self._sprites[name, size] = made = {kind: tint(*scaled, kind) for kind in (None, *self.colors)}
            self._cached += sum(part.nbytes for sprite in made.values() for part in sprite)
            while self._cached > CACHE_BYTES and len(self._sprites) > 1:
                oldest = self._sprites.pop(next(iter(self._sprites)))
                self._cached -= sum(part.nbytes for sprite in oldest.values() for part in sprite)
        return self._sprites[name, size][color]

    def _forget(self) -> None:
        self._sprites, self._cached = {}, 0

    def __getstate__(self) -> dict:  # a worker process gets the recipe, not the cache
        return {**self.__dict__, "_sprites": {}, "_cached": 0}


def _place(rng: SplitMix64, count: int, relation: str | None) -> list[tuple[int, int, int, int]]:
    """Choose for every object where it may lie: (x, y, side, size) in 64-pixel units."""
    if count == 1 and rng.below(100) < LARGE_SHARE:
        return [(0, 0, 2 * CELL, rng.choice(LARGE))]
    if relation is None:
        cells = rng.sample(((0, 0), (1, 0), (0, 1), (1, 1)), count)
    else:
        lane = rng.below(2)
        cells = [(0, lane), (1, lane)] if relation in ("left of", "right of") else [(lane, 0), (lane, 1)]
        cells = cells[::-1] if relation in ("right of", "below") else cells
    return [(x * CELL, y * CELL, CELL, rng.choice(SMALL)) for x, y in cells]


def _wander(rng: SplitMix64, room: int, reach: int) -> int:
    """Where an object starts when `room` pixels are free: the middle, or up to `reach` pixels beside it."""
    middle = room // 2
    return rng.between(max(0, middle - reach), min(room, middle + reach))


def _paint_background(rng: SplitMix64, image: np.ndarray, gradient: bool) -> None:
    """Fill `image` (3, H, W) uint8 with a straight gradient between two pale hues, in 16-bit fixed point."""
    if not gradient:
        image[:] = 255
        return
    side = image.shape[-1]
    start, end = ([rng.between(*PALE) for _ in range(3)] for _ in range(2))
    dx, dy = rng.between(-64, 64), rng.between(-64, 64)
    span = max(1, (abs(dx) + abs(dy)) * (side - 1))
    first = -(min(dx, 0) + min(dy, 0)) * (side - 1)      # so that the corner where the gradient starts is 0
    ramp = np.arange(side, dtype=np.int32)
    for channel, low, high in zip(image, start, end, strict=True):
        slope = ((high - low) << 16) // span
        row = ramp * (slope * dx) + ((low << 16) + slope * first)                     # (W,)
        channel[:] = (row + (ramp * (slope * dy))[:, None]) >> 16                     # (H, W)


def _composite(target: np.ndarray, ink: np.ndarray, through: np.ndarray) -> None:
    """Lay a sprite over `target` (3, h, w) uint8, in place: ink + target * through / 255, rounded, exactly."""
    light = np.multiply(target, through, dtype=np.uint16)
    light += 128
    light += light >> 8
    light >>= 8
    np.add(light, ink, out=target, casting="unsafe")


def prompts(skill: str, n: int, heldout: bool | None = None, seed: int = 0, **dials) -> list[dict]:
    """Prompts for evaluation, in GenEval's plain wording.

    Args:
        skill: one of SKILLS.
        n: how many; a prompt can come twice, as classes are few.
        heldout: True for compositions that training never shows, False for those that it may, None for the test
            split's own mix. "single_object" and "counting" have none that are held out.
        seed: another number gives others.
        **dials: `num_classes`, `num_colors`, as for EmojiScenes.

    Returns:
        Dictionaries with "caption", "skill", "objects" [{"class", "color"}] (as many as must be seen), "relation"
        (where the first object is to lie as seen from the second, or None) and "heldout".
    """
    _check("skill", skill, SKILLS)
    if heldout and skill not in COMPOSED:
        raise ValueError(f"skill {skill!r} has no held-out prompts; allowed are {', '.join(map(repr, COMPOSED))}.")
    if n < 1:
        raise ValueError(f"n is {n}; allowed are whole numbers from 1.")
    stream = SplitMix64(hash_text(f"prompts {skill}"), seed).next() >> 1
    split = "train" if heldout is False else "test"
    source = EmojiScenes(split, seed=stream, size=100 * n, skills=(skill,), **dials)
    if heldout and skill not in source._can_hold_out:
        raise ValueError(f"{len(source.classes)} classes hold nothing out for {skill!r}; allowed are more classes.")
    found = []
    for plan in map(source.plan, range(len(source))):
        extra = skill in ("counting", "position") and plan.objects[0]["color"]  # GenEval names no colour there
        if not extra and heldout in (None, plan.heldout):
            found.append({"caption": describe(skill, plan.objects, plan.relation), "skill": skill,
                          "objects": plan.objects, "relation": plan.relation, "heldout": plan.heldout})  # fmt: skip
        if len(found) == n:
            break
    return found
