"""Real parts on the command line, with small random weights in their places: statistics, and caches of any data set."""

import json
import re
from pathlib import Path

import datasets
import pytest
import torch
from diffusers import AutoencoderKL
from hub_cache import put_into_cache
from huggingface_hub import constants
from PIL import Image

from fluidlab.cli import build_parser, main
from fluidlab.cli import captions as options
from fluidlab.data.token_cache import TokenCache
from fluidlab.pipeline import FluidPipeline
from fluidlab.tokenizer import load_tokenizer


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    """Caches of one test alone; Hugging Face reads its environment only once, when it is imported."""
    monkeypatch.setenv("FLUIDLAB_CACHE", str(tmp_path / "user-cache"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
    put_into_cache(tmp_path / "hub", "stabilityai/sd-vae-ft-ema", small_vae().save_pretrained)
    return tmp_path


def small_vae():
    torch.manual_seed(4)
    return AutoencoderKL(block_out_channels=(8,) * 4, norm_num_groups=4, down_block_types=("DownEncoderBlock2D",) * 4,
                         up_block_types=("UpDecoderBlock2D",) * 4, scaling_factor=0.5)  # fmt: skip


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(6):
        Image.new("RGB", (80, 64), (40 * i, 0, 255 - 40 * i)).save(folder / f"{i}.png")
        (folder / f"{i}.txt").write_text(f"a photo of a cat\na photo of {('one', 'two', 'three')[i % 3]} dogs")
    return folder


STATS = ["stats", "stabilityai/sd-vae-ft-ema", "--num-images", "12", "--image-size", "64", "--batch-size", "5"]


def test_statistics_are_measured_printed_kept_and_used(places, capsys):
    before = load_tokenizer("stabilityai/sd-vae-ft-ema", image_size=64)
    assert main([*STATS, "--dry-run"]) == 0 and "nothing kept" in capsys.readouterr().out
    assert not (places / "user-cache").exists()
    assert main(STATS) == 0
    out = capsys.readouterr().out
    assert "stabilityai/sd-vae-ft-ema on 12 images of EmojiScenes train, 64 pixels" in out
    rows = re.findall(r"^\| (\d) \| (-?\d+\.\d{4}) \| (\d+\.\d{4}) \| (\d+\.\d{4}) \|$", out, flags=re.M)
    [kept] = (places / "user-cache" / "statistics").iterdir()
    values = json.loads(kept.read_text())
    assert str(kept) in out and (values["images"], values["image_size"]) == (12, 64)
    for (channel, mean, std, now), m, s in zip(rows, values["mean"], values["std"], strict=True):
        assert float(mean) == pytest.approx(m, abs=1e-4) and float(std) == pytest.approx(s, abs=1e-4)
        assert float(now) == pytest.approx(s * 0.5, abs=1e-4), channel           # its configuration multiplies by 0.5
    after = load_tokenizer("stabilityai/sd-vae-ft-ema")
    assert after.latent_std.tolist() == pytest.approx(values["std"]) != before.latent_std.tolist()
    assert not [path for path in (places / "hub").rglob("*") if path.name.endswith(("fluidlab.json", kept.name))]
    assert main(STATS) == 0 and rows[0][3] in capsys.readouterr().out            # of the configuration's scale, again


def test_statistics_over_a_data_set(pictures, capsys):
    assert main([*STATS[:2], "--data", str(pictures), "--image-size", "64", "--num-images", "100"]) == 0
    said = capsys.readouterr().out
    assert re.search(r"on 6 images of \S*pictures, 64 pixels; \S*pictures: 0 of 6 rows skipped", said)


def test_a_cache_of_a_data_set_with_parts_from_the_hub(pictures, places, capsys, recwarn):
    (pictures / "3.png").write_bytes(b"broken")
    command = ["cache", str(places / "cache"), "--dataset", str(pictures), "--text-encoder", "scenes-t5",
               "--image-size", "64", "--caption-number", "0", "--batch-size", "4", "--max-batch", "2"]
    assert main(command) == 0
    assert re.search(r"holds 5 images; .*pictures: 1 of 6 rows skipped: 1 because .*\(row 3 \(3.png\)\)",
                     capsys.readouterr().out)
    assert any("row 3 (3.png)" in str(one.message) for one in recwarn)
    cache = TokenCache(places / "cache")
    assert len(cache) == 5 and cache.tokenizer == "stabilityai/sd-vae-ft-ema" and cache.model_facts()["seq_len"] == 16
    assert cache.facts()["source"] == {
        "dataset": str(pictures), "split": "train", "image_size": 64, "columns": ["image", "captions"], "seed": 0,
        "epoch": 0, "caption": 0}
    tokens = cache.gather([3])[0]                                                 # picture 4, behind the broken one
    picture = torch.tensor([160.0, 0.0, 95.0]).view(1, 3, 1, 1).expand(1, 3, 64, 64) / 127.5 - 1
    vae = load_tokenizer("stabilityai/sd-vae-ft-ema")
    assert torch.allclose(tokens, vae.encode(picture), atol=1e-2)


@pytest.fixture
def decoded(monkeypatch):
    """Every picture that is decoded, by its file."""
    from fluidlab.data import captions_reading
    read, names = captions_reading.read_picture, []

    def reading(source, *options):
        names.append(Path(source).name)
        return read(source, *options)
    monkeypatch.setattr(captions_reading, "read_picture", reading)
    return names


def cache_of(pictures, folder, *options):
    return main(["cache", str(folder), "--dataset", str(pictures), "--text-encoder", "scenes-t5", "--tokenizers",
                 "scenes-vq", "--image-size", "64", "--caption-number", "0", "--batch-size", "4", *options])


ALL = [f"{i}.png" for i in range(6)]


def test_every_picture_is_decoded_once(pictures, places, decoded, capsys):
    """Also by those that share a data set, and only as many as are asked for."""
    assert cache_of(pictures, places / "all") == 0 and sorted(decoded) == ALL
    decoded.clear()
    assert cache_of(pictures, places / "five", "--num-images", "5", "--batch-size", "2") == 0
    assert sorted(decoded) == ALL[:5] and "holds 5 images" in capsys.readouterr().out
    for part in range(2):
        decoded.clear()
        assert cache_of(pictures, places / "parts", "--shard-size", "2", "--part", str(part), "--parts", "2") == 0
        assert sorted(decoded) == [ALL[i] for i in ((0, 1, 4, 5), (2, 3))[part]]
    decoded.clear()
    assert main([*STATS[:2], "--data", str(pictures), "--image-size", "64", "--num-images", "100"]) == 0
    assert sorted(decoded) == ALL


def test_broken_pictures_leave_their_shards_shorter(pictures, places, decoded, capsys, recwarn):
    """One of two in the first shard, both of the second; whoever reads on continues with the same cache."""
    for name in ("1.png", "2.png", "3.png"):
        (pictures / name).write_bytes(b"broken")
    for _ in range(2):
        assert cache_of(pictures, places / "cache", "--shard-size", "2") == 0
        assert "holds 3 images" in capsys.readouterr().out and sorted(decoded) == ALL
    cache, stream = TokenCache(places / "cache"), TokenCache(f"file://{places / 'cache'}", stream=True, window=1)
    cache.verify()
    vq, solid = load_tokenizer("scenes-vq"), torch.ones(1, 3, 64, 64)
    assert len(cache) == len(stream) == cache.facts()["images"] == 3
    for place, i in enumerate((0, 4, 5)):
        colour = torch.tensor([40.0 * i, 0.0, 255.0 - 40 * i]).view(1, 3, 1, 1) / 127.5 - 1
        assert cache.gather([place])[0].equal(vq.encode(solid * colour))
    for data in (cache, stream):
        seen = torch.cat([data.batch(step, 1)[0] for step in range(3)])
        assert sorted(map(tuple, seen.tolist())) == sorted(map(tuple, cache.gather(range(3))[0].tolist()))
    stream.close()


def test_too_few_good_pictures_are_known_when_the_last_is_wanted(pictures, places, capsys, recwarn):
    (pictures / "3.png").write_bytes(b"broken")
    assert cache_of(pictures, places / "cache", "--num-images", "6") == 2
    assert "picture 5 does not exist; there are 5 (" in capsys.readouterr().err
    short = ["--data", str(pictures), "--image-size", "64", "--num-images", "6", "--batch-size", "5"]
    assert main([*STATS[:2], *short]) == 0
    assert "on 5 images of " in capsys.readouterr().out


def test_a_model_of_measured_tokens_goes_with_its_statistics(pictures, places, capsys):
    """On another machine nobody has measured anything, and the tokens must be the same there."""
    assert main([*STATS[:2], "--data", str(pictures), "--image-size", "64"]) == 0
    assert main(["cache", str(places / "cache"), "--dataset", str(pictures), "--text-encoder", "scenes-t5",
                 "--image-size", "64", "--precision", "bf16"]) == 0
    assert main(["train", "--preset", "nano", "--steps", "1", "--batch-size", "2", "--warmup-steps", "1",
                 "--cache", str(places / "cache"), "--out", str(places / "run")]) == 0
    assert main(["export", str(places / "run"), str(places / "pipe"), "--tokenizer", "stabilityai/sd-vae-ft-ema"]) == 0
    measured = load_tokenizer("stabilityai/sd-vae-ft-ema")
    for path in (places / "user-cache" / "statistics").iterdir():
        path.unlink()
    pipe = FluidPipeline.from_pretrained(places / "pipe")
    assert pipe.tokenizer.latent_std.equal(measured.latent_std)
    assert not load_tokenizer("stabilityai/sd-vae-ft-ema").latent_std.equal(measured.latent_std)


def test_defaults_depend_on_whether_there_is_a_data_set():
    def completed(*line):
        args = build_parser().parse_args(["cache", "folder", *line])
        options.complete(args)
        return args.tokenizers, args.text_encoder, args.image_size, args.num_images
    assert completed() == (["scenes-vae", "scenes-vq"], "scenes-t5", 64, 320_000)
    assert completed("--dataset", "x") == (["stabilityai/sd-vae-ft-ema"], "google/flan-t5-base", 256, None)
    assert completed("--dataset", "x", "--num-images", "7", "--image-size", "128", "--text-encoder", "t",
                     "--tokenizers", "a", "b") == (["a", "b"], "t", 128, 7)


@pytest.mark.parametrize("line, sentence", [
    (["stats", "scenes-vq", "--num-images", "4"], "Only a continuous tokenizer has latents to measure, and this one"),
    (["stats", "nobody/nothing"], "The tokenizer 'nobody/nothing' cannot be loaded, because it is neither shipped"),
    ([*STATS[:2], "--num-images", "0"], "num_images must be a whole number at least 1, got 0"),
    ([*STATS, "--batch-size", "0"], "batch_size must be a whole number at least 1, got 0"),
    ([*STATS, "--device", "cuda:99"], "device must be one that torch can use on this machine, got 'cuda:99'"),
    ([*STATS, "--device", "toaster"], "device must be one that torch can use on this machine, got 'toaster'"),
    ([*STATS, "--data", "nobody/nothing"], "The data set 'nobody/nothing' cannot be loaded, because"),
    (["cache", "OUT", "--dataset", "PICTURES", "--streaming"], "a stream has no length: say how many with --num"),
    (["cache", "OUT", "--dataset", "PICTURES", "--num-images", "7"], "7 images were asked for, but there are 6"),
    (["cache", "OUT", "--dataset", "PICTURES", "--caption-column", "words"], "There is no column 'words'; the columns"),
    (["cache", "OUT", "--dataset", "PICTURES", "--dataset-split", "test"], "it has no split 'test', only 'train'"),
])
def test_mistakes_are_one_sentence(line, sentence, pictures, places, capsys):
    line = [str({"OUT": places / "out", "PICTURES": pictures}.get(part, part)) for part in line]
    assert main(line) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith(f"fluidlab {line[0]}: ") and sentence in said and not (places / "out").exists()


def test_the_shipped_ones_keep_the_scale_that_they_were_trained_with(places, capsys):
    assert main(["stats", "scenes-vae", "--num-images", "8"]) == 0
    assert "nothing kept: this tokenizer's scale was measured when it was trained" in capsys.readouterr().out
    assert not (places / "user-cache").exists()
