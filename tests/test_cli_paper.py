"""`fluidlab evaluate fid | geneval` on a nano pipeline: files, numbers, going on, mistakes named early."""

import json
import shutil
import sys

import pytest
import torch
from helpers import small_judge, variant
from PIL import Image

from fluidlab.cli import main
from fluidlab.data.photos import load_photo
from fluidlab.evaluate.frechet import frechet_distance
from fluidlab.evaluate.results import read_results
from fluidlab.pipeline import FluidPipeline
from fluidlab.text.encoder import load_text_encoder
from fluidlab.tokenizer import load_tokenizer

QUICK = ["--num-denoising-steps", "2", "--num-inference-steps", "2"]


class Quarters:
    """In Inception's place: the mean colours of four quarters of an image."""

    fingerprint = "quarters"

    def __call__(self, images):
        return torch.nn.functional.adaptive_avg_pool2d(images.float(), 2).flatten(1)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A pipeline that was never trained, but says it was, for --results."""
    folder, text = tmp_path_factory.mktemp("paper") / "nano", load_text_encoder("scenes-t5")
    FluidPipeline(variant("random", "diffusion", text_dim=text.dim), load_tokenizer("scenes-vae"),
                  text).save_pretrained(folder)
    (folder / "training.json").write_text(json.dumps({"preset": "nano", "steps": 1, "train": {"seed": 0, "steps": 1}}))
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Ten crops of photographs with captions, some larger than others, as an image folder."""
    folder, lines = tmp_path_factory.mktemp("photos"), []
    for i, name in enumerate(["chelsea", "coffee", "rocket", "astronaut", "camera"] * 2):
        pixels = load_photo(name, 80, crop=None)[:, :64 + i, :72]
        Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(folder / f"{i}.png")
        lines.append(json.dumps({"file_name": f"{i}.png", "caption": f"a photo of a {'cat' if i % 2 else 'dog'}"}))
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    return folder


@pytest.fixture
def inception(monkeypatch):
    looked = []

    class Counting(Quarters):
        def __call__(self, images):
            looked.append(len(images))
            return super().__call__(images)
    monkeypatch.setattr("fluidlab.cli.fid.open_extractor", lambda args: Counting())
    return looked


def fid_of(folder):
    return json.loads((folder / "fid.json").read_text())["fid"]


def test_fid_of_a_model_is_measured_kept_and_not_measured_twice(model, photos, inception, tmp_path, capsys):
    out, results = tmp_path / "out", tmp_path / "results.csv"
    command = ["evaluate", "fid", str(model), "--reference", str(photos), "--num-images", "8", "--batch-size", "5",
               "--out", str(out), *QUICK]
    assert main([*command, "--results", str(results)]) == 0
    said = capsys.readouterr().out
    assert "nano: FID " in said and "of 8 images against 8, guidance_scale 3.0, temperature 1.0" in said
    assert "make it too large" in said and inception == [5, 3, 5, 3]                       # photographs, then drawings
    [row] = read_results(results, metric="fid")
    assert float(row["value"]) == pytest.approx(fid_of(out / "nano"), abs=1e-5) and fid_of(out / "nano") > 0
    kept = json.loads((out / "nano" / "fid.json").read_text())
    assert (kept["num_images"], kept["image_size"], kept["guidance_scale"]) == (8, 64, 3.0)
    assert main(command) == 0 and len(inception) == 4

    [reference] = (out / "statistics").glob("*.safetensors")                               # instead of the photographs
    command[command.index("--reference") + 1] = str(reference)
    assert main([*command]) == 2
    assert "know no captions to draw: give --captions" in capsys.readouterr().err
    before = fid_of(out / "nano")
    assert main([*command, "--captions", str(photos / "metadata.jsonl")]) == 0
    assert len(inception) == 4 and fid_of(out / "nano") == before
    assert main([*command, "--captions", str(photos / "metadata.jsonl"), "--temperature", "0.5"]) == 2
    assert "another temperature (1.0, now 0.5)" in capsys.readouterr().err


def test_the_number_is_the_distance_between_what_is_drawn_and_the_pairs(model, photos, inception, tmp_path):
    from fluidlab.data.pairs import choose_pairs, read_captions
    from fluidlab.data.photos import image_to_tensor
    from fluidlab.evaluate.moments import to_bytes
    command = ["evaluate", "fid", str(model), "--reference", str(photos), "--num-images", "6", "--seed", "2", "--out"]
    assert main([*command, str(tmp_path), *QUICK]) == 0
    chosen = choose_pairs(read_captions(photos / "metadata.jsonl"), 6)
    true = torch.stack([image_to_tensor(photos / name, 64) for name, _ in chosen])
    drawn = FluidPipeline.from_pretrained(model)([text for _, text in chosen], num_denoising_steps=2,
                                                 seed=[2 * 1_000_003 + i for i in range(6)], num_inference_steps=2)
    look = Quarters()
    assert fid_of(tmp_path / "nano") == pytest.approx(frechet_distance(look(to_bytes(drawn.pixels)), look(true)))
    whole = [*command, str(tmp_path), *QUICK, "--whole-reference"]
    assert main(whole) == 0 and json.loads((tmp_path / "nano" / "fid.json").read_text())["reference_images"] == 10


def test_fid_of_a_folder_with_itself_is_nothing(photos, inception, tmp_path, capsys):
    command = ["evaluate", "fid", "--images", str(photos), "--reference", str(photos), "--image-size", "32"]
    assert main([*command, "--out", str(tmp_path)]) == 0
    assert "FID 0.0000 of 10 images against 10" in capsys.readouterr().out and inception == [10]


@pytest.mark.parametrize(("options", "said"), [
    ([], "evaluate fid needs --reference"),
    (["--reference", "PHOTOS"], "evaluate fid needs --out"),
    (["--reference", "PHOTOS", "--out", "OUT"], "num_images is 30000, but there are only 10 pairs"),
    (["--reference", "OUT", "--out", "OUT"], "no captions file "),
    (["--reference", "OUT", "--captions", "PHOTOS/metadata.jsonl", "--num-images", "4", "--out", "OUT"],
     "lacks 4 of the 4 pictures"),
    (["--reference", "PHOTOS", "--out", "OUT", "--num-images", "4", "--results", "OUT/r.csv"], "no training.json"),
    (["--reference", "PHOTOS", "--out", "OUT", "--num-images", "4", "--batch-size", "0"], "batch_size must be a whole"),
])
def test_mistakes_about_fid_are_named_first(options, said, model, photos, inception, tmp_path, capsys):
    shutil.copytree(model, tmp_path / "plain")
    (tmp_path / "plain" / "training.json").unlink()
    filled = [o.replace("PHOTOS", str(photos)).replace("OUT", str(tmp_path / "out")) for o in options]
    assert main(["evaluate", "fid", str(tmp_path / "plain"), *filled]) == 2
    assert said in capsys.readouterr().err and not (tmp_path / "out" / "plain" / "drawn.safetensors").exists()


def test_without_the_extra_fid_says_what_to_install(model, photos, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    assert main(["evaluate", "fid", str(model), "--reference", str(photos), "--out", str(tmp_path)]) == 2
    assert "FID needs torch-fidelity" in capsys.readouterr().err
    assert main(["evaluate", "geneval", "--images", str(photos), "--device", "abacus"]) == 2
    assert "device 'abacus' cannot be used" in capsys.readouterr().err


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    folder = small_judge(tmp_path_factory.mktemp("judge"))
    return ["--object-detector", str(folder / "detector"), "--clip", str(folder / "clip"), "--device", "cpu"]


@pytest.fixture
def prompts(tmp_path):
    """One prompt without and one with a colour."""
    path, plain = tmp_path / "prompts.jsonl", {"tag": "single_object", "include": [{"class": "dog", "count": 1}],
                                               "prompt": "a photo of a dog"}
    red = {"tag": "colors", "include": [{"class": "cat", "count": 1, "color": "red"}], "prompt": "a photo of a red cat"}
    path.write_text("\n".join(map(json.dumps, [plain, red])))
    return ["--prompts", str(path), "--images-per-prompt", "1"]


def test_geneval_draws_judges_sums_up_and_goes_on(model, judge, prompts, tmp_path, capsys):
    out, results = tmp_path / "out", tmp_path / "results.csv"
    command = ["evaluate", "geneval", str(model), "--out", str(out), *QUICK, *prompts]
    assert main([*command, "--draw-only"]) == 0
    assert "2 prompts, 1 pictures each" in capsys.readouterr().out and not (out / "nano" / "results.jsonl").exists()
    pictures = sorted((out / "nano").glob("*/samples/*.png"))
    assert [p.relative_to(out / "nano").as_posix() for p in pictures] == [f"0000{i}/samples/0000.png" for i in (0, 1)]
    assert Image.open(pictures[0]).size == (64, 64)
    drawn = [p.stat().st_mtime_ns for p in pictures]

    assert main([*command, *judge, "--results", str(results)]) == 0
    said = capsys.readouterr().out
    assert "nano: GenEval " in said and "| single_object | 0.0000 |" in said and "| colors |" in said
    records = [json.loads(line) for line in (out / "nano" / "results.jsonl").read_text().splitlines()]
    assert [r["tag"] for r in records] == ["single_object", "colors"] and records[0]["reason"] == "0 of 1 dog"
    assert [p.stat().st_mtime_ns for p in pictures] == drawn
    [row] = read_results(results, metric="geneval_overall")
    assert float(row["value"]) == sum(r["correct"] for r in records) / 2

    score_file = out / "nano" / "results.jsonl"                                            # only summed up
    assert main(["evaluate", "geneval", str(score_file)]) == 0
    assert "| single_object | 0.0000 |" in capsys.readouterr().out
    assert main(["evaluate", "geneval", "--images", str(out / "nano"), "--out", str(tmp_path / "again"), *judge]) == 0
    assert (tmp_path / "again" / "results.jsonl").read_text() == score_file.read_text()
    assert main([*command, *judge, "--precision", "bf16"]) == 2
    assert "another precision (float32, now bf16)" in capsys.readouterr().err


@pytest.mark.parametrize(("options", "said"), [
    (["MODEL"], "evaluate geneval needs --out"),
    (["MODEL", "--images", "OUT", "--out", "OUT"], "either a model to draw with or --images to judge"),
    (["MODEL", "--out", "OUT", "--object-detector", "nobody/nothing"], "The detector 'nobody/nothing' cannot"),
    (["MODEL", "--out", "OUT", "--prompts", "OUT/gone.jsonl"], "there is no file of prompts"),
    (["OUT/gone.jsonl"], "there is no score file"),
    (["MODEL", "--out", "OUT", "--draw-only", "--images-per-prompt", "0"], "images_per_prompt must be a whole number"),
])
def test_mistakes_about_geneval_are_named_first(options, said, model, tmp_path, capsys):
    filled = [o.replace("MODEL", str(model)).replace("OUT", str(tmp_path / "out")) for o in options]
    assert main(["evaluate", "geneval", *filled]) == 2
    assert said in capsys.readouterr().err and not list(tmp_path.rglob("*.png"))
