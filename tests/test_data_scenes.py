"""EmojiScenes: the same bytes everywhere, captions and boxes that tell the truth, compositions kept from training."""

import collections
import hashlib
import json
import pickle
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from fluidlab.data import scenes as scenes_module
from fluidlab.data.atlas import CLASSES, COLORS
from fluidlab.data.grammar import NUMBERS, RELATIONS, SKILLS, plural
from fluidlab.data.heldout import is_heldout
from fluidlab.data.scenes import COMPOSED, PALE, EmojiScenes, prompts

GOLDENS = {
    ("train", 64, 0): "7dd7866465b7f004",
    ("train", 64, 1): "7a3b14fb9988c511",
    ("train", 128, 0): "e3f374b13afe405c",
    ("train", 256, 0): "2c06fdadbf82aa46",
    ("validation", 64, 0): "69f0d0fe3c114e71",
    ("validation", 96, 0): "427c259a6c09537d",
    ("test", 64, 0): "09a9661404503e48",
    ("test", 256, 5): "5ec71835ceb12af2",
}


def digest(scenes, indices=range(8)) -> str:
    """One hash over pixels, captions and ground truth."""
    total = hashlib.sha256()
    for index in indices:
        scene = scenes[index]
        total.update(scene["image"].numpy().tobytes())
        total.update(json.dumps({k: v for k, v in scene.items() if k != "image"}, sort_keys=True).encode())
    return total.hexdigest()[:16]


@pytest.mark.parametrize(("split", "image_size", "seed"), GOLDENS)
def test_goldens(split, image_size, seed):
    """Bytes that another machine computed."""
    assert digest(EmojiScenes(split, image_size, seed)) == GOLDENS[split, image_size, seed]


def test_same_in_another_process():
    code = ("import sys; sys.path.insert(0, 'tests'); from test_data_scenes import *; "
            "print(digest(EmojiScenes('test', 80, 3)))")  # fmt: skip
    root = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == digest(EmojiScenes("test", 80, 3))


def test_batch_equals_items_and_order_does_not_matter():
    scenes = EmojiScenes("train", 64)
    images, captions = scenes.batch([5, 0, 5, 999_999])
    for index, image, caption in zip([5, 0, 5, 999_999], images, captions, strict=True):
        alone = EmojiScenes("train", 64)[index]
        assert torch.equal(image, alone["image"]) and caption == alone["caption"] == scenes.caption(index)
    assert images.shape == (4, 3, 64, 64) and images.dtype == torch.uint8


def test_a_small_cache_changes_nothing(monkeypatch):
    full = digest(EmojiScenes(), range(40))
    monkeypatch.setattr(scenes_module, "CACHE_BYTES", 1)
    assert digest(EmojiScenes(), range(40)) == full


def test_pickles_without_its_cache():
    scenes = EmojiScenes("train", 64)
    scenes.batch(range(50))
    packed = pickle.dumps(scenes)
    assert len(packed) < 4000 and digest(pickle.loads(packed)) == digest(scenes)


def test_splits_and_seeds_differ():
    digests = [digest(EmojiScenes(split, 64, seed)) for split in ("train", "validation", "test") for seed in (0, 1)]
    assert len(set(digests)) == len(digests)


@pytest.mark.parametrize("image_size", [64, 144, 256])
def test_boxes_hold_exactly_the_objects(image_size, monkeypatch):
    """Draw over black and over white: a pixel belongs to an object if and only if these two differ by less."""
    scenes = EmojiScenes("test", image_size)
    drawn = {}
    for level in (0, 255):
        monkeypatch.setattr(scenes_module, "_paint_background", lambda rng, image, _, level=level: image.fill(level))
        drawn[level] = [scenes[index] for index in range(24)]
    for black, white in zip(drawn[0], drawn[255], strict=True):
        seen = (white["image"].int() - black["image"].int() < 255).any(0).numpy()
        for thing in black["objects"]:
            x0, y0, x1, y1 = thing["box"]
            assert 0 <= x0 < x1 <= image_size and 0 <= y0 < y1 <= image_size
            inside = seen[y0:y1, x0:x1]
            assert inside[0].any() and inside[-1].any() and inside[:, 0].any() and inside[:, -1].any()
            seen[y0:y1, x0:x1] = False
        assert not seen.any()


def test_objects_never_overlap_and_scale_with_the_image():
    small, large = EmojiScenes("train", 64), EmojiScenes("train", 256)
    for index in range(100):
        boxes = [thing["box"] for thing in large[index]["objects"]]
        for i, (ax0, ay0, ax1, ay1) in enumerate(boxes):
            for bx0, by0, bx1, by1 in boxes[i + 1 :]:
                assert ax1 <= bx0 or bx1 <= ax0 or ay1 <= by0 or by1 <= ay0
        longest = max(max(x1 - x0, y1 - y0) for x0, y0, x1, y1 in boxes)
        assert 4 * 25 <= longest <= 4 * 48
        assert small.plan(index) == large.plan(index)


def test_backgrounds_are_pale_and_smooth():
    scenes = EmojiScenes("train", 64)
    for index in range(40):
        scene = scenes[index]
        image = scene["image"].int().clone()
        mask = torch.ones(64, 64, dtype=torch.bool)
        for x0, y0, x1, y1 in (thing["box"] for thing in scene["objects"]):
            mask[y0:y1, x0:x1] = False
        assert image[:, mask].min() >= PALE[0] - 1 and image[:, mask].max() <= PALE[1]
        step = (image[:, :, 1:] - image[:, :, :-1]).abs()[:, mask[:, 1:] & mask[:, :-1]]
        assert step.max() <= 2
    assert (EmojiScenes(backgrounds=False)[0]["image"][:, 0, :3] == 255).all()


def words_of(scene) -> dict:
    """Read a caption back with nothing but the names: classes in the order of the sentence, colours, number."""
    text = scene["caption"]
    names = {plural(name): name for name in CLASSES} | {name: name for name in CLASSES}
    pattern = r"\b(" + "|".join(sorted(names, key=len, reverse=True)) + r")\b"
    numbers = {word: number for number, word in NUMBERS.items() if number > 1}
    return {
        "classes": [names[word] for word in re.findall(pattern, text)],
        "colors": re.findall(r"\b(" + "|".join(COLORS) + r")\b", text),
        "count": next((numbers[word] for word in text.split() if word in numbers), None),
    }


def test_captions_tell_what_is_there():
    scenes = EmojiScenes("test", 64, seed=7)
    for index in range(600):
        plan, caption = scenes.plan(index), scenes.caption(index)
        for text in (caption, scenes.caption(index, canonical=True)):
            read = words_of({"caption": text})
            told = plan.objects[:1] if plan.skill == "counting" else plan.objects
            assert sorted(read["classes"]) == sorted(thing["class"] for thing in told), text
            assert sorted(read["colors"]) == sorted(thing["color"] for thing in told if thing["color"]), text
            assert read["count"] == (len(plan.objects) if plan.skill == "counting" else None), text
            assert len(text.split()) <= 20
            assert not re.search(r"\ba [aeiou]|\ban [^aeiou]", text), text


def test_captions_name_the_position_that_is_drawn():
    scenes = EmojiScenes("train", 64, skills=("position",))
    for index in range(150):
        scene, relation = scenes[index], scenes.plan(index).relation
        (ax0, ay0, ax1, ay1), (bx0, by0, bx1, by1) = (thing["box"] for thing in scene["objects"])
        assert {"left of": ax1 <= bx0, "right of": bx1 <= ax0, "above": ay1 <= by0, "below": by1 <= ay0}[relation]
        first, caption = words_of(scene)["classes"][0], scene["caption"]
        if re.search("on the left and|at the top and", caption):
            assert (first == scene["objects"][0]["class"]) == (relation in ("left of", "above"))
        else:
            assert first == scene["objects"][0]["class"] and any(word in caption for word in RELATIONS[relation])


def test_canonical_captions_are_genevals():
    texts = {skill: {prompt["caption"] for prompt in prompts(skill, 30)} for skill in SKILLS}
    color = f"({'|'.join(COLORS)})"
    assert all(re.fullmatch(r"a photo of an? [a-z ]+", text) for text in texts["single_object"])
    assert all(re.fullmatch(r"a photo of an? [a-z ]+ and an? [a-z ]+", text) for text in texts["two_object"])
    assert all(re.fullmatch(r"a photo of (two|three|four) [a-z ]+", text) for text in texts["counting"])
    assert all(re.fullmatch(rf"a photo of an? .*{color} [a-z ]+", text) for text in texts["colors"])
    assert all(re.search(r"(left of|right of|above|below) an? ", text) for text in texts["position"])
    assert all(re.fullmatch(rf"a photo of an? .*{color} .+ and an? .*{color} .+", t) for t in texts["color_attr"])


@pytest.mark.parametrize("split", ["train", "validation"])
def test_training_never_shows_what_is_held_out(split):
    scenes = EmojiScenes(split)
    for index in range(3000):
        plan = scenes.plan(index)
        assert not plan.heldout and not is_heldout(plan.objects)


def test_half_of_the_composed_test_scenes_are_held_out():
    """3000 draws of a share of 0.5 over about 2000 scenes: 0.06 is more than five standard errors."""
    plans = [EmojiScenes("test").plan(index) for index in range(3000)]
    assert all(plan.heldout == is_heldout(plan.objects) for plan in plans)
    composed = [plan.heldout for plan in plans if plan.skill in COMPOSED]
    assert abs(np.mean(composed) - 0.5) < 0.06
    assert not any(plan.heldout for plan in plans if plan.skill not in COMPOSED)


def test_skills_classes_and_colors_come_evenly():
    """Counts lie within six standard deviations of even."""
    plans = [EmojiScenes().plan(index) for index in range(6000)]
    for values, kinds in (([plan.skill for plan in plans], len(SKILLS)),
                          ([plan.objects[0]["class"] for plan in plans], len(CLASSES))):  # fmt: skip
        counts = collections.Counter(values)
        assert len(counts) == kinds
        assert max(abs(n - 6000 / kinds) for n in counts.values()) < 6 * (6000 / kinds) ** 0.5 + 0.1 * 6000 / kinds


def test_the_dial_of_difficulty():
    scenes = EmojiScenes(num_classes=12, num_colors=3, offset=0)
    for index in range(300):
        plan = scenes.plan(index)
        assert {thing["class"] for thing in plan.objects} <= set(CLASSES[:12])
        assert {thing["color"] for thing in plan.objects} <= {None, *list(COLORS)[:3]}
    box = EmojiScenes(offset=0, skills=("single_object",))[0]["objects"][0]["box"]
    assert (box[0] + box[2]) // 2 % 16 in (0, 15) and (box[1] + box[3]) // 2 % 16 in (0, 15)


@pytest.mark.parametrize("skill", COMPOSED)
def test_prompts_held_out_or_not(skill):
    assert all(prompt["heldout"] and is_heldout(prompt["objects"]) for prompt in prompts(skill, 20, heldout=True))
    assert not any(is_heldout(prompt["objects"]) for prompt in prompts(skill, 20, heldout=False))
    assert prompts(skill, 5, seed=1) == prompts(skill, 5, seed=1) != prompts(skill, 5, seed=2)


def test_hugging_face_dataset():
    scenes = EmojiScenes("test", 64)
    table = scenes.as_hf_dataset(5)
    assert table.column_names == ["image", "caption", "boxes", "classes", "colors", "skill", "heldout"]
    for index, row in enumerate(table):
        scene = scenes[index]
        assert np.array_equal(np.asarray(row["image"]), scene["image"].permute(1, 2, 0).numpy())
        assert row["boxes"] == [thing["box"] for thing in scene["objects"]]
        assert row["classes"] == [thing["class"] for thing in scene["objects"]]
        assert row["colors"] == [thing["color"] or "" for thing in scene["objects"]]
        assert (row["caption"], row["skill"], row["heldout"]) == (scene["caption"], scene["skill"], scene["heldout"])
    with pytest.raises(ValueError, match="num_scenes is 0; allowed are 1 to 10000"):
        scenes.as_hf_dataset(0)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"split": "dev"}, "split is 'dev'; allowed are 'train', 'validation', 'test'"),
        ({"image_size": 72}, "image_size is 72; allowed are 64, 80"),
        ({"image_size": 64.0}, "image_size is 64.0; allowed are 64, 80"),
        ({"seed": -1}, "seed is -1; allowed are whole numbers from 0"),
        ({"size": 0}, "size is 0; allowed are whole numbers from 1"),
        ({"num_classes": 999}, "num_classes is 999; allowed are whole numbers from 4 to"),
        ({"num_colors": 1}, "num_colors is 1; allowed are whole numbers from 2 to 8"),
        ({"skills": ()}, "skills is ();"),
        ({"skills": ("dancing",)}, "skill is 'dancing'; allowed are 'single_object'"),
    ],
)
def test_bad_arguments(arguments, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        EmojiScenes(**arguments)


@pytest.mark.parametrize("index", [-1, 10, 10**9])
def test_indices_outside(index):
    scenes = EmojiScenes("validation", size=10)
    with pytest.raises(IndexError, match=f"scene {index} does not exist; this split has scenes 0 to 9"):
        scenes[index]
    with pytest.raises(IndexError):
        scenes.batch([0, index])


def test_bad_prompts():
    with pytest.raises(ValueError, match="skill 'counting' has no held-out prompts"):
        prompts("counting", 3, heldout=True)
    with pytest.raises(ValueError, match="n is 0"):
        prompts("counting", 0)
