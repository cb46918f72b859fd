"""What is said about a scene: GenEval's plain wording, and other ways to say the same.

The first wording of each skill is GenEval's own (Ghosh, Hajishirzi and Schmidt, "GenEval: an object-focused framework
for evaluating text-to-image alignment", NeurIPS 2023); evaluation uses that one, training all of them, so that the
text encoder has something to understand. Knows words only, no pixels.
"""

from fluidlab.data.splitmix import SplitMix64

SKILLS = ("single_object", "two_object", "counting", "colors", "position", "color_attr")  # GenEval's own tags
NUMBERS = {1: "one", 2: "two", 3: "three", 4: "four"}
RELATIONS = {
    "left of": ("left of", "to the left of", "on the left of"),
    "right of": ("right of", "to the right of", "on the right of"),
    "above": ("above", "over", "higher than"),
    "below": ("below", "under", "beneath"),
}

ONE = (
    "a photo of {a}",
    "{a}",
    "a picture of {a}",
    "an image of {a}",
    "there is {a}",
    "{a} and nothing else",
    "just {a}",
    "we see {a}",
    "{a} on a plain background",
    "this is {a}",
)
TWO = (
    "a photo of {a} and {b}",
    "{a} and {b}",
    "a picture of {a} with {b}",
    "an image of {a} and {b}",
    "there is {a} and there is {b}",
    "{a} together with {b}",
    "both {a} and {b}",
    "we see {a} and also {b}",
)
COUNT = (
    "a photo of {n} {many}",
    "{n} {many}",
    "a picture of {n} {many}",
    "an image with {n} {many}",
    "there are {n} {many}",
    "{n} {many} and nothing else",
    "exactly {n} {many}",
    "we see {n} {many}",
)
POSITION = (
    "a photo of {a} {relation} {b}",
    "{a} {relation} {b}",
    "a picture of {a} {relation} {b}",
    "an image of {a} {relation} {b}",
    "there is {a} {relation} {b}",
    "{a} is {relation} {b}",
    "we see {a} {relation} {b}",
    "{sides}",
)
SIDES = {
    "left of": "{a} on the left and {b} on the right",
    "right of": "{b} on the left and {a} on the right",
    "above": "{a} at the top and {b} at the bottom",
    "below": "{b} at the top and {a} at the bottom",
}
WORDINGS = {
    "single_object": ONE,
    "two_object": TWO,
    "counting": COUNT,
    "colors": ONE,
    "position": POSITION,
    "color_attr": TWO,
}

IRREGULAR = {"sheep": "sheep", "knife": "knives", "computer mouse": "computer mice", "scissors": "scissors"}
PAIRS = ("scissors",)  # one of them is a pair


def plural(noun: str) -> str:
    """The plural of a class: "buses", "knives", "sheep"."""
    if noun in IRREGULAR:
        return IRREGULAR[noun]
    return noun + ("es" if noun.endswith(("s", "x", "ch", "sh")) else "s")


def with_article(words: str) -> str:
    """Put "a" or "an" in front, by the first letter (none of our words breaks that rule)."""
    return ("an " if words[0] in "aeiou" else "a ") + words


def one(name: str, color: str | None = None) -> str:
    """One object in words: "a cat", "an orange cat", "a pair of red scissors"."""
    noun = f"{color} {name}" if color else name
    return "a pair of " + noun if name in PAIRS else with_article(noun)


def many(name: str, color: str | None = None) -> str:
    """Several objects in words: "cats", "red books", "pairs of scissors"."""
    noun = f"{color} {plural(name)}" if color else plural(name)
    return "pairs of " + noun if name in PAIRS else noun


def describe(skill: str, objects: list[dict], relation: str | None = None, rng: SplitMix64 | None = None) -> str:
    """Say what a scene shows.

    Args:
        skill: one of SKILLS.
        objects: dictionaries with "class" and "color" (a name or None), in the order in which they are told.
        relation: for "position", a key of RELATIONS: where the first object lies as seen from the second.
        rng: chooses the wording; None for GenEval's plain one.

    Returns:
        A caption in lower case, without a full stop, of at most 20 words.
    """
    wording = rng.choice(WORDINGS[skill]) if rng else WORDINGS[skill][0]
    a, b = (one(thing["class"], thing["color"]) for thing in (objects[0], objects[-1]))
    if skill == "counting":
        return wording.format(n=NUMBERS[len(objects)], many=many(objects[0]["class"], objects[0]["color"]))
    if skill != "position":
        return wording.format(a=a, b=b)
    if wording == "{sides}":
        return SIDES[relation].format(a=a, b=b)
    return wording.format(a=a, b=b, relation=rng.choice(RELATIONS[relation]) if rng else relation)
