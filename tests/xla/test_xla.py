"""The XLA engine on XLA's own CPU devices. Run by `make test-xla`, in an environment with torch 2.9 and torch_xla 2.9.

Each number of devices is a process of its own, because it is fixed when the first of them is touched.
"""

import itertools
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fluidlab.cli import main
from fluidlab.model.files import load_model
from fluidlab.model.heads import HEADS
from fluidlab.model.orders import ORDERS
from fluidlab.train.xla import start_xla

pytest.importorskip("torch_xla", reason="make test-xla makes an environment that has it")
HERE = Path(__file__).resolve().parent
VARIANTS = [{"order": order, "head": head} for order, head in itertools.product(ORDERS, HEADS)]
ONE = {"order": "random", "head": "diffusion"}
PARTS = ("model", "ema", "exp_avg", "exp_avg_sq")
WAYS = {"two copies of two shards": {"shards": 2}, "micro-batches": {"micro_batch": 4},
        "recomputed": {"checkpointing": True}, "bf16": {"precision": "bf16"}}


def environment(devices: int, flags: str = "") -> dict:
    """Compiled without optimisation, in half the time, to the same operations."""
    return {**os.environ, "PJRT_DEVICE": "CPU", "CPU_NUM_DEVICES": str(max(devices, 1)),
            "XLA_FLAGS": os.environ.get("XLA_FLAGS", "") + f" --xla_backend_optimization_level=0 {flags}",
            "PYTHONPATH": str(HERE.parents[1])}


def run(devices: int, *command: str, flags: str = "") -> str:
    done = subprocess.run([sys.executable, *command], env=environment(devices, flags), text=True, capture_output=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def stories(devices: int, *cases: dict, flags: str = "") -> list[dict]:
    """What `story.py` says of some short trainings: 0 devices = plain PyTorch."""
    said = run(devices, str(HERE / "story.py"), str(devices), json.dumps(cases), flags=flags)
    return json.loads(said.splitlines()[-1])


def assert_same(got: dict, want: dict, rel: float = 1e-5) -> None:
    """Losses, validation losses of the running mean, and its sum; norms as far as losses let them."""
    assert len(got["losses"]) == len(want["losses"]) == 20
    for key in ("losses", "val", "mean"):
        assert got[key] == pytest.approx(want[key], rel=rel), key
    assert got["norms"] == pytest.approx(want["norms"], rel=10 * rel)


@pytest.fixture(scope="module")
def plain() -> list[dict]:
    return stories(0, *VARIANTS)


@pytest.mark.parametrize("devices", [1, 4])
def test_losses_equal_plain_pytorch_and_programs_are_compiled_once(devices, plain, proved):
    """20 steps with other random masks in each, clipping, the rate's schedule, running mean and validations."""
    for case, want, got in zip(VARIANTS, plain, stories(devices, *VARIANTS), strict=True):
        assert_same(got, want)
        assert min(want["norms"]) > 0.05, "the gradient is clipped in every step"
        building_and_steps, validating = got["compiled"][:10] + got["compiled"][11:], got["compiled"][10]
        assert sum(building_and_steps) <= 3, "shapes or Python numbers change from step to step"
        assert validating <= 5
        assert got["devices"] == devices and got["fallbacks"] == []
        assert not {"mm", "addmm", "bmm", "matmul"} & {*got["waiting"]}, "gradients are computed again with the update"
        assert got["held"] == dict.fromkeys(PARTS, pytest.approx(1 / devices, abs=0.01))
        off = max(abs(a / b - 1) for a, b in zip(got["losses"], want["losses"], strict=True))
        proved(f"{case['order']} + {case['head']} on {devices}: 20 losses within {off:.0e} of plain PyTorch, "
               f"{sum(building_and_steps)} new programs, {validating} for validation, no fallback; a device holds "
               f"{got['held']['model']:.0%} of the weights, {got['held']['exp_avg']:.0%} of the moments")


def test_other_ways_of_computing_give_the_same_losses(plain, proved):
    cases = [{**ONE, **changes} for changes in WAYS.values()]
    exact = {way: plain[VARIANTS.index(ONE)] for way in WAYS}
    exact["bf16"], = stories(0, {**ONE, "precision": "bf16"})
    for way, got in zip(WAYS, stories(4, *cases), strict=True):
        assert_same(got, exact[way], rel=(tolerance := 5e-3 if way == "bf16" else 1e-5))
        assert sum(got["compiled"][:10] + got["compiled"][11:]) <= 4, way
        shards = cases[0]["shards"] if "copies" in way else 4
        assert got["held"] == dict.fromkeys(PARTS, pytest.approx(1 / shards, abs=0.01)) and got["fallbacks"] == []
        proved(f"{way}, random + diffusion on 4: 20 losses within {tolerance:.0e} of plain PyTorch")


def test_recomputing_is_in_the_program(tmp_path, proved):
    """XLA merges equal operations; torch_xla's `checkpoint` keeps it from merging the second pass with the first."""
    cases = [{**ONE, "stop": 1}, {**ONE, "stop": 1, "checkpointing": True}]
    stories(1, *cases, flags=f"--xla_dump_to={tmp_path} --xla_dump_hlo_as_text")
    programs = [path.read_text() for path in sorted(tmp_path.glob("*after_optimizations.txt"))]
    products = sorted(len(re.findall(r" dot\(", program)) for program in programs)[-2:]
    assert products[1] - products[0] >= 8, "of a block's 12 products of the forward pass those that the backward needs"
    proved(f"recomputed, random + diffusion on 1: {products[1]} matrix products instead of {products[0]}")


def sent(program: str) -> dict[str, int]:
    """How many numbers a compiled program sends around, by the kind of sending."""
    total = dict.fromkeys(("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute"), 0)
    for shapes, kind in re.findall(rf"= (\([^=]*?\)|\S+) ({'|'.join(total)})(?:-start)?\(", program):
        for shape in re.findall(r"\[(.*?)\]", shapes):
            total[kind] += math.prod(map(int, filter(None, shape.split(","))))
    return total


@pytest.mark.parametrize("case", [ONE, {"order": "raster", "head": "softmax"}])
def test_weights_are_sent_and_images_stay(case, tmp_path, proved):
    """As FSDP does: weights are gathered once for each pass, gradients added up once, activations hardly ever sent.

    The images of this batch are many; left to itself XLA's partitioner sends their activations around.
    """
    [got] = stories(4, {**case, "batch_size": 64, "stop": 1}, flags=f"--xla_dump_to={tmp_path} --xla_dump_hlo_as_text")
    programs = sorted((path.read_text() for path in tmp_path.glob("*after_optimizations.txt")), key=len)
    parameters, step, update = got["parameters"], sent(programs[-1]), sent(programs[-2])
    assert 1.5 * parameters < step["all-gather"] < 2.1 * parameters
    assert step["all-reduce"] + step["reduce-scatter"] < 1.2 * parameters
    assert step["all-to-all"] + step["collective-permute"] < 64 * 16 * 32, "the activations of one layer"
    assert set(update.values()) == {0}, "an update is each device's own business"
    proved(f"{case['order']} + {case['head']} on 4: with {parameters:,} parameters a step gathers "
           f"{step['all-gather']:,} numbers, adds up {step['all-reduce']:,} and sends {step['all-to-all']:,} of 64 "
           f"images, its update none")


def test_a_stopped_run_goes_on_on_other_devices_as_if_it_had_not_been_stopped(tmp_path, plain, proved):
    """4 devices, again 4, plain PyTorch and one device take turns in one folder."""
    goes_on = {**ONE, "run": str(tmp_path / "run")}
    parts = [*stories(4, {**goes_on, "stop": 6}, {**goes_on, "stop": 12}), *stories(0, {**goes_on, "stop": 15}),
             *stories(1, goes_on)]
    assert [len(part["losses"]) for part in parts] == [6, 6, 3, 5]
    joined = {key: [x for part in parts for x in part[key]] for key in ("losses", "norms", "val")}
    assert_same({**joined, "mean": parts[-1]["mean"]}, plain[VARIANTS.index(ONE)])
    for part in (parts[1], parts[3]):
        assert sum(part["compiled"]) <= 3 + 5 and "mm" not in part["waiting"]
    assert parts[1]["held"] == dict.fromkeys(PARTS, pytest.approx(1 / 4, abs=0.01))
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [r["step"] for r in log] == list(range(1, 21))
    model = load_model(tmp_path / "run" / "model")
    assert sum(p.double().abs().sum().item() for p in model.parameters()) == pytest.approx(parts[-1]["mean"], rel=1e-6)
    proved("a run on 4 devices, again 4, plain PyTorch and 1 device in turn: losses within 1e-05 of one never stopped")


def test_weights_to_begin_with_are_split_too(tmp_path):
    case = {**ONE, "begin_with": str(tmp_path / "model")}
    [want], [got] = stories(0, case), stories(4, case)
    assert_same(got, want)
    assert sum(got["compiled"][:10] + got["compiled"][11:]) <= 4
    assert got["held"] == dict.fromkeys(PARTS, pytest.approx(1 / 4, abs=0.01))


def test_the_command_trains_and_exports_on_xla_as_on_plain_pytorch(tmp_path, proved):
    """`fluidlab train --engine xla`, its log, its run folder and its pipeline."""
    assert main(["cache", str(tmp_path / "cache"), "--num-images", "32", "--tokenizers", "scenes-vae"]) == 0
    recipe = ["--cache", str(tmp_path / "cache"), "--preset", "femto", "--steps", "4", "--batch-size", "8",
              "--warmup-steps", "2"]
    losses = []
    for name, engine in (("plain", ["--device", "cpu"]), ("xla", ["--engine", "xla"])):
        said = run(4, "-m", "fluidlab", "train", *recipe, *engine, "--out", str(tmp_path / name))
        log = [json.loads(line) for line in (tmp_path / name / "log.jsonl").read_text().splitlines()]
        losses.append([r["loss"] for r in log])
    assert "32 images, on 4 XLA devices (CPU), 4 shards to a copy, 1 copies" in said
    assert losses[1] == pytest.approx(losses[0], rel=1e-5) and len(losses[0]) == 4
    assert main(["export", str(tmp_path / "xla"), str(tmp_path / "pipeline"), "--tokenizer", "scenes-vae"]) == 0
    assert load_model(tmp_path / "pipeline").config.width == 32
    proved("fluidlab train --engine xla and fluidlab export: the losses of fluidlab train --device cpu within 1e-05")


@pytest.mark.parametrize("changes, sentence", [
    ({"batch_size": 6}, "must be a multiple of the number of chips, got 6 and 4"),
    ({"shards": 3}, "the number of chips must be a multiple of shards, got 4 and 3"),
])
def test_what_four_chips_cannot_share_is_refused(changes, sentence):
    done = subprocess.run([sys.executable, str(HERE / "story.py"), "4", json.dumps([{**ONE, **changes}])],
                          env=environment(4), text=True, capture_output=True)
    assert done.returncode == 1 and "ValueError: " in done.stderr and sentence in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("torchrun, machines", [(2, 1), (1, 2)])
def test_several_processes_are_refused(torchrun, machines, monkeypatch):
    import torch_xla.runtime as xr
    monkeypatch.setenv("PJRT_DEVICE", "CPU")
    monkeypatch.setenv("WORLD_SIZE", str(torchrun))
    monkeypatch.setattr(xr, "process_count", lambda: machines)
    with pytest.raises(ValueError, match="drives all chips of one machine from one process, got 2 processes"):
        start_xla()
