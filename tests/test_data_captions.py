"""Pictures with captions in every format that is promised, made here; broken ones are counted, never passed over."""

import io
import json
import os
import re
import tarfile
import warnings
import zipfile
import zlib
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from hub_cache import answer
from huggingface_hub import errors
from PIL import Image

from fluidlab.data import captions_open, captions_reading
from fluidlab.data.captions import CaptionedImages, CaptionStream
from fluidlab.data.captions_columns import captions_of, choose_columns
from fluidlab.data.captions_open import coco_pairs, open_captions
from fluidlab.data.captions_reading import Reader
from fluidlab.data.pictures import BrokenPicture, read_picture
from fluidlab.data.token_cache import TokenCache, write_cache
from fluidlab.text import load_text_encoder
from fluidlab.tokenizer import load_tokenizer

N = 6
LEVEL = 40                                                  # picture i is grey of level 40 i


@pytest.fixture(autouse=True)
def quiet():
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


def picture(i, size=(60, 40), mode="RGB"):
    return Image.new("RGB", size, (LEVEL * i,) * 3).convert(mode)


def encoded(image, format="PNG", **options):
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def two(i):
    return [f"picture {i}", f"number {i}"]


def a_folder(path):
    """imagefolder with a metadata file, which datasets reads."""
    path.mkdir()
    for i in range(N):
        picture(i).save(path / f"{i}.png")
    (path / "metadata.jsonl").write_text("\n".join(
        json.dumps({"file_name": f"{i}.png", "captions": two(i)}) for i in range(N)))
    return path


def with_texts(path):
    """Pictures in sub-folders, a text file beside each, one caption a line."""
    for i in range(N):
        place = path / "some" / str(i // 3)
        place.mkdir(parents=True, exist_ok=True)
        picture(i).save(place / f"{i}.png")
        (place / f"{i}.txt").write_text("\n".join(two(i)) + "\n\n")
    return path


def a_zip(path):
    path.mkdir()
    with zipfile.ZipFile(path / "pictures.zip", "w") as archive:
        for i in range(N):
            archive.writestr(f"{i}.png", encoded(picture(i)))
        archive.writestr("metadata.jsonl", "\n".join(
            json.dumps({"file_name": f"{i}.png", "captions": two(i)}) for i in range(N)))
    return path


def put(archive, name, data):
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    archive.addfile(entry, io.BytesIO(data))


def shards(path):
    """webdataset: captions in a json beside each picture, two shards."""
    path.mkdir()
    for shard in range(2):
        with tarfile.open(path / f"{shard:03d}.tar", "w") as archive:
            for i in range(3 * shard, 3 * shard + 3):
                put(archive, f"{i:05d}.jpg", encoded(picture(i), "JPEG", quality=95))
                put(archive, f"{i:05d}.json", json.dumps({"captions": two(i), "cocoid": i}).encode())
    return path


def rows(make=lambda i: encoded(picture(i)), count=N):
    features = datasets.Features({"image": datasets.Image(), "captions": datasets.List(datasets.Value("string"))})
    return datasets.Dataset.from_dict({"image": [{"bytes": make(i), "path": None} for i in range(count)],
                                       "captions": [two(i) for i in range(count)]}, features=features)


def parquet(path):
    path.mkdir()
    rows().to_parquet(path / "part.parquet")
    return path


def plain_parquet(path):
    """Without datasets' own marks: a binary column and a text one, whose names say nothing."""
    path.mkdir()
    plain = datasets.Dataset.from_dict({"content": [encoded(picture(i)) for i in range(N)],
                                        "said": [two(i) for i in range(N)], "price": list(range(N))})
    plain.to_parquet(path / "part.parquet")
    return path


def saved(path):
    rows().save_to_disk(path)
    return path


def saved_dict(path):
    datasets.DatasetDict({"train": rows(), "test": rows(count=2)}).save_to_disk(path)
    return path


def a_csv(path):
    """Paths that start where the file lies."""
    a_folder(path)
    (path / "metadata.jsonl").unlink()
    (path / "list.csv").write_text("image,caption\n" + "".join(f'{i}.png,"{two(i)[0]}"\n' for i in range(N)))
    return path / "list.csv"


FORMATS = [a_folder, with_texts, a_zip, shards, parquet, plain_parquet, saved, saved_dict, a_csv]


@pytest.mark.parametrize("make", FORMATS)
@pytest.mark.parametrize("streaming", [False, True], ids=["whole", "stream"])
def test_every_format(make, streaming, tmp_path):
    name = make(tmp_path / "data")
    source = open_captions(name, image_size=32, streaming=streaming, num_images=N if streaming else None, caption=0,
                           cache_dir=tmp_path / "cache", threads=2)
    images, captions = source.batch(range(N))
    assert images.shape == (N, 3, 32, 32) and images.dtype == torch.uint8 and len(source) == N
    assert (images.float().mean(dim=(1, 2, 3)) - LEVEL * torch.arange(N)).abs().max() < 2
    assert captions == [two(i)[0] for i in range(N)] and source.broken == []
    assert isinstance(source, CaptionStream if streaming else CaptionedImages)
    again = source.batch([1, 4])
    assert again[0].equal(images[[1, 4]]) and again[1] == [captions[1], captions[4]]


@pytest.mark.parametrize("name", ["part.parquet", "*.parquet", "[0-9]*.tar", "000.tar"])
def test_files_and_patterns_of_files(name, tmp_path):
    make, count = (parquet, N) if "parquet" in name else (shards, 3 if name == "000.tar" else N)
    folder = make(tmp_path / "data")
    if name.startswith("["):
        name = "*.tar"
    source = open_captions(folder / name, image_size=16, cache_dir=tmp_path / "cache", threads=1)
    assert len(source) == count


def test_splits_and_their_slices(tmp_path):
    saved_dict(tmp_path / "dict"), parquet(tmp_path / "parquet"), with_texts(tmp_path / "texts")
    options = {"image_size": 16, "cache_dir": tmp_path / "cache", "threads": 1}
    assert len(open_captions(tmp_path / "dict", split="test", **options)) == 2
    assert len(open_captions(tmp_path / "parquet", split="train[:4]", **options)) == 4
    for name in ("parquet", "texts"):
        with pytest.raises(ValueError, match=r"cannot be read \(ValueError: .*split .val"):
            open_captions(tmp_path / name, split="val", **options)


class TestBroken:
    """What a stranger's data set may hold, and what is said of it."""

    def damaged(self, tmp_path, count=N):
        def make(i):
            return {1: b"no picture at all", 3: encoded(picture(i, (600, 400)))[:-500]}.get(i, encoded(picture(i)))
        data = rows(make, count)
        captions = [[] if i == 4 else two(i) for i in range(count)]
        data = data.remove_columns("captions").add_column("captions", captions)
        data.add_column("id", [f"nr-{i}" for i in range(count)]).save_to_disk(tmp_path / "data")
        return tmp_path / "data"

    @pytest.mark.parametrize("streaming", [False, True], ids=["whole", "stream"])
    def test_damage_inside_an_archive_costs_one_picture(self, streaming, tmp_path):
        folder = a_zip(tmp_path / "data")
        archive = bytearray((folder / "pictures.zip").read_bytes())
        archive[archive.index(b"2.png") + 40] ^= 255              # so its bytes no longer have the sum of the list
        (folder / "pictures.zip").write_bytes(archive)
        source = open_captions(folder, image_size=16, streaming=streaming, num_images=3, caption=0,
                               cache_dir=tmp_path / "cache")
        with pytest.warns(UserWarning, match=r"row 2 .* is skipped: BadZipFile: Bad CRC-32"):
            assert source.batch(range(3))[1] == ["picture 0", "picture 1", "picture 3"]

    def test_a_picture_that_the_hub_does_not_give_ends_the_work(self, tmp_path, monkeypatch):
        """Unlike a damaged one: the next will not come either, and a cache without them all would pass for whole."""
        from datasets.utils import file_utils

        def cut(path, mode):
            raise ConnectionResetError("reset by peer")
        monkeypatch.setattr(file_utils, "xopen", cut)
        source = open_captions(a_zip(tmp_path / "data"), image_size=16, streaming=True, num_images=2)
        source.rows = [{"image": {"bytes": None, "path": "hf://datasets/a/b/1.png"}, "captions": ["one"]}]
        with pytest.raises(ValueError, match="hf://datasets/a/b/1.png cannot be fetched .ConnectionResetError: res"):
            source.batch([0])

    def test_a_text_in_another_encoding_costs_a_letter(self, tmp_path):
        folder = with_texts(tmp_path / "data")
        (folder / "some" / "0" / "1.txt").write_bytes("caf\u00e9".encode("latin-1"))
        assert open_captions(folder, image_size=16).batch([1])[1] == ["caf\ufffd"]

    def test_brackets_in_a_path_are_no_pattern_or_named(self, tmp_path):
        whole = parquet(tmp_path / "data")
        file = (whole / "part.parquet").rename(whole / "part [1].parquet")
        assert len(open_captions(file, image_size=16, cache_dir=tmp_path / "cache")) == N
        with pytest.raises(ValueError, match=r"takes the \*, \? or \[ in its path for a pattern, so rename the folder"):
            open_captions(whole.rename(tmp_path / "data [1]"), image_size=16)

    @pytest.mark.parametrize("streaming", [False, True], ids=["whole", "stream"])
    def test_is_skipped_counted_and_named(self, streaming, tmp_path):
        source = open_captions(self.damaged(tmp_path), image_size=16, streaming=streaming, num_images=3, caption=0)
        with pytest.warns(UserWarning) as caught:
            images, captions = source.batch(range(3))
        assert captions == ["picture 0", "picture 2", "picture 5"] and images[:, 0, 0, 0].tolist() == [0, 80, 200]
        assert [row for row, _ in source.broken] == ["row 1 (nr-1)", "row 3 (nr-3)", "row 4 (nr-4)"]
        texts = [str(one.message) for one in caught]
        assert len(texts) == 3 and re.search(r"row 1 \(nr-1\) of .*data is skipped: UnidentifiedImageError", texts[0])
        assert "truncated" in texts[1] and "it has no caption" in texts[2]
        assert re.search(r"data: 3 of 6 rows skipped: 1 because .*\(row \d \(nr-\d\)\); 1 because", source.report())

    @pytest.mark.filterwarnings("ignore:row")
    def test_does_not_shift_what_was_seen(self, tmp_path):
        whole = open_captions(self.damaged(tmp_path), image_size=16, caption=0)
        expected = whole.batch([0, 1, 2])
        jumped = open_captions(tmp_path / "data", image_size=16, caption=0)
        images, captions = jumped.batch([2, 0, 2])
        assert captions == [expected[1][2], expected[1][0], expected[1][2]] and images[1].equal(expected[0][0])
        assert len(jumped) == len(whole) == 3 and len(jumped.broken) == 3
        assert jumped[1]["caption"] == "picture 2"
        with pytest.raises(IndexError, match=r"picture 3 does not exist; there are 3 \(.*3 of 6 rows skipped"):
            jumped.batch([3])

    @pytest.mark.filterwarnings("ignore:row")
    def test_a_stream_that_ends_too_early_says_so(self, tmp_path):
        source = open_captions(self.damaged(tmp_path), image_size=16, streaming=True, num_images=4)
        with pytest.raises(IndexError, match=r"picture 3 does not exist; the stream has 3 \(.*3 of 6 rows skipped"):
            source.batch(range(4))

    def test_a_length_reads_everything_once(self, tmp_path, monkeypatch):
        saved(tmp_path / "data")
        source, read = open_captions(tmp_path / "data", image_size=16, threads=1), []
        monkeypatch.setattr(captions_reading, "read_picture", lambda *a: read.append(1) or read_picture(*a))
        source.batch(range(2))
        assert len(read) == 2
        assert len(source) == N == len(read) and len(source) == N == len(read)

    def test_only_so_many_are_named_but_all_are_counted(self, tmp_path, monkeypatch):
        monkeypatch.setattr(captions_reading, "NAMED", 2)
        rows(lambda i: b"broken" if i % 2 else encoded(picture(i)), 12).save_to_disk(tmp_path / "data")
        source = open_captions(tmp_path / "data", image_size=16)
        with pytest.warns(UserWarning) as caught:
            assert len(source) == 6
        assert len(caught) == 2 and "Further ones are counted and not named here" in str(caught[1].message)
        assert len(source.broken) == 6

    @pytest.mark.filterwarnings("ignore:row")
    def test_a_data_set_of_nothing_else_is_refused_early(self, tmp_path, monkeypatch):
        monkeypatch.setattr(captions_reading, "HOPELESS", 8)
        rows(lambda i: b"broken", 20).save_to_disk(tmp_path / "data")
        with pytest.raises(ValueError, match="None of the first 8 rows of .* can be read .row 7: .* are these its col"):
            open_captions(tmp_path / "data", image_size=16).batch([0])
        rows(lambda i: b"broken", 3).save_to_disk(tmp_path / "few")
        with pytest.raises(ValueError, match="No picture can be read: .*few: 3 of 3 rows skipped"):
            len(open_captions(tmp_path / "few", image_size=16))

    def test_files_that_are_missing(self, tmp_path):
        folder = a_folder(tmp_path / "data")
        (folder / "2.png").unlink()
        with pytest.warns(UserWarning, match=r"row 2 \(2.png\) of .* is skipped: its file is missing"):
            assert len(open_captions(folder, image_size=16, cache_dir=tmp_path / "cache")) == N - 1

    def test_a_picture_without_a_text_beside_it(self, tmp_path):
        folder = with_texts(tmp_path / "data")
        (folder / "some" / "0" / "1.txt").unlink()
        with pytest.warns(UserWarning, match=r"row 1 \(1.png\) .* it has no caption"):
            assert len(open_captions(folder, image_size=16)) == N - 1

    def test_an_archive_that_breaks_off(self, tmp_path, monkeypatch):
        folder = shards(tmp_path / "data")
        whole = (folder / "001.tar").read_bytes()
        (folder / "001.tar").write_bytes(whole[:5000])
        with pytest.raises(ValueError, match=r"cannot be read \(ReadError: unexpected end of data\): give a folder"):
            open_captions(folder, image_size=16, cache_dir=tmp_path / "cache")
        with pytest.raises(ValueError, match=r"data breaks off after 4 rows \(ReadError: unexpected end of data\): f"):
            open_captions(folder, image_size=16, streaming=True, num_images=N)
        monkeypatch.setattr(captions_open, "LOOKED_AT", 2)
        source = open_captions(folder, image_size=16, streaming=True, num_images=N, threads=1)
        assert len(source.batch(range(4))[1]) == 4
        with pytest.raises(ValueError, match="breaks off after 4 rows .*: fetch it again, or say fewer num_images"):
            source.batch([4])


class TestPictures:
    """Upright, the middle square, antialiased, on white; or a reason."""

    def test_the_middle_square_upright(self):
        wide = Image.new("RGB", (96, 32), "red")
        wide.paste("blue", (32, 0, 64, 32))
        assert read_picture(encoded(wide), 16).flatten(1).unique(dim=1).flatten().tolist() == [0, 0, 255]
        turned = Image.new("RGB", (40, 40), "red")
        turned.paste("blue", (0, 0, 20, 40))
        exif = Image.Exif()
        exif[0x0112] = 6                                     # turn right to see it upright: the left comes to the top
        upright = read_picture(encoded(turned, "JPEG", exif=exif, quality=95), 16).float()
        assert upright[2, :7].min() > 200 > 55 > upright[2, -7:].max() and upright[0, -7:].min() > 200

    def test_fine_stripes_become_grey(self):
        stripes = np.zeros((160, 160), np.uint8)
        stripes[:, ::2] = 255
        small = read_picture(encoded(Image.fromarray(stripes)), 16)
        assert small.min() > 110 and small.max() < 145

    @pytest.mark.parametrize("mode, format", [
        ("L", "PNG"), ("1", "PNG"), ("P", "GIF"), ("CMYK", "JPEG"), ("RGBA", "PNG"), ("LA", "PNG"), ("RGB", "WEBP"),
        ("YCbCr", "JPEG"), ("RGB", "BMP"), ("CMYK", "TIFF"), ("RGB", "PPM"), ("I;16", "PNG")])
    def test_every_mode_becomes_rgb(self, mode, format):
        level = 255 if mode == "1" else 200
        if mode == "I;16":
            image = Image.fromarray(np.full((40, 60), level << 8, np.uint16))
        else:
            image = Image.new("RGB", (60, 40), (level,) * 3)
            image = image.quantize() if mode == "P" else image.convert(mode)
        read = read_picture(encoded(image, format), 16).float()
        assert read.shape == (3, 16, 16) and (read - level).abs().max() < 4

    def test_transparency_lies_on_white(self):
        clear = Image.new("RGBA", (20, 20), (255, 0, 0, 0))
        palette = Image.new("P", (20, 20), 0)
        palette.putpalette([255, 0, 0, 0, 0, 255])
        for data in (encoded(clear), encoded(palette, transparency=0), encoded(clear.convert("LA"))):
            assert (read_picture(data, 16) == 255).all()

    def test_of_a_moving_picture_the_first_frame(self):
        frames = [Image.new("RGB", (20, 20), color) for color in ("red", "blue")]
        file = io.BytesIO()
        frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
        assert read_picture(file.getvalue(), 16)[:, 0, 0].tolist() == [255, 0, 0]

    def test_a_bomb_is_refused_by_its_header(self, monkeypatch):
        """A few kilobytes that claim to be 20,000 x 20,000 pixels, and one below Pillow's own limit."""
        def claim(width, height):
            data = bytearray(encoded(Image.new("1", (8, 8))))
            data[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
            data[29:33] = zlib.crc32(bytes(data[12:29])).to_bytes(4, "big")
            return bytes(data)
        huge, large = claim(20_000, 20_000), claim(8193, 8193)
        monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("a pixel was unpacked"))
        with pytest.raises(BrokenPicture, match="DecompressionBomb"):
            read_picture(huge)
        with pytest.raises(BrokenPicture, match="8193x8193 pixels, more than 67,108,864"):
            read_picture(large)

    def test_programs_are_no_pictures(self, tmp_path):
        """PostScript is a program, which Pillow would hand to an interpreter."""
        for name, data in (("a.eps", encoded(Image.new("RGB", (20, 20)), "EPS")), ("a.svg", b"<svg></svg>"),
                           ("a.jpg", b""), ("b.jpg", os.urandom(2000))):
            (tmp_path / name).write_bytes(data)
            with pytest.raises(BrokenPicture, match="UnidentifiedImageError"):
                read_picture(tmp_path / name)
        with pytest.raises(BrokenPicture, match="its file is missing"):
            read_picture(tmp_path / "none.png")
        with pytest.raises(BrokenPicture, match="IsADirectoryError"):
            read_picture(tmp_path)

    @pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "GIF", "TIFF"])
    def test_half_a_file(self, format):
        noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
        data = encoded(noise, format)
        for share in (0.02, 0.3, 0.7):
            with pytest.raises(BrokenPicture):
                read_picture(data[:int(share * len(data))], 16)


class TestSafety:
    """Nothing is written, and nothing is read outside the data set's folder."""

    def listing(self, folder):
        return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if "cache" not in path.parts}

    def test_shards_that_climb_out(self, tmp_path):
        folder = shards(tmp_path / "data")
        with tarfile.open(folder / "002.tar", "w") as archive:
            for i, name in enumerate(("../climbed", "/tmp/fluidlab-climbed")):
                put(archive, f"{name}.jpg", encoded(picture(i), "JPEG"))
                put(archive, f"{name}.json", json.dumps({"captions": two(i), "cocoid": i}).encode())
            link = tarfile.TarInfo("link.jpg")
            link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
            archive.addfile(link)
        before = self.listing(tmp_path)
        for streaming in (False, True):
            source = open_captions(folder, image_size=16, streaming=streaming, num_images=8,
                                   cache_dir=tmp_path / "cache")
            assert len(source.batch(range(8))[1]) == 8
        assert self.listing(tmp_path) == before and not Path("/tmp/fluidlab-climbed.jpg").exists()

    def test_an_archive_that_climbs_out(self, tmp_path):
        folder = a_zip(tmp_path / "data")
        with zipfile.ZipFile(folder / "pictures.zip", "a") as archive:
            archive.writestr("../../climbed.png", encoded(picture(1)))
        before = self.listing(tmp_path)
        source = open_captions(folder / "pictures.zip", image_size=16, cache_dir=tmp_path / "cache")
        assert len(source) == N and self.listing(tmp_path) == before

    @pytest.mark.parametrize("path", ["../outside.png", "{absolute}", "inner/../../outside.png",
                                      "zip://outside.png::{archive}"])
    def test_a_path_that_leads_out(self, path, tmp_path):
        picture(3).save(tmp_path / "outside.png")
        with zipfile.ZipFile(tmp_path / "outside.zip", "w") as archive:
            archive.writestr("outside.png", encoded(picture(3)))
        path = path.format(absolute=tmp_path / "outside.png", archive=tmp_path / "outside.zip")
        folder = a_csv(tmp_path / "data").parent
        (folder / "list.csv").write_text(f"image,caption\n0.png,inside\n{path},outside\n")
        with pytest.warns(UserWarning, match=r"row 1 .* is skipped: its path leads out of the data set's folder"):
            assert len(open_captions(folder / "list.csv", image_size=16, cache_dir=tmp_path / "cache")) == 1


class TestCaptions:
    """Several captions of one picture: a fixed one, or one that (seed, epoch, row) decides."""

    def many(self, tmp_path):
        data = datasets.Dataset.from_dict({"image": [encoded(picture(1))] * 40,
                                           "caption": [[f"{i}-{k}" for k in range(5)] for i in range(40)]})
        data.save_to_disk(tmp_path / "data")
        return tmp_path / "data"

    def test_a_number_is_that_one(self, tmp_path):
        for number, ending in ((0, "-0"), (3, "-3"), (7, "-2")):             # counted round
            _, captions = open_captions(self.many(tmp_path), image_size=16, caption=number).batch(range(4))
            assert captions == [f"{i}{ending}" for i in range(4)]

    def test_none_is_drawn_by_seed_and_epoch(self, tmp_path):
        """All five come up in 40 draws; two epochs agree everywhere with a probability of 5^-40."""
        name = self.many(tmp_path)
        first = open_captions(name, image_size=16)
        said = first.batch(range(40))[1]
        assert {caption.split("-")[1] for caption in said} == set("01234")
        assert said == open_captions(name, image_size=16).batch(range(40))[1]
        assert said[7] == first.batch([7])[1][0] and said != first.at_epoch(1).batch(range(40))[1]
        assert said != open_captions(name, image_size=16, seed=1).batch(range(40))[1]
        assert first.at_epoch(1).batch(range(40))[1] == open_captions(name, image_size=16, epoch=1).batch(range(40))[1]

    @pytest.mark.parametrize("value, expected", [
        ("  a   cat\n", ["a cat"]), (b"a cat", ["a cat"]), (["a", " ", "b", None], ["a", "b"]), (None, []), (3, []),
        ({"raw": "a cat", "tokens": ["a", "cat"]}, ["a cat"]), ([{"raw": "a"}, {"raw": "b"}], ["a", "b"]),
        ({"raw": ["a", "b"], "sentid": [1, 2]}, ["a", "b"]), ("", []),
    ])
    def test_wherever_they_hide(self, value, expected):
        assert captions_of(value) == expected


class TestColumns:
    """Found by type and name, or named; what cannot be meant is refused."""

    IMAGE = {"bytes": b"", "path": "a.png"}

    @pytest.mark.parametrize("row, found", [
        ({"image": IMAGE, "caption": "a", "url": "http://a"}, ("image", "caption", None)),
        ({"jpg": b"", "json": {"caption": "a"}, "__key__": "1", "__url__": "x"}, ("jpg", "json.caption", "__key__")),
        ({"jpg": b"", "txt": "a", "json": {"caption": "b"}}, ("jpg", "txt", None)),
        ({"mask": IMAGE, "image": IMAGE, "said": "a"}, ("image", "said", None)),
        ({"content": b"", "sentences": {"raw": "a"}, "id": 4}, ("content", "sentences", "id")),
    ])
    def test_they_are_found(self, row, found):
        columns = choose_columns(row)
        assert (columns.image, columns.caption, columns.id) == found

    def test_they_can_be_named(self):
        row = {"a": self.IMAGE, "b": self.IMAGE, "x": {"long": "one"}, "y": "two"}
        assert choose_columns(row, image="b", caption="x.long", id="y").caption == "x.long"

    @pytest.mark.parametrize("row, given, sentence", [
        ({"a": IMAGE, "b": IMAGE, "caption": "x"}, {}, "2 columns hold pictures: a, b; name one with image_column"),
        ({"caption": "x"}, {}, r"0 columns hold pictures; name one with image_column \(the columns are caption\)"),
        ({"image": IMAGE, "x": "a", "y": "b"}, {}, "2 columns could hold captions: x, y; name one with caption_column"),
        ({"image": IMAGE, "n": 3}, {}, "0 columns could hold captions; name one"),
        ({"image": IMAGE, "x": "a"}, {"caption": "z"}, "There is no column 'z'; the columns are image, x"),
        ({"image": IMAGE, "x": {"y": "a"}}, {"caption": "x.z"}, "There is no column 'x.z'"),
        ({"image": "https://a.b/c.jpg", "x": "a"}, {}, r"Column 'image' holds addresses \(https://a.b/c.jpg\) and"),
    ])
    def test_what_cannot_be_meant(self, row, given, sentence):
        with pytest.raises(ValueError, match=sentence):
            choose_columns(row, **given)


class TestStream:
    """A stream goes forwards, starts again when asked for the past, and has the length that it is given."""

    def test_forwards_and_again_from_the_start(self, tmp_path):
        source = open_captions(parquet(tmp_path / "data"), image_size=16, streaming=True, num_images=N, caption=0)
        assert source.batch([0, 2])[1] == ["picture 0", "picture 2"]
        assert source.batch([3])[1] == ["picture 3"] and source.batch([1])[1] == ["picture 1"]
        assert [scene["caption"] for scene in source] == [f"picture {i}" for i in range(N)] and len(source) == N
        with pytest.raises(ValueError, match=r"indices must grow from 0 or above, got \[2, 2\]"):
            source.batch([2, 2])

    def test_no_more_than_asked_for(self, tmp_path):
        source = open_captions(parquet(tmp_path / "data"), image_size=16, streaming=True, num_images=2)
        assert len(list(source)) == 2
        endless = open_captions(tmp_path / "data", image_size=16, streaming=True)
        assert len(list(endless)) == N
        with pytest.raises(ValueError, match="is a stream and has no length: say num_images"):
            len(endless)


class TestCoco:
    """The official layout in small: 12 pictures, five captions each."""

    def layout(self, folder, split="val2014", broken=()):
        (folder / "annotations").mkdir(parents=True)
        (folder / split).mkdir()
        numbers = [100 + 7 * i for i in range(12)]
        names = {n: f"COCO_{split}_{n:012d}.jpg" for n in numbers}
        for i, n in enumerate(numbers):
            data = encoded(picture(i % 6), "JPEG", quality=95)
            (folder / split / names[n]).write_bytes(b"broken" if n in broken else data)
        notes = [{"id": 1000 + 5 * i + k, "image_id": n, "caption": f"{n} said {k} "}
                 for i, n in enumerate(numbers) for k in range(5)]
        (folder / "annotations" / f"captions_{split}.json").write_text(json.dumps(
            {"info": {}, "images": [{"id": n, "file_name": names[n]} for n in numbers], "annotations": notes}))
        return folder

    def test_so_many_pairs_by_a_fixed_seed(self, tmp_path):
        """12 pictures in another order under another seed: the same by chance once in 12!."""
        pairs = coco_pairs(self.layout(tmp_path / "coco"), num_pairs=12, image_size=16)
        images, captions = pairs.batch(range(12))
        numbers = [int(caption.split()[0]) for caption in captions]
        assert len(pairs) == 12 and sorted(numbers) == [100 + 7 * i for i in range(12)] != numbers
        assert (images.float().mean(dim=(1, 2, 3)) - torch.tensor([LEVEL * ((n - 100) // 7 % 6) for n in numbers])
                ).abs().max() < 3                                             # each picture has its own caption
        assert len({caption[-1] for caption in captions}) > 2                 # and not always the first
        assert coco_pairs(tmp_path / "coco", num_pairs=5, image_size=16).batch(range(5))[1] == captions[:5]
        assert coco_pairs(tmp_path / "coco", num_pairs=12, image_size=16, seed=1).batch(range(12))[1] != captions

    def test_the_choice_is_pinned(self, tmp_path):
        """On every machine and with every version these, or scores of different years would not compare."""
        pairs = coco_pairs(self.layout(tmp_path / "coco"), num_pairs=3, image_size=16)
        assert pairs.batch(range(3))[1] == PINNED

    def test_the_order_of_the_file_says_nothing(self, tmp_path):
        captions = coco_pairs(self.layout(tmp_path / "coco"), num_pairs=12, image_size=16).batch(range(12))[1]
        path = tmp_path / "coco" / "annotations" / "captions_val2014.json"
        values = json.loads(path.read_text())
        path.write_text(json.dumps({name: part[::-1] if part else part for name, part in values.items()}))
        assert coco_pairs(tmp_path / "coco", num_pairs=12, image_size=16).batch(range(12))[1] == captions

    def test_a_broken_picture_makes_room_for_the_next(self, tmp_path):
        good = coco_pairs(self.layout(tmp_path / "good"), num_pairs=12, image_size=16).batch(range(12))[1]
        second = int(good[1].split()[0])
        pairs = coco_pairs(self.layout(tmp_path / "bad", broken=[second]), num_pairs=4, image_size=16)
        with pytest.warns(UserWarning, match=rf"row 1 \({second}\) of .* is skipped"):
            assert pairs.batch(range(4))[1] == [good[0], *good[2:5]] and len(pairs) == 4

    def test_the_training_split_and_open_captions(self, tmp_path):
        folder = self.layout(tmp_path / "coco", "train2014")
        (folder / "images").mkdir()
        (folder / "train2014").rename(folder / "images" / "train2014")
        pairs = coco_pairs(folder, split="train2014", num_pairs=4, image_size=16)
        source = open_captions(folder, split="train2014", image_size=16)
        assert pairs.batch(range(4))[1] == source.batch(range(4))[1] and len(source) == 12

    def test_a_data_set_on_the_hub_gives_its_rows_in_the_seeds_order(self, tmp_path, monkeypatch):
        monkeypatch.setattr(datasets, "load_dataset", lambda name, config, **options: rows(count=6))
        pairs = coco_pairs(num_pairs=6, image_size=16)
        numbers = [int(caption.split()[-1]) for caption in pairs.batch(range(6))[1]]
        assert sorted(numbers) == list(range(6)) != numbers

    def test_what_is_refused(self, tmp_path):
        folder = self.layout(tmp_path / "coco")
        with pytest.raises(ValueError, match="has 12 pictures in val2014, but 13 pairs were asked for"):
            coco_pairs(folder, num_pairs=13)
        with pytest.raises(ValueError, match="not COCO's test2014 as it is shipped, because .*captions_test2014.json"):
            coco_pairs(folder, split="test2014", num_pairs=3)
        with pytest.raises(ValueError, match="num_pairs must be a whole number at least 1, got 0"):
            coco_pairs(folder, num_pairs=0)
        (folder / "annotations" / "captions_val2014.json").write_text('{"images": [{"id": 1}]}')
        with pytest.raises(ValueError, match=r"is not of COCO's captions \(KeyError: 'file_name'\): it needs images"):
            coco_pairs(folder, num_pairs=3)

    def test_a_file_name_that_leads_out(self, tmp_path):
        folder = self.layout(tmp_path / "coco")
        path = folder / "annotations" / "captions_val2014.json"
        path.write_text(path.read_text().replace("COCO_val2014_000000000100.jpg", "../../outside.jpg"))
        picture(1).save(tmp_path / "outside.jpg")
        with pytest.warns(UserWarning, match=r"\(100\) of .* is skipped: its path leads out of the data set's folder"):
            assert len(open_captions(folder, split="val2014", image_size=16)) == 11


PINNED = ["170 said 2", "100 said 3", "135 said 0"]


@pytest.mark.parametrize("raised, sentence", [
    (None, "HF_HUB_OFFLINE forbids to go online: unset .* `hf download --repo-type dataset nobody/nothing --r"),
    (errors.RepositoryNotFoundError("404", response=answer(404)), "the hub knows no dataset of this name .* check the"),
    (errors.GatedRepoError("403", response=answer(403)), "gated: accept its terms at .*/datasets/nobody/nothing, "),
    (datasets.exceptions.DatasetNotFoundError("none"), "the hub knows no dataset of this name"),
    (ValueError("Unknown split 'x'. Should be one of ['train']."), r"of ValueError: Unknown split 'x'.*\['train'\]"),
], ids=["offline", "unknown", "gated", "unknown to datasets", "split"])
def test_a_hub_that_fails(raised, sentence, tmp_path, monkeypatch):
    def load(*args, **options):
        raise raised
    if raised is not None:
        monkeypatch.setattr(datasets, "load_dataset", load)
    with pytest.raises(ValueError, match=f"^The data set 'nobody/nothing@v1' cannot be loaded, because .*{sentence}"):
        open_captions("nobody/nothing@v1", cache_dir=tmp_path)


@pytest.mark.parametrize("make, sentence", [
    (lambda p: p / "nowhere", "there is no such folder or file"), (lambda p: "", "named by a folder, a file or a"),
    (lambda p: p.joinpath("e").mkdir() or p / "e", "cannot be read .*: give a folder of pictures with a metadata"),
    (lambda p: p.joinpath("a.docx").write_text("x") and p / "a.docx", "ending with '.docx' are not"),
    (lambda p: p.joinpath("s").mkdir() or p.joinpath("s", "s.py").write_text("x") and p / "s", "cannot be read .Runt"),
])
def test_names_that_are_no_data_set(make, sentence, tmp_path):
    with pytest.raises(ValueError, match=sentence):
        open_captions(make(tmp_path), cache_dir=tmp_path / "cache")


@pytest.mark.parametrize("options, sentence", [
    ({"image_size": 8}, "image_size must be a whole number from 16 to 1024, got 8"),
    ({"caption": -1}, "caption must be a whole number at least 0, got -1"), ({"seed": 0.5}, "seed must be a whole"),
    ({"num_images": 0}, "num_images must be a whole number at least 1, got 0"), ({"threads": 0}, "threads must be a"),
    ({"revision": "v1"}, "is here on the disk and has no revisions, got 'v1'; leave it out"),
])
def test_options_out_of_range(options, sentence, tmp_path):
    with pytest.raises(ValueError, match=sentence):
        open_captions(saved(tmp_path / "data"), **options)


def test_a_token_cache_is_made_of_it(tmp_path):
    """The contract of a source: what `write_cache` asks of EmojiScenes it may ask of these pictures."""
    source = open_captions(shards(tmp_path / "data"), image_size=64, caption=0, cache_dir=tmp_path / "cache")
    vae, text = load_tokenizer("scenes-vae"), load_text_encoder("scenes-t5")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The text encoder was never trained on")
        folder = write_cache(tmp_path / "tokens", source, len(source), {"vae": vae}, text, batch_size=4, progress=False)
        expected = vae.encode(source.batch([5])[0].float() / 127.5 - 1)
        features = text(["picture 5"])[0]
    tokens, found, mask = TokenCache(folder, "vae").gather([5])
    assert torch.allclose(tokens, expected, atol=1e-2) and torch.allclose(found[mask], features[0], atol=1e-2)


def test_a_reader_is_checked_when_it_is_made():
    with pytest.raises(ValueError, match="epoch must be a whole number at least 0, got -1"):
        Reader(columns=choose_columns({"image": b"", "caption": "a"}), epoch=-1)
