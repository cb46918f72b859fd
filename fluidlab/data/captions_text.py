"""What the text encoder reads: the captions of scenes, most of them beside another wording of the same scene.

Two wordings of one scene are what makes a masked word worth understanding: which of the two things is red, or stands
left, can be known from the other caption and from nothing else. No picture is drawn here.
"""

from fluidlab.data.grammar import describe
from fluidlab.data.scenes import EmojiScenes
from fluidlab.data.splitmix import SplitMix64

OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
SKILLS_READ = ("single_object", "two_object", "counting", "colors", "position", "position", "color_attr", "color_attr")
ALONE = 4                                          # one document in four is a caption alone, as prompts are


def caption_documents(split: str, num_documents: int, seed: int = 0) -> list[tuple[str, ...]]:
    """Documents for `fluidlab.text.fit.fit_text`: tuples of one caption, or of two of the same scene.

    Args:
        split, seed: of EmojiScenes.  num_documents: how many; document i depends on (split, seed, i) alone.
    """
    scenes = EmojiScenes(split, seed=seed, skills=SKILLS_READ, size=num_documents)
    return [_document(scenes, i) for i in range(num_documents)]


def _document(scenes: EmojiScenes, index: int) -> tuple[str, ...]:
    caption = scenes.caption(index)
    if index % ALONE == 0:
        return (caption,)
    plan, rng = scenes.plan(index), SplitMix64(7, index)
    objects, relation = plan.objects, plan.relation
    two = len({thing["class"] for thing in objects}) == 2
    if two and rng.below(2):                       # the other thing first: "a left of b" is "b right of a"
        objects, relation = objects[::-1], OPPOSITE.get(relation)
    return caption, describe(plan.skill, objects, relation, rng)
