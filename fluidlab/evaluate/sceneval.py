"""SceneEval: GenEval's six skills, asked of scenes and judged by a detector.

The rules are those of GenEval (Ghosh, Hajishirzi and Schmidt, NeurIPS 2023, section 3): all objects there, counts
exact, the colour of the surest object right, positions by the middles of the boxes with a margin, colours attributed
object by object. One thing differs: GenEval believes its detector from 0.3 on, and from 0.9 when it counts; ours is
another detector and is believed from 0.5 on. Half of the prompts of the composed skills name pairs and colours that
training never shows; they are reported apart. What to notice: a score is only worth something between its two ends,
what the judge says of true scenes (`ceiling`) and of questions that a scene does not answer (`mismatched`).
"""

import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from fluidlab.data.scenes import COMPOSED, SKILL_MIX, EmojiScenes, prompts
from fluidlab.evaluate.detector import Detection, Detector
from fluidlab.evaluate.statistics import Interval, wilson

MARGIN = 0.1           # of the two boxes' sides: middles closer than this are neither left nor right (GenEval)
PROMPTS_PER_SKILL = 100
SKILLS = SKILL_MIX


@dataclass(frozen=True)
class Verdict:
    """What the judge says of one image, and why not. `question` tells images of one prompt from those of another."""

    skill: str
    heldout: bool
    correct: bool
    reason: str = ""
    question: tuple = ()


def prompt_list(per_skill: int = PROMPTS_PER_SKILL, seed: int = 0) -> list[dict]:
    """The fixed prompts: `per_skill` of each skill, of the composed skills half with held-out compositions.

    Raises:
        ValueError: fewer than two a skill.
    """
    if per_skill < 2:
        raise ValueError(f"per_skill must be at least 2, so that half can be held out, got {per_skill}.")
    chosen = []
    for skill in SKILLS:
        if skill in COMPOSED:
            half = per_skill // 2
            chosen += prompts(skill, per_skill - half, heldout=False, seed=seed)
            chosen += prompts(skill, half, heldout=True, seed=seed)
        else:
            chosen += prompts(skill, per_skill, seed=seed)
    return chosen


def judge(prompt: dict, found: list[Detection]) -> Verdict:
    """Whether the objects that were found are what the prompt asks for.

    Args:
        prompt: as `prompt_list` gives them, with skill, objects, relation and heldout.
        found: of one image, the surest first.
    """
    reason = _fault(prompt, found)
    return Verdict(prompt["skill"], prompt["heldout"], reason == "", reason, question(prompt))


def question(prompt: dict) -> tuple:
    """What a prompt asks for, the same for prompts that ask the same: "a left of b" is "b right of a"."""
    things = [(thing["class"], thing["color"] or "") for thing in prompt["objects"]]
    relation = prompt["relation"]
    if relation is not None and things[0] > things[1]:
        relation = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}[relation]
    return prompt["skill"], tuple(sorted(things)), relation


def _fault(prompt: dict, found: list[Detection]) -> str:
    """The first thing that is wrong, in words; empty if nothing is."""
    wanted = prompt["objects"]
    of = {thing["class"]: [d for d in found if d.name == thing["class"]] for thing in wanted}
    for name, there in of.items():
        asked = sum(thing["class"] == name for thing in wanted)
        if len(there) < asked:
            return f"{len(there)} of {asked} {name}"
        if prompt["skill"] == "counting" and len(there) > asked:
            return f"{len(there)} instead of {asked} {name}"
    for thing in wanted:
        color = of[thing["class"]][0].color
        if thing["color"] is not None and color != thing["color"]:
            return f"{thing['class']} is {color}, not {thing['color']}"
    if prompt["relation"] is not None:
        first, second = (of[thing["class"]][0] for thing in wanted)
        seen = relations(first.box, second.box)
        if prompt["relation"] not in seen:
            return f"{first.name} is {' and '.join(sorted(seen)) or 'beside nothing'}, not {prompt['relation']}"
    return ""


def relations(a: tuple, b: tuple, margin: float = MARGIN) -> set[str]:
    """Where box a lies as seen from box b: up to two of "left of", "right of", "above", "below" (GenEval's rule).

    Of the middles' offset only what lies beyond `margin` times the sum of both boxes' sides counts, and a direction
    holds when that is more than half of the whole distance.
    """
    middle = [((box[0] + box[2]) / 2, (box[1] + box[3]) / 2) for box in (a, b)]
    sides = [(box[2] - box[0], box[3] - box[1]) for box in (a, b)]
    offset = [middle[0][axis] - middle[1][axis] for axis in (0, 1)]
    beyond = [max(0.0, abs(offset[axis]) - margin * (sides[0][axis] + sides[1][axis])) for axis in (0, 1)]
    if max(beyond) < 1e-3:
        return set()
    x, y = (math.copysign(rest, way) / math.hypot(*offset) for rest, way in zip(beyond, offset, strict=True))
    return {name for name, holds in (("left of", x < -0.5), ("right of", x > 0.5), ("above", y < -0.5),
                                     ("below", y > 0.5)) if holds}


def judge_images(detector: Detector, images: Iterable[Tensor], asked: list[dict]) -> list[Verdict]:
    """Verdicts on batches of images (B, 3, S, S) in [-1, 1]; image i answers prompt i of `asked`.

    Raises:
        ValueError: there are more or fewer images than prompts.
    """
    found = [objects for batch in images for objects in detector.detect(batch)]
    if len(found) != len(asked):
        raise ValueError(f"every image needs its prompt, got {len(found)} images and {len(asked)} prompts.")
    return [judge(prompt, objects) for prompt, objects in zip(asked, found, strict=True)]


@dataclass(frozen=True)
class Scores:
    """Shares of correct images with Wilson's intervals: of each skill, and overall = the mean of the six (GenEval).

    Images of one prompt succeed and fail together, so each interval counts as many independent trials as the prompts'
    own spread says (the design effect; Kish 1965), not as many as there are images. The interval of `overall` is that
    of all images together, which are as many in each skill.
    """

    skills: dict[str, Interval]
    overall: Interval
    seen: Interval | None      # the composed skills only: compositions that training shows
    heldout: Interval | None   # and those that it never shows
    skills_seen: dict[str, Interval]      # the same for each composed skill
    skills_heldout: dict[str, Interval]


def scores(verdicts: list[Verdict]) -> Scores:
    """Sum up verdicts.

    Raises:
        ValueError: there is none.
    """
    if not verdicts:
        raise ValueError("a score needs at least 1 verdict, got 0.")

    skills = _by_skill(verdicts)
    mean = sum(interval.value for interval in skills.values()) / len(skills)
    pooled = _share(verdicts)
    composed = [v for v in verdicts if v.skill in COMPOSED]
    seen, heldout = ([v for v in composed if v.heldout == held] for held in (False, True))
    return Scores(skills, Interval(mean, mean - pooled.value + pooled.low, mean - pooled.value + pooled.high),
                  _share(seen), _share(heldout), _by_skill(seen), _by_skill(heldout))


def _by_skill(verdicts: list[Verdict]) -> dict[str, Interval]:
    shares = {skill: _share([v for v in verdicts if v.skill == skill]) for skill in SKILLS}
    return {skill: interval for skill, interval in shares.items() if interval is not None}


def _share(verdicts: list[Verdict]) -> Interval | None:
    """The share of correct verdicts; its interval treats the prompts as drawn at random, not the images."""
    if not verdicts:
        return None
    n, share = len(verdicts), sum(v.correct for v in verdicts) / len(verdicts)
    of_prompt: dict[tuple, list[bool]] = defaultdict(list)
    for verdict in verdicts:
        of_prompt[verdict.question].append(verdict.correct)
    g = len(of_prompt)
    spread = sum((sum(right) - share * len(right)) ** 2 for right in of_prompt.values()) / n**2 * g / max(1, g - 1)
    if g == 1 or share in (0.0, 1.0):  # nothing shows how prompts differ: count prompts
        trials = g
    else:                              # a binomial with so many trials would spread as the prompts do
        trials = max(1, min(n, round(share * (1 - share) / spread))) if spread > 0 else n
    interval = wilson(share * trials, trials)
    return Interval(share, min(share, interval.low), max(share, interval.high))


def true_scenes(per_skill: int = 400, seed: int = 0, batch_size: int = 64) -> tuple[list[Tensor], list[dict]]:
    """Held-out scenes as images (in batches) and as the prompts that they answer, `per_skill` of each skill."""
    images, asked = [], []
    for skill in SKILLS:
        scenes = EmojiScenes("test", seed=seed, size=100 * per_skill, skills=(skill,))
        plans = ((i, scenes.plan(i)) for i in range(len(scenes)))
        plain = ((i, plan) for i, plan in plans
                 if skill not in ("counting", "position") or plan.objects[0]["color"] is None)  # as `prompts` asks
        chosen = list(itertools.islice(plain, per_skill))
        for start in range(0, per_skill, batch_size):
            images.append(scenes.batch([i for i, _ in chosen[start:start + batch_size]])[0].float() / 127.5 - 1)
        for _, plan in chosen:
            asked.append({"skill": skill, "objects": plan.objects, "relation": plan.relation, "heldout": plan.heldout})
    return images, asked


def examine(detector: Detector, per_skill: int = 400, seed: int = 0,
            through: Callable[[Tensor], Tensor] = lambda images: images) -> tuple[Scores, Scores]:
    """The judge judged: its scores on true scenes with their own captions, and with those of other scenes.

    Args:
        through: what happens to the images first, for example encoding and decoding by a tokenizer.

    Returns:
        ceiling, mismatched: how often it says yes to what a scene shows, and to what another scene of the same skill
        shows and this one does not.
    """
    images, asked = true_scenes(per_skill, seed)
    with torch.no_grad():
        found = [objects for batch in images for objects in detector.detect(through(batch))]
    right = [judge(prompt, objects) for prompt, objects in zip(asked, found, strict=True)]
    # Another scene of the same skill; where it happens to ask for the same thing, the next one that does not.
    wrong = []
    for i, objects in enumerate(found):
        first = i // per_skill * per_skill
        for k in range(1, per_skill):
            other = asked[first + (i - first + k) % per_skill]
            if question(other) != question(asked[i]):
                wrong.append(judge(other, objects))
                break
    return scores(right), scores(wrong)
