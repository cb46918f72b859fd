"""SceneEval: GenEval's rules on boxes made by hand, the detector's answers read back, its training, refusals."""

import pytest
import torch

from fluidlab.data.scenes import COMPOSED, EmojiScenes
from fluidlab.evaluate.detector import Detection, Detector, DetectorConfig, detector_loss, load_detector, targets_of
from fluidlab.evaluate.detector_fit import DetectorRecipe, fit_detector, spoil
from fluidlab.evaluate.sceneval import (
    SKILLS,
    examine,
    judge,
    judge_images,
    prompt_list,
    question,
    relations,
    scores,
    true_scenes,
)

SCENES = EmojiScenes("test")
SMALL = DetectorConfig(classes=SCENES.classes, colors=SCENES.colors, width=16, coarse_width=24, coarse_depth=1)


class Oracle(Detector):
    """Answers with the truth about scenes that it is told in advance."""

    def __init__(self, truth):
        super().__init__(SMALL)
        self.truth = list(truth)

    def forward(self, images):
        batch, self.truth = self.truth[:len(images)], self.truth[len(images):]
        presence, boxes, names, colors = targets_of(batch, SMALL)
        logits = [torch.nn.functional.one_hot(x.clamp(min=0), n).float() * 9 for x, n in
                  ((names, len(SMALL.classes)), (colors, len(SMALL.colors)))]
        return presence * 18 - 9, boxes, *logits


def at(name, x, y, color="red", score=0.9, side=20):
    return Detection(name, color, (x - side / 2, y - side / 2, x + side / 2, y + side / 2), score)


def asks(skill, *objects, relation=None):
    return {"skill": skill, "objects": [{"class": n, "color": c} for n, c in objects], "relation": relation,
            "heldout": False}


def test_answers_are_read_back_as_the_objects_of_the_scene():
    scenes = [SCENES[i] for i in range(40)]
    found = Oracle([s["objects"] for s in scenes]).detect(torch.stack([s["image"] for s in scenes]) / 127.5 - 1)
    for scene, objects in zip(scenes, found, strict=True):
        truth = sorted((thing["class"], *thing["box"]) for thing in scene["objects"])
        assert sorted((d.name, *(round(v) for v in d.box)) for d in objects) == truth
        colors = {thing["class"]: thing["color"] for thing in scene["objects"]}
        assert all(colors[d.name] in (None, d.color) for d in objects)


def test_larger_images_have_larger_boxes():
    truth = SCENES[0]["objects"]
    small = Oracle([truth]).detect(torch.zeros(1, 3, 64, 64))[0][0].box
    large = Oracle([truth]).detect(torch.zeros(1, 3, 128, 128))[0][0].box
    assert large == pytest.approx([2 * v for v in small])


@pytest.mark.parametrize(("prompt", "found", "reason"), [
    (asks("single_object", ("cat", None)), [at("cat", 20, 20)], ""),
    (asks("single_object", ("cat", None)), [at("dog", 20, 20)], "0 of 1 cat"),
    (asks("single_object", ("cat", None)), [at("cat", 20, 20), at("cat", 50, 50)], ""),  # GenEval asks for at least one
    (asks("two_object", ("cat", None), ("dog", None)), [at("cat", 20, 20)], "0 of 1 dog"),
    (asks("counting", *[("book", None)] * 3), [at("book", 16, 16), at("book", 48, 16)], "2 of 3 book"),
    (asks("counting", *[("book", None)] * 2), [at("book", 16, 16), at("book", 48, 16)], ""),
    (asks("counting", *[("book", None)] * 2), [at("book", x, 16) for x in (16, 32, 48)], "3 instead of 2 book"),
    (asks("colors", ("car", "blue")), [at("car", 20, 20, "blue")], ""),
    (asks("colors", ("car", "blue")), [at("car", 20, 20, "red", 0.9), at("car", 50, 50, "blue", 0.6)],
     "car is red, not blue"),
    (asks("color_attr", ("car", "blue"), ("cat", "red")), [at("car", 16, 16, "red"), at("cat", 48, 48, "blue")],
     "car is red, not blue"),
    (asks("position", ("car", None), ("cat", None), relation="left of"), [at("car", 16, 16), at("cat", 48, 16)], ""),
    (asks("position", ("car", None), ("cat", None), relation="above"), [at("car", 16, 16), at("cat", 48, 16)],
     "car is left of, not above"),
    (asks("position", ("car", None), ("cat", None), relation="left of"), [at("car", 30, 30), at("cat", 32, 30)],
     "car is beside nothing, not left of"),
])
def test_the_rules(prompt, found, reason):
    verdict = judge(prompt, found)
    assert (verdict.reason, verdict.correct) == (reason, reason == "")


def test_a_diagonal_is_both_and_the_margin_is_genevals():
    assert relations((0, 0, 20, 20), (40, 40, 60, 60)) == {"left of", "above"}
    assert relations((40, 0, 60, 20), (0, 0, 20, 20)) == {"right of"}
    assert relations((0, 0, 20, 20), (4, 0, 24, 20)) == set()      # 4 apart, the margin is 0.1 * (20 + 20)
    assert relations((0, 0, 20, 20), (8, 0, 28, 20)) == set()      # 4 beyond the margin, half of 8
    assert relations((0, 0, 20, 20), (9, 0, 29, 20)) == {"left of"}


def test_true_scenes_pass_and_other_captions_fail_with_a_judge_that_knows_all():
    per_skill, truth = 30, []
    for skill in SKILLS:
        scenes = [EmojiScenes("test", skills=(skill,))[i]["objects"] for i in range(100)]
        plain = [s for s in scenes if skill not in ("counting", "position") or s[0]["color"] is None]
        truth += plain[:per_skill]
    ceiling, mismatched = examine(Oracle(truth), per_skill)
    assert ceiling.overall.value == 1.0 and set(ceiling.skills) == set(SKILLS)
    assert mismatched.overall.value < 0.1
    assert ceiling.seen.value == ceiling.heldout.value == 1.0
    assert set(ceiling.skills_seen) == set(ceiling.skills_heldout) == set(COMPOSED)
    both = [ceiling.skills_seen["position"], mismatched.skills_heldout["position"]]
    assert both[0].value == 1.0 and both[1].value < 0.1


def test_the_prompts_are_fixed_and_half_of_the_composed_are_held_out():
    asked = prompt_list(10)
    assert asked == prompt_list(10) and len(asked) == 60
    for skill in SKILLS:
        held = [p["heldout"] for p in asked if p["skill"] == skill]
        assert len(held) == 10 and sum(held) == (5 if skill in COMPOSED else 0)


def test_images_of_one_prompt_are_not_as_many_independent_trials():
    prompt = asks("single_object", ("cat", None))
    others = [asks("single_object", (name, None)) for name in SCENES.classes[1:20]]
    same = scores([judge(prompt, [at("cat", 20, 20)])] * 40 + [judge(prompt, [])] * 40)
    spread = scores([judge(p, [at(p["objects"][0]["class"], 20, 20)] * (k % 2)) for p in others for k in range(4)])
    together = scores([judge(p, [at(p["objects"][0]["class"], 20, 20)] * (i % 2)) for i, p in enumerate(others)
                       for _ in range(4)])
    width = lambda found: found.overall.high - found.overall.low  # noqa: E731
    assert width(together) > 1.5 * width(spread)   # every prompt always right or always wrong: 19 trials, not 76
    assert width(same) > width(spread)             # one prompt says little of the others


def test_the_same_question_in_other_words_is_the_same():
    left = asks("position", ("car", None), ("cat", None), relation="left of")
    right = asks("position", ("cat", None), ("car", None), relation="right of")
    assert question(left) == question(right) != question(asks("position", ("cat", None), ("car", None),
                                                              relation="left of"))


def test_scores_are_means_over_skills():
    images, asked = true_scenes(2)
    assert sum(map(len, images)) == len(asked) == 12
    verdicts = [judge(p, []) for p in asked[:-2]] + [judge(p, [at(t["class"], 16, 16, t["color"])
                                                               for t in p["objects"]]) for p in asked[-2:]]
    summed = scores(verdicts)
    assert summed.skills["color_attr"].value == 1.0 and summed.overall.value == pytest.approx(1 / 6)
    assert summed.overall.low < 1 / 6 < summed.overall.high


def test_one_batch_can_be_learned():
    torch.manual_seed(0)
    detector, scenes = Detector(SMALL), [SCENES[i] for i in range(8)]
    images = torch.stack([s["image"] for s in scenes]) / 127.5 - 1
    targets = targets_of([s["objects"] for s in scenes], SMALL)
    optimizer = torch.optim.AdamW(detector.parameters(), lr=5e-3)
    first = detector_loss(detector, images, targets).item()
    for _ in range(150):
        loss = detector_loss(detector, images, targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1 * first
    prompts = [{"skill": s["skill"], "objects": s["objects"], "relation": None, "heldout": False} for s in scenes]
    assert all(verdict.correct for verdict in judge_images(detector, images.split(3), prompts))


def test_a_resumed_training_is_the_uninterrupted_one(tmp_path, monkeypatch):
    recipe = DetectorRecipe(steps=4, batch_size=2, save_every=1)
    whole = fit_detector(tmp_path / "whole", recipe, config=SMALL, progress=False).state_dict()
    import fluidlab.evaluate.detector_fit as module
    step = module._step

    def pressed(*args):
        if args[-1] == 2:
            raise KeyboardInterrupt
        return step(*args)
    monkeypatch.setattr(module, "_step", pressed)
    with pytest.raises(KeyboardInterrupt):
        fit_detector(tmp_path / "cut", recipe, config=SMALL, progress=False)
    monkeypatch.undo()
    with pytest.raises(ValueError, match="was stopped: continue it with resume"):
        fit_detector(tmp_path / "cut", recipe, config=SMALL)
    with pytest.raises(ValueError, match="started with steps 4, now it is 5"):
        fit_detector(tmp_path / "cut", DetectorRecipe(steps=5, batch_size=2, save_every=1), config=SMALL, resume=True)
    resumed = fit_detector(tmp_path / "cut", recipe, config=SMALL, resume=True, progress=False).state_dict()
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())
    assert sorted(p.name for p in (tmp_path / "cut").iterdir()) == ["config.json", "fit.json", "model.safetensors"]
    loaded = load_detector(tmp_path / "cut")
    assert loaded.config == SMALL and loaded.features(torch.zeros(2, 3, 64, 64)).shape == (2, 24)


def test_spoiled_images_stay_images():
    images = torch.stack([SCENES[i]["image"] for i in range(8)]) / 127.5 - 1
    spoiled = spoil(images, DetectorRecipe(), torch.Generator().manual_seed(0))
    assert spoiled.shape == images.shape and spoiled.abs().max() <= 1
    assert 0 < (spoiled - images).abs().mean() < 0.2


@pytest.mark.parametrize(("call", "said"), [
    (lambda: Detector(SMALL).detect(torch.zeros(1, 3, 48, 48)), r"multiple of 64, got \(1, 3, 48, 48\)"),
    (lambda: Detector(SMALL).detect(torch.full((1, 3, 64, 64), 2.0)), r"in \[-1, 1\], got 2.000 to 2.000"),
    (lambda: Detector(SMALL).detect(torch.full((1, 3, 64, 64), float("nan"))), "got nan to nan"),
    (lambda: judge_images(Detector(SMALL), [torch.zeros(2, 3, 64, 64)], prompt_list(2)), "2 images and 12 prompts"),
    (lambda: scores([]), "at least 1 verdict"),
    (lambda: prompt_list(1), "at least 2.*got 1"),
    (lambda: load_detector("nowhere"), "config.json is missing"),
    (lambda: DetectorRecipe(steps=0), "steps=0"),
])
def test_refusals_name_the_numbers(call, said):
    with pytest.raises(ValueError, match=said):
        call()
