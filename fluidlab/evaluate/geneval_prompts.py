"""GenEval's 553 prompts, made again from its objects, counts, colours and relations (Ghosh et al. 2023, 2310.11513).

The published list is what 580 random draws of NumPy's generator with seed 43 leave when duplicates are dropped: all 80
classes alone, then 100 draws of each of the other five tasks. The same draws in the same order are made here, so the
prompts are the published ones, word by word and slip by slip ("four knifes", "a skis"), and no file has to be carried.
What to notice: chance comes from NumPy here and not from a torch.Generator, because NumPy's draws define the list.
"""

import json
from pathlib import Path

import numpy as np

from fluidlab.config import check_range

PUBLISHED_SEED = 43
TASKS = ("single_object", "two_object", "counting", "colors", "position", "color_attr")
COLORS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white")
RELATIONS = ("left of", "right of", "above", "below")
NUMBERS = {2: "two", 3: "three", 4: "four"}

# MS-COCO's 80 classes in the order of its detectors' outputs; GenEval says three of them in full: computer mouse,
# tv remote and computer keyboard.
CLASSES = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light",
    "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow",
    "elephant", "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee",
    "skis", "snowboard", "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard",
    "tennis racket", "bottle", "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich",
    "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch", "potted plant", "bed",
    "dining table", "toilet", "tv", "laptop", "computer mouse", "tv remote", "computer keyboard", "cell phone",
    "microwave", "oven", "toaster", "sink", "refrigerator", "book", "clock", "vase", "scissors", "teddy bear",
    "hair drier", "toothbrush",
)  # fmt: skip


def geneval_prompts(seed: int = PUBLISHED_SEED, per_task: int = 100) -> list[dict]:
    """The prompts, in the published format: tag, include, exclude (counting only) and prompt.

    Args:
        seed: 43 for the published list.
        per_task: draws of each task but the first, at least 1; 100 for the published list. Duplicates are dropped.
    """
    check_range("seed", seed, 0, kind=int)
    check_range("per_task", per_task, 1, kind=int)
    rng = np.random.default_rng(seed)
    alone = rng.choice(len(CLASSES), len(CLASSES), replace=False)
    asked = [_prompt("single_object", [_thing(CLASSES[i])], _a(CLASSES[i])) for i in alone]
    for draw in (_two_objects, _counting, _one_color, _position, _two_colors):
        asked += [draw(rng) for _ in range(per_task)]
    return list({json.dumps(prompt): prompt for prompt in asked}.values())


def _two_objects(rng: np.random.Generator) -> dict:
    a, b = _two(rng, CLASSES)
    return _prompt("two_object", [_thing(a), _thing(b)], f"{_a(a)} and {_a(b)}")


def _counting(rng: np.random.Generator) -> dict:
    name, count = CLASSES[rng.choice(len(CLASSES))], int(rng.integers(2, max(NUMBERS), endpoint=True))
    return _prompt("counting", [_thing(name, count)], f"{NUMBERS[count]} {_plural(name)}",
                   exclude=[_thing(name, count + 1)])


def _one_color(rng: np.random.Generator) -> dict:
    name = CLASSES[1 + rng.choice(len(CLASSES) - 1)]                                    # a person has no colour
    color = COLORS[rng.choice(len(COLORS))]
    return _prompt("colors", [{**_thing(name), "color": color}], f"{_a(color)} {name}")


def _position(rng: np.random.Generator) -> dict:
    a, b = _two(rng, CLASSES)
    relation = RELATIONS[rng.choice(len(RELATIONS))]
    return _prompt("position", [_thing(b), {**_thing(a), "position": [relation, 0]}], f"{_a(a)} {relation} {_a(b)}")


def _two_colors(rng: np.random.Generator) -> dict:
    (a, b), (color_a, color_b) = _two(rng, CLASSES[1:]), _two(rng, COLORS)
    return _prompt("color_attr", [{**_thing(a), "color": color_a}, {**_thing(b), "color": color_b}],
                   f"{_a(color_a)} {a} and {_a(color_b)} {b}")


def _two(rng: np.random.Generator, names: tuple[str, ...]) -> list[str]:
    return [names[i] for i in rng.choice(len(names), 2, replace=False)]


def _thing(name: str, count: int = 1) -> dict:
    return {"class": name, "count": count}


def _prompt(task: str, include: list[dict], words: str, exclude: list[dict] | None = None) -> dict:
    more = {"exclude": exclude} if exclude else {}
    return {"tag": task, "include": include, **more, "prompt": f"a photo of {words}"}


def _a(name: str) -> str:
    return f"an {name}" if name[0] in "aeiou" else f"a {name}"


def _plural(name: str) -> str:
    return name + ("es" if name.endswith("s") else "s")


def read_prompts(path: str | Path) -> list[dict]:
    """Prompts of a file in the published format (evaluation_metadata.jsonl: one JSON object a line).

    Raises:
        ValueError: the file is missing or empty, or a line asks for something that the rules do not know.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"there is no file of prompts {path}.")
    prompts = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if line.strip():
            prompts.append(parse_prompt(line, f"line {number} of {path}"))
    if not prompts:
        raise ValueError(f"{path} holds no prompt.")
    return prompts


def parse_prompt(text: str, where: str) -> dict:
    """One prompt from its JSON; `where` stands in the sentence if it is none."""
    try:
        prompt = json.loads(text)
        for place, wish in enumerate(prompt["include"]):
            _check_wish(wish, place)
        for wish in prompt.get("exclude", []):
            _check_wish(wish, 0)
        if prompt["tag"] not in TASKS:
            raise ValueError(f"tag is {prompt['tag']!r}, allowed are {', '.join(TASKS)}")
        if not prompt["include"] or not isinstance(prompt["prompt"], str):
            raise ValueError("it needs at least 1 object to include, and a text")
    except (KeyError, TypeError, ValueError) as error:                          # JSON's own error is a ValueError
        raise ValueError(f"{where} is not a GenEval prompt ({type(error).__name__}: {error}).") from error
    return prompt


def _check_wish(wish: dict, place: int) -> None:
    check_range("count", wish["count"], 1, kind=int)
    for name, value, allowed in (("class", wish["class"], CLASSES), ("color", wish.get("color", "red"), COLORS)):
        if value not in allowed:
            raise ValueError(f"{name} {value!r} is none of GenEval's {len(allowed)}")
    relation, target = wish.get("position", ("above", 0))
    if relation not in RELATIONS or "position" in wish and not 0 <= target < place:
        raise ValueError(f"position must be one of {', '.join(RELATIONS)} and the number of an object before, got "
                         f"{wish['position']!r}")
