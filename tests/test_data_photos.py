"""Photographs: what is held out stays out, crops are reproducible, and any file becomes the tensor that it should."""

import re

import numpy as np
import pytest
import torch
from helpers import broken_png
from PIL import Image

from fluidlab.data.photos import (
    PHOTOS,
    PHOTOS_HELDOUT,
    PHOTOS_TRAIN,
    SPLITS,
    PhotoCrops,
    image_to_tensor,
    load_photo,
    to_tensor,
)


def test_held_out_photographs():
    assert "chelsea" in PHOTOS_HELDOUT and len(PHOTOS_HELDOUT) >= 3
    assert not set(PHOTOS_HELDOUT) & set(PHOTOS_TRAIN) and {*PHOTOS_HELDOUT, *PHOTOS_TRAIN} == set(PHOTOS)
    assert sum(name.startswith("motorcycle") for name in PHOTOS_TRAIN) == 2  # two views of one scene, one side
    for split, names in SPLITS.items():
        assert set(PhotoCrops(split)._lots) == set(names)
    for name in PHOTOS_HELDOUT:
        red, green, blue = load_photo(name, 32).int()
        assert (red - blue).abs().float().mean() > 5, f"{name} is no colour photograph"


def test_load_photo_sizes():
    assert load_photo("chelsea").shape == (3, 300, 300)
    assert load_photo("chelsea", 64).shape == (3, 64, 64)
    assert load_photo("rocket", 128, crop=None).shape == (3, 128, 192)
    assert all(load_photo(name, 16).dtype == torch.uint8 for name in PHOTOS)


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("image_size", [64, 256])
def test_crops_are_reproducible(split, image_size):
    crops = PhotoCrops(split, image_size, seed=3)
    batch = crops.batch([4, 0, 4])
    assert batch.shape == (3, 3, image_size, image_size) and batch.dtype == torch.uint8
    assert torch.equal(batch[0], batch[2]) and torch.equal(batch[1], PhotoCrops(split, image_size, seed=3)[0])
    assert not torch.equal(batch[0], PhotoCrops(split, image_size, seed=4)[4])


def test_the_middle_square_of_any_picture():
    wide = Image.new("RGB", (96, 32), "red")
    wide.paste("blue", (32, 0, 64, 32))
    assert torch.equal(image_to_tensor(wide, 16), torch.tensor([0, 0, 255]).view(3, 1, 1).expand(3, 16, 16))


def test_antialiasing():
    """Black and white columns one pixel wide become grey, not black or white, when ten fall on one pixel."""
    stripes = np.zeros((160, 160), np.uint8)
    stripes[:, ::2] = 255
    small = image_to_tensor(Image.fromarray(stripes), 16)
    assert small.min() > 110 and small.max() < 145


def test_odd_pictures(tmp_path):
    clear = Image.new("RGBA", (20, 20), (255, 0, 0, 0))
    assert (image_to_tensor(clear, 16) == 255).all()
    assert image_to_tensor(Image.new("L", (20, 30), 7), 16).unique().tolist() == [7]
    deep = Image.fromarray(np.full((20, 20), 200 << 8, np.uint16))
    assert image_to_tensor(deep, 16).unique().tolist() == [200]
    turned = Image.new("RGB", (40, 20), "red")
    turned.paste("blue", (0, 0, 20, 20))
    exif = Image.Exif()
    exif[0x0112] = 6  # "turn right to see it upright": blue, at the left, comes to the top
    turned.save(tmp_path / "turned.png", exif=exif)
    upright = image_to_tensor(tmp_path / "turned.png", 16)
    assert upright[2, 0].min() > 200 and upright[0, -1].min() > 200


def test_path_and_picture_agree(tmp_path):
    load = Image.fromarray(load_photo("coffee", 64).permute(1, 2, 0).numpy())
    load.save(tmp_path / "coffee.png")
    assert torch.equal(image_to_tensor(tmp_path / "coffee.png", 64), to_tensor(load))


def test_bad_arguments(tmp_path):
    (tmp_path / "notes.txt").write_text("no picture")
    for how in ("bomb", "chunk"):
        (tmp_path / f"{how}.png").write_bytes(broken_png(how))
    for call, sentence in (
        (lambda: load_photo("tiger"), "photo is 'tiger'; allowed are astronaut"),
        (lambda: load_photo("chelsea", 8), "image_size is 8; allowed are whole numbers from 16 to 1024"),
        (lambda: load_photo("chelsea", crop="left"), "crop is 'left'; allowed are 'center' and None"),
        (lambda: PhotoCrops("validation"), "split is 'validation'; allowed are 'train', 'test'"),
        (lambda: PhotoCrops(seed=-1), "seed is -1 and size is 1000000; allowed are at least 0"),
        (lambda: image_to_tensor(tmp_path / "none.png"), "there is no file"),
        (lambda: image_to_tensor(tmp_path / "notes.txt"), "cannot be read as a picture"),
        (lambda: image_to_tensor(tmp_path / "bomb.png"), "bomb.png' cannot be read as a picture"),
        (lambda: image_to_tensor(tmp_path / "chunk.png"), "chunk.png' cannot be read as a picture"),
    ):
        with pytest.raises(ValueError, match=re.escape(sentence)):
            call()
    with pytest.raises(IndexError, match="crop 5 does not exist; this split has crops 0 to 4"):
        PhotoCrops(size=5)[5]
