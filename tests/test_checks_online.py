"""`fluidlab verify-online` without a network: every step on a small part in a folder, and what a failing one says."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import huggingface_hub
import pytest
import torch
from helpers import small_inception, small_judge
from huggingface_hub import constants
from PIL import Image
from test_data_captions import parquet, shards
from test_text_encoder import web_t5
from test_tokenizer_diffusers import kl, vq

from fluidlab.checks import online
from fluidlab.checks.online import REPORT, STEPS, Outcome, choose_steps, run_steps
from fluidlab.cli import main
from fluidlab.hub import reach

NAMES = [step.name for step in STEPS]


def text_folder(folder):
    web_t5(folder)
    return folder


def saved(model):
    return lambda folder: (model().save_pretrained(folder), folder)[1]


def sixteen_channels():
    return kl(latent_channels=16, shift_factor=0.1, use_quant_conv=False, use_post_quant_conv=False)


def coco(folder):
    """Three pictures as MS-COCO is shipped."""
    (folder / "annotations").mkdir(parents=True)
    (folder / "val2014").mkdir()
    names = {n: f"COCO_val2014_{n:012d}.jpg" for n in (7, 8, 9)}
    for n, name in names.items():
        Image.new("RGB", (40, 30), (25 * n, 0, 0)).save(folder / "val2014" / name)
    (folder / "annotations" / "captions_val2014.json").write_text(json.dumps({
        "images": [{"id": n, "file_name": name} for n, name in names.items()],
        "annotations": [{"id": n, "image_id": n, "caption": f"picture {n}"} for n in names]}))
    return folder


def judge(folder):
    small_judge(folder)
    return f"{folder / 'detector'} {folder / 'clip'}"


# step -> what makes a small part in a folder and returns its address, and what must be found of that
LOCAL = {
    "vae": (saved(kl), {"token_dim": 16, "decibels": 1}),
    "vae-16": (saved(sixteen_channels), {"token_dim": 64, "decibels": 1}),
    "vq": (saved(vq), {"codebook_size": 24, "decibels": 1}),
    "t5-small": (text_folder, {"dim": 32}),
    "flan-t5": (text_folder, {"dim": 32}),
    "t5-xxl": (text_folder, {"dim": 32, "dtype": torch.bfloat16}),
    "captions": (parquet, {}),
    "webdataset": (shards, {}),
    "coco": (coco, {"rows": 3}),
    "inception": (lambda folder: "torch-fidelity", {}),
    "geneval": (judge, {"finds": "cat"}),
    "push": (str, {}),
    "token-cache": (lambda folder: f"file://{folder}", {}),
}


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    """Nothing is kept outside the test's folder, and what is sent to the hub lands in folders."""
    def create_repo(api, repo_id, **options):
        assert options["private"] is True
        return huggingface_hub.RepoUrl("https://huggingface.co/ada/x")

    def upload_folder(api, *, folder_path, repo_type, **options):
        shutil.copytree(folder_path, tmp_path / "part", dirs_exist_ok=True)
        return "https://huggingface.co/commit"
    monkeypatch.setenv("FLUIDLAB_CACHE", str(tmp_path / "user-cache"))
    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", create_repo)
    monkeypatch.setattr(huggingface_hub.HfApi, "upload_folder", upload_folder)
    monkeypatch.setattr(huggingface_hub.HfApi, "file_exists", lambda api, repo_id, path, **_: False)
    small_inception(monkeypatch)
    weights = {"layer.weight": torch.rand(2048, 3), "layer.bias": torch.zeros(2048)}
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", lambda url, **_: weights)


def here(step, folder):
    """A step with its address replaced by that of a small part."""
    make, expects = LOCAL[step.name]
    return replace(step, id=str(make(folder)), expects=expects)


def test_the_list_of_steps():
    assert len(set(NAMES)) == len(NAMES) and set(LOCAL) == set(NAMES)
    for step in STEPS:
        assert step.megabytes > 0 and step.what and step.id, step.name
    assert [step.name for step in STEPS if step.asked_for] == ["t5-xxl"]
    assert [step.name for step in STEPS if online.MINE in step.id] == ["push", "token-cache"]


@pytest.mark.parametrize("step", STEPS, ids=NAMES)
def test_every_step_passes_on_a_small_part(step, tmp_path):
    [outcome] = run_steps([here(step, tmp_path / "part")], tmp_path / "report")
    assert outcome.passed, outcome.found
    assert outcome.seconds > 0 and json.loads((tmp_path / "report" / REPORT).read_text())[step.name]["passed"] is True


WRONG = {                                             # what must be found, and is not -> the sentence
    "vae": ({"token_dim": 64, "decibels": 1}, "the shape of the tokens is (3, 256, 16), but must be (3, 256, 64)."),
    "vae-16": ({"token_dim": 64, "decibels": 60}, " dB, expected were at least 60."),
    "vq": ({"codebook_size": 8192, "decibels": 1}, "the number of codes is 24, but must be 8192."),
    "t5-small": ({"dim": 512}, "the width of the features is 32, but must be 512."),
    "coco": ({"rows": 30_000}, "the number of pairs is 3, but must be 30000."),
    "geneval": ({"finds": "dog"}, "no dog was found in the photograph chelsea, but ['cat'"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_not_as_expected_fails(name, tmp_path):
    expects, sentence = WRONG[name]
    [step] = [step for step in STEPS if step.name == name]
    [outcome] = run_steps([replace(here(step, tmp_path / "part"), expects=expects)], tmp_path)
    assert not outcome.passed and sentence in outcome.found


def test_another_way_to_scale_or_pack_would_be_noticed(tmp_path, monkeypatch):
    from fluidlab.tokenizer import pretrained
    step = here(STEPS[0], tmp_path / "part")
    monkeypatch.setattr(pretrained, "pack", lambda latents: latents.flatten(2).mT.reshape(len(latents), 256, 16))
    [outcome] = run_steps([step], tmp_path)
    assert "the tokens differ from the library's own by" in outcome.found


def passes(step, folder):
    return f"{step.id} is there"


def fails(step, folder):
    raise ValueError(f"{step.id} is\nnot there.")


def breaks(step, folder):
    raise ZeroDivisionError("division by zero")


@pytest.fixture
def three(monkeypatch):
    """Steps a, b, c; the second fails and the third breaks."""
    steps = tuple(online.Step(name=name, what=f"part {name}", id=f"ada/{name}", megabytes=500, check=check)
                  for name, check in (("a", passes), ("b", fails), ("c", breaks)))
    monkeypatch.setattr(online, "STEPS", steps)
    return steps


def test_a_step_that_fails_ends_no_other_and_the_exit_status_tells(three, tmp_path, capsys):
    assert main(["verify-online", "--folder", str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert f"3 steps, about 1.5 GB where nothing of it is here yet; report in {tmp_path / REPORT}\n" in out
    assert "passed a (0.0 s): ada/a is there\n" in out and "FAILED b (0.0 s): ada/b is not there.\n" in out
    assert "FAILED c (0.0 s): ZeroDivisionError: division by zero\n" in out
    assert "| c | FAILED | 0.0 s | part c |\n1 of 3 steps passed\n" in out
    assert main(["verify-online", "--folder", str(tmp_path), "--only", "a"]) == 0
    assert main(["verify-online", "--folder", str(tmp_path), "--skip", "b", "c"]) == 0


def test_what_passed_is_not_tried_again(three, tmp_path, monkeypatch, capsys):
    tried = []

    def notes(step, folder):
        tried.append(step.name)
        return "well"
    one, two, _ = (replace(step, check=notes) for step in three)
    first = list(run_steps([one, three[1]], tmp_path))
    again = list(run_steps([one, two], tmp_path))
    assert tried == ["a", "b"] and [outcome.passed for outcome in (*first, *again)] == [True, False, True, True]
    assert again[0] == Outcome(one, True, "well", None)
    assert list(run_steps([replace(one, id="ada/other")], tmp_path))[0].seconds is not None      # another address
    monkeypatch.setattr(online, "libraries", lambda: {"torch": "99"})                            # another library
    list(run_steps([two], tmp_path))
    assert tried == ["a", "b", "a", "b"]


def test_a_stop_leaves_the_report_of_what_came_before(three, tmp_path):
    def stop(step, folder):
        raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt):
        list(run_steps([three[0], replace(three[1], check=stop)], tmp_path))
    assert list(json.loads((tmp_path / REPORT).read_text())) == ["a"] and not list(tmp_path.glob("*.part"))


def test_steps_are_chosen_by_name():
    def names(*options, **more):
        return [step.name for step in choose_steps(STEPS, *options, **more)]
    plain = [name for name in NAMES if name not in ("t5-xxl", "push", "token-cache")]
    assert names() == plain and names(push_to="ada/x") == [*plain, "push", "token-cache"]
    assert names(["t5-xxl", "vae"]) == ["vae", "t5-xxl"] and names(["vq", "vae"], ["vq"]) == ["vae"]
    pushed = choose_steps(STEPS, ["push", "token-cache"], push_to="ada/x")
    assert [step.id for step in pushed] == ["ada/x", "hf://datasets/ada/x-tokens"]


@pytest.mark.parametrize("line, sentence", [
    (["--only", "gan"], "there is no step 'gan'; allowed are vae, vae-16, vq"),
    (["--skip", "gan"], "there is no step 'gan'"),
    (["--only", "push"], "step push sends something: say where with --push-to USER/NAME."),
    (["--push-to", "fluid"], "--push-to takes USER/NAME, got 'fluid'."),
])
def test_mistakes_are_one_sentence(line, sentence, tmp_path, capsys):
    assert main(["verify-online", "--folder", str(tmp_path / "out"), *line]) == 2
    assert sentence in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_the_list_names_address_and_size(capsys):
    assert main(["verify-online", "--list"]) == 0
    out = capsys.readouterr().out
    assert "| vae | stabilityai/sd-vae-ft-ema | 335 |" in out and len(out.splitlines()) == len(STEPS) + 2
    assert "in bfloat16 (only where named with --only) |" in out


def test_without_a_network_every_step_ends_with_the_sentence_of_the_hub(tmp_path, monkeypatch):
    """Nothing of these is simulated: huggingface_hub refuses to go online, and so does torch's loader of addresses."""
    monkeypatch.undo()
    small_inception(monkeypatch)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "torch"))
    steps = choose_steps(STEPS, NAMES, push_to="ada/fluid")
    for outcome in run_steps(steps, tmp_path):
        assert not outcome.passed
        said = "cannot be loaded, because the server at https://weights.invalid cannot be reached" if (
            outcome.step.name == "inception") else ", because HF_HUB_OFFLINE forbids to go online: unset HF_HUB_OFFLINE"
        assert said in outcome.found, outcome.step.name


def test_a_folder_has_no_commit(tmp_path):
    assert reach(str(Path(tmp_path))) is None
