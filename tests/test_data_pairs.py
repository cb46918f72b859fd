"""Image-text pairs: both formats say the same, a fixed choice that grows, refusals."""

import json

import pytest

from fluidlab.data.pairs import check_pictures, choose_pairs, find_pictures, read_captions

PAIRS = [(f"{i:03d}.png", tuple(f"caption {i}.{k}" for k in range(1 + i % 3))) for i in range(60)]


@pytest.fixture
def coco(tmp_path):
    """Ids that are not positions, files out of order, and an image without a caption, as MS-COCO has them."""
    path = tmp_path / "captions_val2014.json"
    images = [{"id": 900 - i, "file_name": name} for i, (name, _) in enumerate(PAIRS)][::-1]
    said = [{"id": 7, "image_id": 900 - i, "caption": f" {text}\n"}
            for i, (_, texts) in enumerate(PAIRS) for text in texts]
    path.write_text(json.dumps({"images": [*images, {"id": 1, "file_name": "silent.png"}], "annotations": said}))
    return path


@pytest.fixture
def lines(tmp_path):
    path = tmp_path / "metadata.jsonl"
    rows = [{"file_name": name, "text": text} for name, texts in PAIRS[:30] for text in texts]
    rows += [{"file_name": name, "captions": list(texts)} for name, texts in PAIRS[30:]]
    path.write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    return path


def test_both_formats_are_read(coco, lines):
    assert read_captions(coco) == read_captions(lines) == PAIRS


def test_the_choice_is_fixed_grows_and_uses_every_caption():
    few, many = choose_pairs(PAIRS, 20, seed=3), choose_pairs(PAIRS, 60, seed=3)
    assert few == many[:20] and few != choose_pairs(PAIRS, 20, seed=4)
    assert sorted(name for name, _ in many) == [name for name, _ in PAIRS]
    captions = dict(PAIRS)
    assert all(text in captions[name] for name, text in many)
    assert {text[-1] for name, text in many if len(captions[name]) == 3} == {"0", "1", "2"}


def test_pictures_are_found_in_the_order_of_their_names(tmp_path):
    for name in ("b.png", "a.JPG", "notes.txt", "more/c.webp"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [path.name for path in find_pictures(tmp_path)] == ["a.JPG", "b.png", "c.webp"]
    assert check_pictures(tmp_path, ["b.png", "more/c.webp"]) == [tmp_path / "b.png", tmp_path / "more/c.webp"]


def written(path, text):
    path.write_bytes(text.encode(errors="surrogateescape"))
    return path


@pytest.mark.parametrize(("call", "said"), [
    (lambda p: read_captions(p / "gone.json"), "no captions file .*gone.json"),
    (lambda p: read_captions(written(p / "a.json", "{")), "a.json is neither .*JSONDecodeError"),
    (lambda p: read_captions(written(p / "a.json", '{"images": []}')), "a.json is neither .*KeyError: 'annotations'"),
    (lambda p: read_captions(written(p / "a.jsonl", '{"file_name": "a.png"}')), "KeyError: 'caption'"),
    (lambda p: read_captions(written(p / "a.jsonl", "[1]")), "a.jsonl is neither"),
    (lambda p: read_captions(written(p / "a.jsonl", '{"file_name": "a", "captions": [1]}')), "captions are texts"),
    (lambda p: read_captions(written(p / "a.json", json.dumps({
        "images": [{"id": 1, "file_name": "a"}], "annotations": [{"image_id": 1, "caption": None}]}))), "Attribute"),
    (lambda p: read_captions(written(p / "a.json", "{\udcff")), "a.json is neither .*UnicodeDecodeError"),
    (lambda p: read_captions(written(p / "a.jsonl", "\n")), "a.jsonl holds no caption"),
    (lambda p: choose_pairs(PAIRS, 61), "num_images is 61, but there are only 60 pairs"),
    (lambda p: choose_pairs(PAIRS, 0), "num_images must be a whole number at least 1, got 0"),
    (lambda p: find_pictures(p), "holds no picture; pictures are files that end with .png"),
    (lambda p: check_pictures(p, ["x.png", "y.png"]), "lacks 2 of the 2 pictures that the captions name, first x.png"),
])
def test_refusals_name_what_was_given(call, said, tmp_path):
    with pytest.raises(ValueError, match=said):
        call(tmp_path)
