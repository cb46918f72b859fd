"""The shipped sprites are the font's, scaling is exact, and every colour can be told from the others."""

import itertools
import json

import numpy as np
import pytest

from fluidlab.config import data_dir
from fluidlab.data.atlas import (
    CELL,
    CLASSES,
    COLORS,
    EMOJI,
    area_sums,
    find_fills,
    load_atlas,
    render_sprites,
    scale_layers,
    tint,
)
from fluidlab.data.grammar import many, one
from fluidlab.data.splitmix import SplitMix64


def test_atlas_is_what_the_font_draws_now():
    """Renderers differ a little at edges only: the mean difference stays under 4 of 255."""
    shipped = load_atlas()
    for name, image in render_sprites().items():
        h, w, _ = shipped[name].shape
        assert abs(image.width - w) <= 2 and abs(image.height - h) <= 2, name
        drawn = np.asarray(image.resize((w, h))).astype(int)
        alpha = np.minimum(drawn[..., 3:], shipped[name][..., 3:])
        assert np.abs(drawn[..., 3] - shipped[name][..., 3].astype(int)).mean() < 4, name
        assert (np.abs(drawn[..., :3] - shipped[name][..., :3].astype(int)) * (alpha > 250)).mean() < 4, name


def test_atlas_names_its_licence_and_classes():
    about = json.loads((data_dir() / "openmoji-atlas.json").read_text(encoding="utf-8"))
    assert "CC BY-SA 4.0" in about["licence"] and "OpenMoji" in about["attribution"]
    assert [(entry["name"], int(entry["codepoint"][2:], 16)) for entry in about["classes"]] == [
        (name, codepoint) for name, (codepoint, _) in EMOJI.items()
    ]
    assert len(CLASSES) >= 48 and len(COLORS) == 8
    assert all(max(sprite.shape[:2]) == CELL for sprite in load_atlas().values())


def test_every_painted_fill_exists():
    """A typing error in the table of paint would paint nothing."""
    for name, (_, paint) in EMOJI.items():
        sprite = load_atlas()[name]
        codes = sprite[sprite[..., 3] == 255][:, :3].astype(int) @ [65536, 256, 1]
        assert np.isin(codes, int(next(iter(paint)), 16)).mean() > 0.04, name
        assert len(find_fills(sprite, paint)) >= 2


def test_area_sums_are_exact():
    rng = SplitMix64(1)
    picture = np.array([rng.below(65026) for _ in range(6 * 9)], dtype=np.int64).reshape(1, 6, 9)
    assert area_sums(picture, 1, 1)[0, 0, 0] == picture.sum()
    assert np.array_equal(area_sums(picture, 2, 3)[0], picture[0].reshape(2, 3, 3, 3).sum((1, 3)) * 6)
    assert np.array_equal(area_sums(picture, 6, 9), picture * 54)
    assert area_sums(picture, 4, 5).sum() == picture.sum() * 20


@pytest.mark.parametrize("size", [28, 112])
def test_every_color_can_be_recovered(size):
    """Of the opaque pixels near any of the eight colours, most are near the one that was asked for."""
    palette = np.array(list(COLORS.values()))
    for name in CLASSES:
        scaled = scale_layers(name, size)
        for wanted, color in enumerate(COLORS):
            ink, through = tint(*scaled, color)
            pixels = ink.reshape(3, -1).T[through.ravel() < 40].astype(int)
            distance = np.sqrt(((pixels[:, None] - palette) ** 2).sum(-1))
            votes = np.bincount(distance.argmin(1)[distance.min(1) < 60], minlength=8)
            assert votes[wanted] > 0.5 * votes.sum() and votes[wanted] > 0.05 * len(pixels), (name, color, votes)


def test_colors_are_well_apart():
    for (first, a), (second, b) in itertools.combinations(COLORS.items(), 2):
        assert np.linalg.norm(np.subtract(a, b)) > 85, (first, second)


def test_words():
    assert [one("cat"), one("apple"), one("cat", "orange"), one("umbrella", "red"), one("scissors", "blue")] == [
        "a cat", "an apple", "an orange cat", "a red umbrella", "a pair of blue scissors",
    ]  # fmt: skip
    assert [many(name) for name in ("bus", "sandwich", "knife", "sheep", "computer mouse", "scissors", "book")] == [
        "buses", "sandwiches", "knives", "sheep", "computer mice", "pairs of scissors", "books",
    ]  # fmt: skip


def test_splitmix_is_the_published_generator():
    """The first outputs for the state 0, as the reference implementation gives them."""
    stream = SplitMix64()
    assert [stream.next() for _ in range(3)] == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
