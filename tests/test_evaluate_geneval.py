"""GenEval: the published prompts, the rules on hand-made detections, real classes with small random weights, both
halves stopped and continued, the score."""

import hashlib
import itertools
import json
import math

import numpy as np
import pytest
import torch
from helpers import broken_png, small_judge
from PIL import Image

from fluidlab.evaluate.geneval import draw_images, find_images, judge_images
from fluidlab.evaluate.geneval_judge import COLOR_TEXTS, Judge, cut_out, load_part, open_picture, read_instances
from fluidlab.evaluate.geneval_prompts import CLASSES, COLORS, TASKS, geneval_prompts, read_prompts
from fluidlab.evaluate.geneval_rules import Found, Rules, faults, kept, overlap
from fluidlab.evaluate.geneval_score import geneval_scores, mean_of, read_records
from fluidlab.evaluate.statistics import Interval

PROMPTS = geneval_prompts()


def of_task(task):
    return [prompt for prompt in PROMPTS if prompt["tag"] == task]


# the prompts

def test_the_prompts_are_the_published_ones():
    """The counts, and prompts by their published number, stand in public reports of GenEval's results; the digest holds
    the whole list still, and would tell if NumPy's draws changed."""
    assert [len(of_task(task)) for task in TASKS] == [80, 99, 80, 94, 100, 100] and len(PROMPTS) == 553
    known = {0: "a photo of a bench", 80: "a photo of a bench and a sports ball", 179: "a photo of two clocks",
             200: "a photo of three buses", 254: "a photo of four benchs", 259: "a photo of a blue fire hydrant",
             353: "a photo of a dog right of a teddy bear", 453: "a photo of a purple wine glass and a black apple",
             552: "a photo of a blue pizza and a yellow baseball glove"}
    assert {number: PROMPTS[number]["prompt"] for number in known} == known
    digest = hashlib.sha256("\n".join(prompt["prompt"] for prompt in PROMPTS).encode()).hexdigest()
    assert digest == "4de60dfc3c29f9d3db69ec45cf03a964627c2d82f2c224c3f75645e137f7126b"


def test_a_prompt_has_the_published_keys():
    assert PROMPTS[179] == {"tag": "counting", "include": [{"class": "clock", "count": 2}],
                            "exclude": [{"class": "clock", "count": 3}], "prompt": "a photo of two clocks"}
    assert PROMPTS[353] == {"tag": "position", "include": [
        {"class": "teddy bear", "count": 1}, {"class": "dog", "count": 1, "position": ["right of", 0]}],
        "prompt": "a photo of a dog right of a teddy bear"}
    assert of_task("colors")[0]["include"] == [{"class": "fire hydrant", "count": 1, "color": "blue"}]
    assert "exclude" not in PROMPTS[0] and len(CLASSES) == len(set(CLASSES)) == 80


def test_another_seed_gives_other_prompts_of_the_same_kind():
    other = geneval_prompts(seed=0, per_task=5)
    assert other != geneval_prompts(seed=1, per_task=5) and len(other) <= 80 + 5 * 5
    assert [task for task, _ in itertools.groupby(prompt["tag"] for prompt in other)] == list(TASKS)


def test_prompts_travel_through_a_file(tmp_path):
    file = tmp_path / "evaluation_metadata.jsonl"
    file.write_text("\n".join(map(json.dumps, PROMPTS)) + "\n")
    assert read_prompts(file) == PROMPTS


@pytest.mark.parametrize(("line", "said"), [
    ("{", "line 2 .* is not a GenEval prompt .JSONDecodeError"),
    ('{"tag": "counting", "prompt": "x"}', "KeyError: 'include'"),
    ('{"tag": "shape", "include": [{"class": "cat", "count": 1}], "prompt": "x"}', "tag is 'shape', allowed are"),
    ('{"tag": "counting", "include": [], "prompt": "x"}', "at least 1 object to include"),
    ('{"tag": "counting", "include": [{"class": "lion", "count": 1}], "prompt": "x"}', "class 'lion' is none of .* 80"),
    ('{"tag": "counting", "include": [{"class": "cat", "count": 0}], "prompt": "x"}', "count must be .* 1, got 0"),
    ('{"tag": "colors", "include": [{"class": "cat", "count": 1, "color": "grey"}], "prompt": "x"}', "'grey' is none"),
    ('{"tag": "position", "include": [{"class": "cat", "count": 1, "position": ["above", 0]}], "prompt": "x"}',
     r"number of an object before, got \['above', 0\]"),
    ('{"tag": "position", "include": [{"class": "dog", "count": 1}, {"class": "cat", "count": 1, "position": '
     '["by", 0]}], "prompt": "x"}', r"one of left of, .* got \['by', 0\]"),
])
def test_a_file_of_other_prompts_is_refused(line, said, tmp_path):
    file = tmp_path / "prompts.jsonl"
    file.write_text(json.dumps(PROMPTS[0]) + "\n" + line + "\n")
    with pytest.raises(ValueError, match=said):
        read_prompts(file)


def test_no_prompts_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no file of prompts .*gone.jsonl"):
        read_prompts(tmp_path / "gone.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(ValueError, match="empty.jsonl holds no prompt"):
        read_prompts(tmp_path / "empty.jsonl")


# the rules

def at(name, x=50, y=50, color=None, score=0.95, side=20):
    return Found(name, score, (x - side / 2, y - side / 2, x + side / 2, y + side / 2), color=color)


def asks(task, *include, exclude=()):
    return {"tag": task, "include": list(include), "exclude": list(exclude), "prompt": "a photo"}


def thing(name, count=1, **more):
    return {"class": name, "count": count, **more}


CAT, TWO = asks("single_object", thing("cat")), asks("two_object", thing("cat"), thing("dog"))
THREE = asks("counting", thing("book", 3), exclude=[thing("book", 4)])
BLUE = asks("colors", thing("car", color="blue"))
LEFT = asks("position", thing("cat"), thing("car", position=["left of", 0]))      # a car left of a cat
ABOVE = asks("position", thing("cat"), thing("car", position=["above", 0]))
BOTH = asks("color_attr", thing("car", color="blue"), thing("cat", color="red"))


@pytest.mark.parametrize(("prompt", "found", "reasons"), [
    (CAT, [at("cat")], []),
    (CAT, [at("cat"), at("cat", 10, 10), at("dog")], []),                          # more does no harm
    (CAT, [at("dog")], ["0 of 1 cat"]),
    (CAT, [at("cat", score=0.3)], ["0 of 1 cat"]),                                 # surer than 0.3, not as sure
    (CAT, [at("cat", score=0.31)], []),
    (TWO, [at("cat"), at("dog")], []),
    (TWO, [at("dog")], ["0 of 1 cat"]),
    (TWO, [], ["0 of 1 cat", "0 of 1 dog"]),
    (THREE, [at("book", x) for x in (10, 40, 70)], []),
    (THREE, [at("book", x) for x in (10, 40)], ["2 of 3 book"]),
    (THREE, [at("book", x) for x in (10, 40, 70, 100)], ["4 book, which is not fewer than 4"]),
    (THREE, [at("book", 10), at("book", 40), at("book", 70, score=0.89)], ["2 of 3 book"]),   # 0.9 when it counts
    (THREE, [*(at("book", x) for x in (10, 40, 70)), at("book", 100, score=0.89)], []),
    (BLUE, [at("car", color="blue")], []),
    (BLUE, [at("car", color="red")], ["car is red, not blue"]),
    (BLUE, [at("car", color="red", score=0.9), at("car", 10, color="blue", score=0.8)], ["car is red, not blue"]),
    (BLUE, [at("car", color="red", score=0.7), at("car", 10, color="blue", score=0.8)], []),  # the surest is asked
    (LEFT, [at("car", 20), at("cat", 80)], []),
    (LEFT, [at("car", 80), at("cat", 20)], ["car is right of the cat, not left of"]),
    (LEFT, [at("car", 50, 20), at("cat", 50, 80)], ["car is above the cat, not left of"]),
    (LEFT, [at("car", 50), at("cat", 53)], ["car is beside the cat, not left of"]),          # within the margin
    (LEFT, [at("car", 20)], ["0 of 1 cat", "nothing there for car to be left of"]),
    (LEFT, [at("cat", 20)], ["0 of 1 car"]),
    (ABOVE, [at("car", 50, 20), at("cat", 50, 80)], []),
    (ABOVE, [at("car", 20, 20), at("cat", 80, 80)], []),                           # a diagonal is both
    (ABOVE, [at("car", 50, 80), at("cat", 50, 20)], ["car is below the cat, not above"]),
    (BOTH, [at("car", color="blue"), at("cat", color="red")], []),
    (BOTH, [at("car", color="red"), at("cat", color="blue")], ["car is red, not blue", "cat is blue, not red"]),
    (BOTH, [at("car", color="blue"), at("cat", color="blue")], ["cat is blue, not red"]),
    (BOTH, [at("car", color="blue")], ["0 of 1 cat"]),
])
def test_the_rules(prompt, found, reasons):
    assert faults(prompt, kept(found, prompt["tag"])) == reasons


def test_a_group_must_have_its_colour_and_place_as_a_whole():
    two = asks("colors", thing("car", 2, color="blue"))
    assert faults(two, kept([at("car", color="blue"), at("car", 9, color="red")], "colors")) == [
        "car is blue and red, not blue"]
    row = asks("position", thing("cat", 2), thing("car", position=["left of", 0]))
    assert faults(row, kept([at("cat", 60), at("cat", 90), at("car", 20)], "position")) == []
    assert faults(row, kept([at("cat", 20), at("cat", 90), at("car", 60)], "position")) == [
        "car is right of the cat, not left of"]


def test_a_wrong_object_is_no_target():
    prompt = asks("position", thing("cat", color="red"), thing("car", position=["left of", 0]))
    found = kept([at("cat", 80, color="blue"), at("car", 20)], "position")
    assert faults(prompt, found) == ["cat is blue, not red", "nothing there for car to be left of"]


def test_colours_are_asked_only_where_the_prompt_names_one():
    asked = []

    def colors_of(name, things):
        asked.append((name, len(things)))
        return ["blue"] * len(things)
    for prompt in (CAT, TWO, THREE, LEFT, ABOVE):
        faults(prompt, kept([at("cat"), at("car"), at("dog"), *[at("book")] * 3], prompt["tag"]), colors_of)
    assert asked == []
    assert faults(BLUE, kept([at("car"), at("car", 9)], "colors"), colors_of) == [] and asked == [("car", 1)]


def test_the_surest_of_a_class_are_kept_and_overlapping_ones_only_if_the_rules_say_so():
    many = [at("cat", x=i, score=0.4 + 0.02 * i) for i in range(20)]
    objects = kept([*many, at("person")], "single_object")
    assert list(objects) == ["person", "cat"] and len(objects["cat"]) == 16                # classes in COCO's order
    assert [f.score for f in objects["cat"]] == sorted((f.score for f in many), reverse=True)[:16]
    near = [at("cat", 50, score=0.9), at("cat", 52, score=0.8), at("cat", 90, score=0.7)]
    assert len(kept(near, "colors")["cat"]) == 3
    assert [f.score for f in kept(near, "colors", Rules(max_overlap=0.5))["cat"]] == [0.9, 0.7]


def test_overlap_counts_both_edges_as_inside():
    assert overlap((0, 0, 9, 9), (0, 0, 9, 9)) == 1 and overlap((0, 0, 9, 9), (10, 0, 19, 9)) == 0
    assert overlap((0, 0, 9, 9), (5, 0, 14, 9)) == pytest.approx(50 / 150)


@pytest.mark.parametrize(("options", "said"), [
    ({"threshold": 1.5}, "threshold must be a number from 0 to 1, got 1.5"),
    ({"max_objects": 0}, "max_objects must be a whole number at least 1, got 0"),
])
def test_rules_out_of_range_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        Rules(**options)


# the judge: transformers' own classes, small and random

@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return small_judge(tmp_path_factory.mktemp("judge"))


@pytest.fixture(scope="module")
def judge(folder):
    return Judge.from_pretrained(folder / "detector", folder / "clip", shortest=64, longest=128)


def noise(width=48, height=48, seed=0):
    g = torch.Generator().manual_seed(seed)
    coarse = torch.randint(0, 256, (1, 3, 6, 6), generator=g).float()
    pixels = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")[0].clamp(0, 255).byte()
    return Image.fromarray(pixels.permute(1, 2, 0).numpy())


def test_objects_lie_where_their_masks_do(judge):
    image = noise(width=72, height=40)
    found = judge.find(image, floor=0.1)
    assert found and {f.name for f in found} == {"cat"}
    assert [f.score for f in found] == sorted((f.score for f in found), reverse=True)
    for f in found:
        assert f.mask.shape == (40, 72) and 0.1 < f.score <= 1
        rows, columns = np.nonzero(f.mask)
        assert f.box == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    assert len(judge.find(image, floor=found[0].score)) == 0


def test_instances_are_those_that_transformers_finds_at_its_own_size(judge):
    """At 384 pixels transformers' rounding to 384 changes nothing, so both must find the same."""
    from fluidlab.evaluate.geneval_judge import _processor
    processor = _processor("Mask2Former", size={"shortest_edge": 384, "longest_edge": 384})
    pixels = torch.as_tensor(processor(noise(384, 384), return_tensors="np")["pixel_values"])
    with torch.no_grad():
        seen = judge.detector(pixels)
    ours = read_instances(seen.class_queries_logits[0], seen.masks_queries_logits[0], (384, 384), (384, 384), 0.3)
    [theirs] = processor.post_process_instance_segmentation(seen, threshold=0.3, target_sizes=[(384, 384)],
                                                            return_binary_maps=True)
    order = sorted(range(len(ours)), key=lambda i: -theirs["segments_info"][i]["score"])
    assert len(ours) == len(theirs["segments_info"]) > 1
    for f, i in zip(ours, order, strict=True):
        info = theirs["segments_info"][i]
        assert CLASSES[info["label_id"]] == f.name and info["score"] == pytest.approx(f.score, abs=2e-6)
        assert np.array_equal(theirs["segmentation"][i].numpy() > 0, f.mask)


def test_a_mask_and_its_class_make_the_score():
    """One query, sure of class 16 (dog) by 0.8; its mask is +2 on a quarter and -5 elsewhere, which grows fourfold."""
    classes = torch.full((1, 81), -20.0)
    classes[0, 16], classes[0, 80] = math.log(0.8), math.log(0.2)
    masks = torch.full((1, 8, 8), -5.0)
    masks[0, :4, :4] = 2.0
    [found] = read_instances(classes, masks, (8, 8), (8, 8), 0.3)
    assert found.name == "dog" and found.box == (0, 0, 4, 4) and found.mask.sum() == 16
    assert found.score == pytest.approx(0.8 / (1 + math.exp(-2)), abs=1e-5)
    [large] = read_instances(classes, masks, (16, 16), (32, 24), 0.3)
    assert large.mask.shape == (32, 24) and large.box[2] == pytest.approx(12, abs=1.5)
    assert read_instances(classes, masks, (8, 8), (8, 8), 0.75) == []
    assert read_instances(classes, masks - 10, (8, 8), (8, 8), 0.0) == []                  # no pixel, no object


def test_an_object_is_cut_out_on_grey():
    image = Image.new("RGB", (8, 6), "red")
    mask = np.zeros((6, 8), bool)
    mask[1:4, 2:5] = True
    mask[1, 2] = False
    cut = np.asarray(cut_out(image, Found("cat", 0.9, (2.0, 1.0, 5.0, 4.0), mask)))
    assert cut.shape == (3, 3, 3) and cut[0, 0].tolist() == [153] * 3 and cut[2, 2].tolist() == [255, 0, 0]
    assert cut_out(image, Found("cat", 0.9, (0.0, 0.0, 8.0, 2.0))).size == (8, 2)


def test_colours_are_clips_likeliest(judge):
    """Against CLIPModel's own forward, wording by wording, crop by crop."""
    image = noise(seed=3)
    things = judge.find(image, floor=0.1)
    with torch.no_grad():
        texts = []
        for color in COLORS:
            tokens = judge.tokenizer([t.format(color=color, name="cat") for t in COLOR_TEXTS], padding=True,
                                     return_tensors="pt")
            crop = judge.prepare_crop(cut_out(image, things[0]), return_tensors="pt")["pixel_values"]
            texts.append(judge.clip(**tokens, pixel_values=crop).text_embeds.mean(0))
        said = torch.stack(texts) / torch.stack(texts).norm(dim=1, keepdim=True)           # (10, E)
        torch.testing.assert_close(judge.color_features("cat"), said, atol=1e-5, rtol=1e-4)
        for f in things:
            crop = judge.prepare_crop(cut_out(image, f), return_tensors="pt")["pixel_values"]
            seen = judge.clip(**tokens, pixel_values=crop).image_embeds
            assert judge.colors(image, "cat", [f]) == [COLORS[int((seen @ said.T).argmax())]]
    assert judge.colors(image, "cat", things) == [judge.colors(image, "cat", [f])[0] for f in things]


def test_half_precision_sees_nearly_the_same(folder, judge):
    half = Judge.from_pretrained(folder / "detector", folder / "clip", shortest=64, longest=128, precision="bf16")
    pairs = list(zip(judge.find(noise(), 0.1), half.find(noise(), 0.1), strict=True))
    assert pairs and all(a.score == pytest.approx(b.score, abs=0.02) for a, b in pairs)
    assert set(half.colors(noise(), "cat", [b for _, b in pairs])) <= set(COLORS)
    assert half.facts() == {**judge.facts(), "precision": "bf16"}


def test_a_judge_that_cannot_be_had_or_is_another_is_refused(folder, tmp_path, judge):
    with pytest.raises(ValueError, match="The detector 'nobody/nothing' cannot be loaded, because it is neither"):
        Judge.from_pretrained("nobody/nothing", folder / "clip")
    with pytest.raises(ValueError, match="The CLIP .* cannot be loaded, because it lacks config.json"):
        Judge.from_pretrained(folder / "detector", tmp_path)
    with pytest.raises(ValueError, match="precision must be one of float32, bf16, got 'fp16'"):
        Judge(judge.detector, judge.clip, judge.tokenizer, precision="fp16")
    other = load_part(type(judge.detector), folder / "detector")
    other.config.id2label = {0: "wall", 1: "floor"}
    with pytest.raises(ValueError, match="MS-COCO's 80 classes, .* got 2 from wall to floor"):
        Judge(other, judge.clip, judge.tokenizer)


def test_pickled_weights_are_not_read(folder, tmp_path):
    import shutil
    shutil.copytree(folder / "clip", tmp_path / "clip")
    (tmp_path / "clip" / "model.safetensors").unlink()
    torch.save({}, tmp_path / "clip" / "pytorch_model.bin")
    with pytest.raises(ValueError, match="lacks weights as safetensors .pytorch_model.bin would have to be unpickled"):
        Judge.from_pretrained(folder / "detector", tmp_path / "clip")


@pytest.mark.parametrize("how", ["bomb", "chunk"])
def test_whatever_pillow_raises_the_picture_is_named(how, tmp_path):
    (tmp_path / "0000.png").write_bytes(broken_png(how))
    with pytest.raises(ValueError, match="0000.png cannot be read as a picture"):
        open_picture(tmp_path / "0000.png")


# from prompts to a score file

ASKED = [of_task("single_object")[0], asks("colors", thing("cat", color="red")), of_task("counting")[0]]


def drawing(calls, stop_at=None):
    """Pictures that depend on the seed alone."""
    def draw(prompts, seeds):
        if stop_at is not None and len(calls) >= stop_at:
            raise KeyboardInterrupt
        calls.extend(zip(prompts, seeds, strict=True))
        pixels = [np.asarray(noise(seed=seed)) for seed in seeds]
        return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2) / 127.5 - 1
    return draw


def files(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*.png"))}


def test_pictures_lie_in_the_published_layout(tmp_path):
    calls = []
    draw_images(drawing(calls), ASKED, tmp_path, images_per_prompt=2, batch_size=4, progress=False)
    assert list(files(tmp_path)) == [f"{i:05d}/samples/{k:04d}.png" for i in range(3) for k in range(2)]
    assert [prompt for prompt, _ in calls] == [p["prompt"] for p in ASKED for _ in range(2)]
    assert len({seed for _, seed in calls}) == 6
    assert json.loads((tmp_path / "00002" / "metadata.jsonl").read_text()) == ASKED[2]
    assert np.array_equal(np.asarray(open_picture(tmp_path / "00001/samples/0001.png")), np.asarray(noise(seed=3)))
    assert [(path.parent.parent.name, prompt) for path, prompt in find_images(tmp_path)] == [
        (f"{i:05d}", ASKED[i]) for i in range(3) for _ in range(2)]


def test_a_stopped_drawing_goes_on_to_the_same_pictures(tmp_path):
    options = dict(images_per_prompt=2, batch_size=4, progress=False)
    draw_images(drawing([]), ASKED, tmp_path / "whole", **options)
    before, after = [], []
    with pytest.raises(KeyboardInterrupt):
        draw_images(drawing(before, stop_at=4), ASKED, tmp_path / "cut", **options)
    (tmp_path / "cut" / "00001" / "samples" / "0000.png").unlink()                         # and one got lost
    draw_images(drawing(after), ASKED, tmp_path / "cut", **options)
    assert len(before) == 4 and len(after) == 3 and files(tmp_path / "cut") == files(tmp_path / "whole")
    with pytest.raises(ValueError, match="another images_per_prompt .2, now 3."):
        draw_images(drawing([]), ASKED, tmp_path / "cut", **{**options, "images_per_prompt": 3})
    with pytest.raises(ValueError, match="another temperature .None, now 0.5."):
        draw_images(drawing([]), ASKED, tmp_path / "cut", facts={"temperature": 0.5}, **options)


@pytest.fixture
def drawn(tmp_path):
    return draw_images(drawing([]), ASKED, tmp_path / "images", images_per_prompt=2, progress=False)


LENIENT = Rules(threshold=0.1, counting_threshold=0.1)


def test_the_score_file_has_the_published_format(judge, drawn):
    """Read as the published summary reads it: by pandas, a JSON object a line, grouped by tag and by metadata."""
    import pandas
    records = judge_images(judge, drawn, rules=LENIENT, progress=False)
    table = pandas.read_json(drawn / "results.jsonl", orient="records", lines=True)
    assert list(table.columns) == ["filename", "tag", "prompt", "correct", "reason", "metadata", "details"]
    assert len(table) == 6 and table["correct"].dtype == bool
    assert list(table.groupby("tag", sort=False)["correct"].count()) == [2, 2, 2]
    assert [json.loads(text) for text in table["metadata"]] == [p for p in ASKED for _ in range(2)]
    for record in records:
        image, details = open_picture(record["filename"]), json.loads(record["details"])
        found = judge.find(image, 0.1)
        assert details["cat"] == [[*f.box, f.score] for f in found]
        if record["tag"] == "colors":
            [color] = judge.colors(image, "cat", found[:1])
            assert record["correct"] == (color == "red") and (record["reason"] == "") == record["correct"]
    assert not table["correct"][0] and table["reason"][0] == "0 of 1 bench"


def test_a_stopped_judging_goes_on(judge, drawn, monkeypatch):
    whole = judge_images(judge, drawn, rules=LENIENT, results=drawn.parent / "whole.jsonl", progress=False)
    find, seen = Judge.find, []

    def pressed(judge, image, floor):
        if len(seen) == 3:
            raise KeyboardInterrupt
        seen.append(image)
        return find(judge, image, floor)
    monkeypatch.setattr(Judge, "find", pressed)
    with pytest.raises(KeyboardInterrupt):
        judge_images(judge, drawn, rules=LENIENT, progress=False)
    with (drawn / "results.jsonl").open("a") as f:
        f.write('{"filename": "cut in the mi')                                             # as a crash leaves it
    monkeypatch.setattr(Judge, "find", lambda judge, image, floor: seen.append(image) or find(judge, image, floor))
    assert judge_images(judge, drawn, rules=LENIENT, progress=False) == whole and len(seen) == 6
    assert read_records(drawn / "results.jsonl") == whole
    with pytest.raises(ValueError, match="another rules"):
        judge_images(judge, drawn, progress=False)


def test_pictures_without_a_prompt_or_none_at_all_are_refused(judge, drawn, tmp_path):
    with pytest.raises(ValueError, match="holds no picture as 00000/samples/0000.png"):
        judge_images(judge, tmp_path / "nothing", progress=False)
    (drawn / "00001" / "samples" / "0000.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match="00001/samples/0000.png cannot be read as a picture"):
        judge_images(judge, drawn, rules=LENIENT, progress=False)
    (drawn / "00001" / "metadata.jsonl").unlink()
    with pytest.raises(ValueError, match="00001 holds no metadata.jsonl"):
        find_images(drawn)


# the score

def judged(task, prompt, *right):
    return [{"tag": task, "metadata": f"{task} {prompt}", "correct": answer} for answer in right]


def test_the_score_is_the_mean_of_the_tasks_not_of_the_pictures():
    records = [*judged("single_object", 0, *[True] * 4), *judged("single_object", 1, *[True] * 3, False),
               *judged("counting", 0, False, False), *judged("counting", 1, True, False)]
    found = geneval_scores(records)
    assert found.tasks["single_object"].value == 7 / 8 and found.tasks["counting"].value == 1 / 4
    assert found.overall.value == pytest.approx((7 / 8 + 1 / 4) / 2) and found.prompts_solved == 3 / 4
    assert found.counts == {"single_object": (7, 8), "counting": (1, 4)} and found.num_images == 12
    assert all(i.low <= i.value <= i.high for i in (found.overall, *found.tasks.values()))
    assert {"geneval_overall", "geneval_counting_low", "geneval_single_object_high"} <= set(found.metrics())
    assert "| counting | 0.2500 |" in found.table() and "| 12 of 4 prompts |" in found.table()


def test_pictures_of_one_prompt_are_not_counted_as_so_many_trials():
    together = geneval_scores([r for i in range(40) for r in judged("colors", i, *[i % 2 == 0] * 4)])
    apart = geneval_scores([r for i in range(40) for r in judged("colors", i, True, False, True, False)])
    assert together.overall.value == apart.overall.value == 0.5
    assert together.overall.high - together.overall.low > 1.5 * (apart.overall.high - apart.overall.low)


def test_the_mean_of_intervals_covers_the_truth_as_often_as_it_says():
    """Six tasks of 80 prompts, 2,000 draws: by 4 standard errors the share that covers lies within 0.95 +- 0.02."""
    from fluidlab.evaluate.statistics import wilson
    g, rates = torch.Generator().manual_seed(0), torch.tensor([0.97, 0.5, 0.4, 0.8, 0.1, 0.2])
    right = (torch.rand(2000, 80, 6, generator=g) < rates).sum(1).tolist()
    shares = [wilson(k, 80) for k in range(81)]
    means = [mean_of([shares[k] for k in row]) for row in right]
    covered = sum(m.low <= rates.mean().item() <= m.high for m in means) / len(means)
    assert abs(covered - 0.95) < 0.02
    assert mean_of([Interval(0.5, 0.4, 0.7)]) == Interval(0.5, pytest.approx(0.4), pytest.approx(0.7))


@pytest.mark.parametrize(("text", "said"), [
    (None, "no score file .*r.jsonl"), ("{\n", "line 1 of .* is no JSON object"),
    ('{"tag": "colors"}\n', "line 1 of .* lacks correct, metadata"),
])
def test_another_file_is_no_score_file(text, said, tmp_path):
    if text is not None:
        (tmp_path / "r.jsonl").write_text(text)
    with pytest.raises(ValueError, match=said):
        read_records(tmp_path / "r.jsonl")


def test_no_pictures_and_unknown_tasks_have_no_score():
    with pytest.raises(ValueError, match="at least 1 judged picture, got 0"):
        geneval_scores([])
    with pytest.raises(ValueError, match="GenEval's tasks are single_object, .* got shape too"):
        geneval_scores(judged("shape", 0, True))
