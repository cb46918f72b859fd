"""The command line, run in this process: a cache, a short training that is stopped and resumed, a picture, mistakes."""

import csv
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import variant
from PIL import Image

from fluidlab.cli import main
from fluidlab.data.token_cache import TokenCache
from fluidlab.evaluate.results import read_results
from fluidlab.evaluate.sheet import read_sheet
from fluidlab.evaluate.sweep import read_sweep
from fluidlab.model.files import load_model
from fluidlab.pipeline import FluidPipeline
from fluidlab.text.encoder import load_text_encoder
from fluidlab.tokenizer import load_tokenizer
from fluidlab.train.checkpoint import checkpoints
from fluidlab.train.trainer import Trainer

SHORT = ["--preset", "nano", "--steps", "4", "--batch-size", "16", "--save-every", "2", "--warmup-steps", "1"]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli") / "cache"
    assert main(["cache", str(folder), "--num-images", "64", "--batch-size", "32"]) == 0
    return folder


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    vae, text = load_tokenizer("scenes-vae"), load_text_encoder("scenes-t5")
    pipe = FluidPipeline(variant("random", "diffusion", text_dim=text.dim), vae, text)
    return pipe.save_pretrained(tmp_path_factory.mktemp("cli") / "model")


def losses(run):
    return {r["step"]: r["loss"] for r in map(json.loads, (run / "log.jsonl").read_text().splitlines())}


def test_the_cache_says_what_it_holds_and_is_kept_if_asked_again(cache, capsys):
    manifest = json.loads((cache / "manifest.json").read_text())
    assert manifest["num_images"] == 64 and set(manifest["tokenizers"]) == {"scenes-vae", "scenes-vq"}
    assert main(["cache", str(cache), "--num-images", "64"]) == 0
    assert "holds 64 images" in capsys.readouterr().out
    assert main(["cache", str(cache), "--num-images", "32"]) == 2
    assert "holds another cache (64 images" in capsys.readouterr().err


@pytest.mark.parametrize("order, head", [("random", "diffusion"), ("raster", "softmax")])
def test_a_short_training_prints_each_step_and_leaves_a_model(order, head, cache, tmp_path, capsys):
    command = ["train", "--order", order, "--head", head, "--cache", str(cache), "--out", str(tmp_path / "run"), *SHORT]
    assert main([*command, "--validation", str(cache)]) == 0
    lines = re.findall(r"^step (\d+) loss (\d+\.\d+) ", capsys.readouterr().out, flags=re.M)
    assert [int(n) for n, _ in lines] == [1, 2, 3, 4]
    assert [float(value) for _, value in lines] == pytest.approx(list(losses(tmp_path / "run").values()), abs=1e-4)
    config = load_model(tmp_path / "run" / "model").config
    assert (config.order, config.head, config.width) == (order, head, 64)


def test_a_stopped_training_resumes_to_the_same_losses(cache, tmp_path, capsys, monkeypatch):
    command = ["train", "--cache", str(cache), *SHORT]
    assert main([*command, "--out", str(tmp_path / "whole")]) == 0
    step = Trainer.step

    def pressed(trainer):
        if trainer.done == 3:
            raise KeyboardInterrupt
        return step(trainer)
    monkeypatch.setattr(Trainer, "step", pressed)
    assert main([*command, "--out", str(tmp_path / "run")]) == 130
    assert [p.name for p in checkpoints(tmp_path / "run")] == ["step-00000002", "step-00000003"]
    monkeypatch.undo()

    assert main(["export", str(tmp_path / "run"), str(tmp_path / "half"), "--tokenizer", "scenes-vae"]) == 0
    assert json.loads((tmp_path / "half" / "training.json").read_text())["steps"] == 3

    capsys.readouterr()
    assert main([*command, "--out", str(tmp_path / "run")]) == 2
    assert "already holds a run at step-00000003" in capsys.readouterr().err
    assert main([*command, "--out", str(tmp_path / "run"), "--resume"]) == 0
    assert losses(tmp_path / "run") == losses(tmp_path / "whole")


def test_a_run_becomes_a_pipeline_only_with_the_parts_it_was_trained_with(cache, tmp_path, capsys):
    run, out, results = tmp_path / "run", tmp_path / "pipe", tmp_path / "results.csv"
    assert main(["train", "--cache", str(cache), "--out", str(run), *SHORT]) == 0
    command = ["export", str(run), str(out), "--tokenizer", "scenes-vae", "--results", str(results)]
    assert main([*command, "--temperature", "11"]) == 2
    assert "temperature must be a number from 0 to 10, got 11.0" in capsys.readouterr().err and not out.exists()
    assert main([*command, "--guidance-scale", "2"]) == 0
    assert "random + diffusion, 64 images seen" in capsys.readouterr().out
    assert FluidPipeline.from_pretrained(out).config.defaults == {"guidance_scale": 2.0}
    drawn = FluidPipeline.from_pretrained(out)("a photo of a cat", seed=0, num_denoising_steps=2).images[0]
    assert drawn.size == (64, 64)
    facts = json.loads((out / "training.json").read_text())
    assert facts["fingerprints"] == TokenCache(cache, "scenes-vae").fingerprints()
    rows = results.read_text().splitlines()
    assert rows[0].startswith("order,head,preset,params,steps,seed,metric,value") and len(rows) == 5
    assert main(["export", str(run), str(tmp_path / "wrong"), "--tokenizer", "scenes-vq"]) == 2
    assert "was trained with another tokenizer than scenes-vq: fingerprint " in capsys.readouterr().err
    assert not (tmp_path / "wrong").exists()
    assert main(["export", str(tmp_path / "empty"), str(tmp_path / "wrong"), "--tokenizer", "scenes-vae"]) == 2
    assert "holds no complete checkpoint" in capsys.readouterr().err


def test_a_validation_cache_of_another_tokenizer_is_refused(cache, tmp_path, capsys):
    other = tmp_path / "other"
    shutil.copytree(cache, other)
    manifest = json.loads((other / "manifest.json").read_text())
    manifest["tokenizers"]["scenes-vae"]["fingerprint"] = "0" * 64
    (other / "manifest.json").write_text(json.dumps(manifest))
    command = ["train", "--cache", str(cache), "--validation", str(other), "--out", str(tmp_path / "run"), *SHORT]
    assert main(command) == 2
    assert "another tokenizer than the training cache: fingerprint 000000000000, not " in capsys.readouterr().err


def made_how(path):
    with Image.open(path) as picture:
        return json.loads(picture.text["fluidlab sample"])


def test_prompts_become_one_picture(model_folder, tmp_path, capsys):
    out = tmp_path / "cats.png"
    command = ["sample", "a photo of a cat", "a photo of two dogs", "--model", str(model_folder), "--out", str(out),
               "--num-denoising-steps", "3", "--num-inference-steps", "4", "--scale", "1", "--no-labels"]
    assert main([*command, "--num-images-per-prompt", "3"]) == 0
    width, height = Image.open(out).size
    assert "6 images" in capsys.readouterr().out and 3 * 64 <= width < 4 * 64 and 2 * 64 <= height < 3 * 64
    first = out.read_bytes()
    assert main([*command, "--num-images-per-prompt", "3"]) == 0 and out.read_bytes() == first
    assert main([*command, "--num-images-per-prompt", "3", "--seed", "1"]) == 0 and out.read_bytes() != first
    assert [path.name for path in tmp_path.iterdir()] == ["cats.png"]


def test_a_picture_remembers_how_it_was_made_and_can_be_made_again(model_folder, tmp_path, capsys):
    """Rows are models and prompts, columns are seeds; any picture of the sheet is one call of the pipeline."""
    other = FluidPipeline.from_pretrained(model_folder)
    other = FluidPipeline(**other.components, defaults={"temperature": 0.5}).save_pretrained(tmp_path / "calm")
    out, prompts = tmp_path / "sheet.png", ["a photo of a cat", "Fünf Äpfel"]
    assert main(["sample", "--seed", "5", "--seed", "9", *prompts, "--model", str(model_folder), "--model", str(other),
                 "--num-denoising-steps", "2", "--guidance-schedule", "linear", "--scale", "1", "--out", str(out),
                 "--no-labels"]) == 0
    said = capsys.readouterr()
    assert "8 images" in said.out
    assert "fluidlab sample: The text encoder was never trained on 'fünf', 'äpfel'" in said.err
    facts = made_how(out)
    assert facts["seeds"] == [5, 9] and facts["device"] == "cpu" and facts["dtype"] == "float32"
    assert [(Path(row["model"]).name, row["prompt"]) for row in facts["rows"]] == [
        (name, prompt) for name in (model_folder.name, "calm") for prompt in prompts]
    assert [row["temperature"] for row in facts["rows"]] == [1.0, 1.0, 0.5, 0.5]
    row = dict(facts["rows"][2])
    again = FluidPipeline.from_pretrained(row.pop("model"))(row.pop("prompt"), seed=facts["seeds"][1], **row).images[0]
    sheet = np.asarray(Image.open(out).convert("RGB")).astype(int)
    step = 64 + 6                                                               # a picture and the gap behind it
    assert abs(sheet[2 * step:2 * step + 64, step:step + 64] - np.asarray(again)).max() <= 1


def test_a_sheet_names_its_rows_and_columns_and_one_picture_stands_alone(model_folder, tmp_path):
    quick = ["--model", str(model_folder), "--num-denoising-steps", "2", "--scale", "1"]
    assert main(["sample", "a photo of a cat", *quick, "--out", str(tmp_path / "one.PNG")]) == 0
    assert Image.open(tmp_path / "one.PNG").size == (64, 64)
    assert main(["sample", "a photo of a cat", "", *quick, "--num-images-per-prompt", "2", "--dtype", "bfloat16",
                 "--out", str(tmp_path / "sheet.png")]) == 0
    width, height = Image.open(tmp_path / "sheet.png").size
    assert width > 2 * 64 + 6 + 50 and height > 2 * 64 + 6 and made_how(tmp_path / "sheet.png")["dtype"] == "bfloat16"


def test_a_drawing_that_fails_leaves_the_old_picture(model_folder, tmp_path, capsys, monkeypatch):
    out = tmp_path / "old.png"
    out.write_bytes(b"old")

    def fail(*args, **options):
        raise ValueError("the ink is empty.")
    monkeypatch.setattr(FluidPipeline, "__call__", fail)
    assert main(["sample", "a photo of a cat", "--model", str(model_folder), "--out", str(out)]) == 2
    assert "fluidlab sample: the ink is empty." in capsys.readouterr().err
    assert out.read_bytes() == b"old" and [path.name for path in tmp_path.iterdir()] == ["old.png"]


def test_a_folder_that_cannot_be_written_to_is_told_before_anything_is_drawn(tmp_path, capsys, monkeypatch):
    def denied(path, *args, **options):
        raise PermissionError(13, "Permission denied", str(path))
    monkeypatch.setattr(Path, "touch", denied)
    monkeypatch.setattr(FluidPipeline, "from_pretrained", None)
    assert main(["sample", "a photo of a cat", "--out", str(tmp_path / "a.png")]) == 2
    assert "Permission denied" in capsys.readouterr().err


SAMPLE = ["sample", "a photo of a cat", "--model", "MODEL", "--out", "OUT/a.png"]
CACHE = ["cache", "OUT/new", "--num-images", "8"]
TRAIN = ["train", "--cache", "CACHE", "--out", "OUT/run", *SHORT]


@pytest.mark.parametrize("command, sentence", [
    ([*SAMPLE, "--guidance-scale", "-1"], "guidance_scale must be a number from 0 to 100, got -1.0"),
    ([*SAMPLE, "--guidance-schedule", "cubic"], "guidance_schedule must be one of constant, linear, got 'cubic'"),
    ([*SAMPLE, "--temperature", "nan"], "temperature must be a number from 0 to 10, got nan"),
    ([*SAMPLE, "--num-inference-steps", "17"], "from 1 to the number of tokens 16, got 17"),
    ([*SAMPLE, "--num-denoising-steps", "0"], "num_denoising_steps must be a whole number from 1 to 1000, got 0"),
    ([*SAMPLE, "--num-images-per-prompt", "0"], "num_images_per_prompt must be a whole number from 1 to 1024, got 0"),
    ([*SAMPLE, "--scale", "0"], "scale must be a whole number from 1 to 32, got 0"),
    ([*SAMPLE, "--threads", "-1"], "threads must be a whole number from 0 to 4096, got -1"),
    ([*SAMPLE, "--model", "no-such-model"],
     "The pipeline 'no-such-model' cannot be loaded, because it is neither shipped (random-diffusion-mini, "),
    ([*SAMPLE, "--num-images-per-prompt", "3", "--seed", "1", "--seed", "2"], "must be the number of seeds, 2, got 3"),
    ([*SAMPLE, "--seed", "-1"], "seed must be a whole number from 0 to"),
    ([*SAMPLE, "--device", "abacus"], "device must be one that torch can use on this machine, got 'abacus'"),
    ([*SAMPLE, "--device", "meta"], "got 'meta': its tensors have no numbers"),
    ([*SAMPLE, "--out", "OUT/missing/a.png"], "missing/a.png, which is in a folder that does not exist"),
    ([*SAMPLE, "--out", "OUT/a.picture"], "out must end in .png, which can hold how it was made, got"),
    ([*SAMPLE, "--out", "OUT"], "out must end in .png"),
    ([*CACHE, "--image-size", "65"], "image_size is 65; allowed are 64, 80"),
    ([*CACHE, "--num-images", "0"], "size is 0; allowed are whole numbers from 1"),
    ([*CACHE, "--batch-size", "0"], "batch_size must be a whole number at least 1, got 0"),
    ([*CACHE, "--tokenizers", "scenes-jpeg"], "The tokenizer 'scenes-jpeg' cannot be loaded"),
    ([*TRAIN, "--order", "spiral"], "order must be one of raster, random, got 'spiral'"),
    ([*TRAIN, "--head", "gauss"], "head must be one of softmax, diffusion, flow, got 'gauss'"),
    ([*TRAIN, "--preset", "huge"], "size must be one of femto, pico, nano, micro, mini"),
    ([*TRAIN, "--steps", "0"], "steps must be a whole number at least 1, got 0"),
    ([*TRAIN, "--lr", "0"], "lr must be a positive finite number, got 0.0"),
    ([*TRAIN, "--precision", "fp16"], "precision must be one of float32, bf16, got 'fp16'"),
    ([*TRAIN, "--tokenizer", "other"], "this cache holds tokens of scenes-vae, scenes-vq, got 'other'"),
    ([*TRAIN, "--tokenizer", "scenes-vq"], "head 'diffusion' needs continuous tokens, those of scenes-vq are discrete"),
    ([*TRAIN, "--out", "CACHE/manifest.json"], "File exists"),
    ([*TRAIN, "--cache", "OUT/none"], "holds no token cache; `fluidlab cache` makes one"),
    ([*TRAIN, "--validation", "OUT/none"], "holds no token cache"),
])
def test_a_mistake_is_one_sentence_and_exit_code_2(command, sentence, cache, model_folder, tmp_path, capsys):
    places = {"MODEL": str(model_folder), "CACHE": str(cache), "OUT": str(tmp_path)}
    for name, place in places.items():
        command = [re.sub(rf"\b{name}\b", lambda _, place=place: place, word) for word in command]
    assert main(command) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert said[-1].startswith(f"fluidlab {command[0]}: ") and sentence in said[-1]
    assert not [line for line in said if "Traceback" in line]
    assert not (tmp_path / "run").exists() and not (tmp_path / "new").exists()


@pytest.mark.parametrize("command", [["draw"], [], ["train"], ["sample"], ["sample", "a cat", "--seed", "one"]])
def test_a_line_that_cannot_be_read_is_exit_code_2_with_the_usage(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main(command)
    assert stop.value.code == 2 and capsys.readouterr().err.startswith("usage: fluidlab")


def test_python_m_fluidlab_is_fluidlab():
    """The help needs no model: it lists each command with its sentence."""
    result = subprocess.run([sys.executable, "-m", "fluidlab", "--help"], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0 and result.stderr == ""
    for name in ("doctor", "fit", "cache", "train", "sample"):
        assert re.search(rf"^ +{name} +[A-Z]", result.stdout, flags=re.M), name


@pytest.mark.parametrize("name", ["doctor", "fit", "cache", "train", "sample"])
def test_each_command_has_a_help_with_its_defaults(name, capsys):
    with pytest.raises(SystemExit) as stop:
        main([name, "--help"])
    said = capsys.readouterr().out
    assert stop.value.code == 0 and f"usage: fluidlab {name}" in said and len(said.splitlines()) > 4


def test_the_judge_and_a_pipeline_are_evaluated(cache, tmp_path, capsys):
    """Everything pico: the numbers mean nothing, the columns and files do."""
    judge, run, pipe, results = (tmp_path / name for name in ("judge", "run", "pipe", "results.csv"))
    assert main(["fit", "detector", "--steps", "2", "--batch-size", "2", "--out", str(judge)]) == 0
    assert main(["evaluate", "judge", str(judge), "--per-skill", "2"]) == 0
    assert "| through scenes-vq | another's |" in capsys.readouterr().out
    assert main(["train", "--cache", str(cache), "--out", str(run), *SHORT]) == 0
    assert main(["export", str(run), str(pipe), "--tokenizer", "scenes-vae"]) == 0
    command = ["evaluate", "images", str(pipe), "--detector", str(judge), "--per-skill", "2", "--images-per-prompt",
               "1", "--frechet-images", "4", "--reference-images", "50", "--num-denoising-steps", "2", "--results",
               str(results)]
    assert main(command) == 2
    assert "needs --out" in capsys.readouterr().err
    assert main([*command, "--out", str(tmp_path / "eval")]) == 0
    assert "sceneval_overall" in capsys.readouterr().out
    metrics = {row.split(",")[6] for row in results.read_text().splitlines()[1:]}
    assert {"frechet", "sceneval_overall", "sceneval_counting_high"} <= metrics
    with (tmp_path / "eval" / "pipe" / "scores.csv").open(newline="") as f:
        table = {row["metric"]: row for row in csv.DictReader(f)}
    assert 0 <= float(table["judge_mismatched"]["value"]) <= 1 and table["judge_ceiling"]["low"]
    overall = table["sceneval_overall"]
    assert float(overall["low"]) <= float(overall["value"]) <= float(overall["high"]) and not table["frechet"]["low"]
    with Image.open(tmp_path / "eval" / "pipe" / "scores.png") as picture:
        assert picture.width > 500

    assert main(["evaluate", "loss", str(pipe), "--num-images", "4", "--results", str(results)]) == 0
    assert "squared error |  | 0: " in capsys.readouterr().out
    assert {"loss", "loss_known_0", "loss_known_15"} <= {row["metric"] for row in read_results(results)}

    command = ["evaluate", "sweep", str(pipe), "--detector", str(judge), "--per-skill", "2", "--frechet-images", "4",
               "--reference-images", "50", "--guidance-scales", "1", "3", "--temperatures", "0.5",
               "--denoising-steps", "2", "--results"]
    assert main([*command, str(tmp_path / "sweep.csv")]) == 2
    assert "evaluate sweep needs --out" in capsys.readouterr().err
    assert main([*command, str(tmp_path / "sweep.csv"), "--out", str(tmp_path / "sweep")]) == 0
    assert "best frechet: {'guidance_scale': " in capsys.readouterr().out
    assert [row["guidance_scale"] for row in read_sweep(tmp_path / "sweep.csv", model="pipe")] == [1.0, 3.0]


def test_tokenizers_are_measured_and_their_distance_is_the_floor(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("fluidlab.cli.evaluate.USAGE_SCENES", 256)
    results = tmp_path / "results.csv"
    assert main(["evaluate", "tokenizers", "--num-images", "4", "--frechet-images", "400", "--reference-images",
                 "400", "--results", str(results)]) == 0
    said = capsys.readouterr().out
    assert "| held-out scenes, 64 px | scenes-vae |" in said and "scenes-vq: Frechet distance" in said
    floors = {row["preset"]: float(row["value"]) for row in read_results(results, metric="reconstruction_frechet")}
    assert set(floors) == {"true scenes", "scenes-vae", "scenes-vq"} and min(floors.values()) > 0
    for name in ("scenes-vae", "scenes-vq"):    # the bias of so few images is far more than a tokenizer loses
        assert floors[name] == pytest.approx(floors["true scenes"], rel=0.3)


def test_a_study_is_planned_trained_continued_and_fitted(cache, tmp_path, capsys):
    out, results = tmp_path / "study", tmp_path / "results.csv"
    sizes = ["--sizes", "pico", "nano", "micro"]
    command = ["scale", "--cache", str(cache), "--validation", str(cache), "--steps", "2", "--batch-size", "8",
               "--orders", "random", "--heads", "diffusion", "--out", str(out), "--results", str(results)]
    assert main([*command, *sizes, "--plan"]) == 0
    planned = capsys.readouterr().out
    assert "| random-diffusion-pico-0 | 158,944 | 76,416 |" in planned and "3 cells, 16 images each" in planned
    assert not out.exists()
    assert main([*command, "--sizes", "pico"]) == 0
    first = losses(out / "random-diffusion-pico-0")
    assert main([*command, *sizes]) == 0
    assert "random-diffusion-pico-0 is trained" in capsys.readouterr().out
    assert losses(out / "random-diffusion-pico-0") == first
    assert main(["scale", "--fit", "--results", str(results), "--batch-size", "8"]) == 0
    assert "| random-diffusion | flops | no |" in capsys.readouterr().out
    rates = ["--sizes", "pico", "--sweep-lr", "1e-3", "2e-3", "--results", str(tmp_path / "rates.csv")]
    assert main([*command, *rates]) == 0
    assert {row["metric"] for row in read_results(tmp_path / "rates.csv")} == {"loss_at_lr_0.001", "loss_at_lr_0.002"}
    assert (out / "random-diffusion-pico-0-lr0.001" / "model").is_dir()
    moments = [*command, *sizes[:2], "--out", str(tmp_path / "moments"), "--validate-every", "1", "--moments",
               "--results", str(tmp_path / "scored.csv")]
    assert main(moments) == 0
    assert main([*moments, "--score", "--per-skill", "2", "--frechet-images", "3", "--reference-images", "50"]) == 0
    for metric in ("study_sceneval_overall", "study_frechet"):
        scored = [row["steps"] for row in read_results(tmp_path / "scored.csv", metric=metric)]
        assert scored == ["1", "2"], "one score for each moment that was kept"
    assert main([*moments, "--draw", str(tmp_path / "sheet.png"), "--prompts", "a cat", "two dogs"]) == 0
    pixels, facts = read_sheet(tmp_path / "sheet.png")
    assert pixels.shape == (2, 1, 3, 64, 64) and facts["columns"] == ["pico"]
    assert facts["rows"][1] == {"variant": "random-diffusion", "prompt": "two dogs"}
    assert main([*command, "--sizes", "mini", "--draw", str(tmp_path / "sheet.png")]) == 2
    assert "1 of 1 cells are not trained yet, random-diffusion-mini-0 first" in capsys.readouterr().err
    assert main([*command, "--sizes", "pico", "--steps", "3"]) == 2
    assert "was started with steps 2, now it is 3" in capsys.readouterr().err
    assert main([*command, "--sizes", "pico", "--sweep-lr", "0", "--results", str(tmp_path / "zero.csv")]) == 2
    assert "lr must be a positive finite number, got 0.0" in capsys.readouterr().err
    assert main(["scale", "--score", "--cache", str(cache)]) == 2
    assert "scale needs --out" in capsys.readouterr().err
    manifest = json.loads((cache / "manifest.json").read_text())
    (cache / "manifest.json").write_text(json.dumps({**manifest, "source": "scenes of another seed"}))
    try:
        assert main([*command, *sizes[:2]]) == 2
        assert "now it is scenes of another seed: name a new folder" in capsys.readouterr().err
    finally:
        (cache / "manifest.json").write_text(json.dumps(manifest))
    assert main(["scale", "--sizes", "pico", "--out", str(out), "--cache", str(cache)]) == 2
    assert "needs --validation or --validation-discrete, got neither" in capsys.readouterr().err
    assert main(["scale", "--sizes", "pico", "--out", str(out)]) == 2
    assert "needs --cache or --cache-discrete, got neither" in capsys.readouterr().err
