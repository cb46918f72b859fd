"""The XLA engine on XLA's own CPU devices. Run by `make test-xla`, in an environment with torch 2.9 and torch_xla 2.9.

Each test is a process of its own, because the number of devices is fixed when the first of them is touched.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch_xla", reason="make test-xla makes an environment that has it")
HERE = Path(__file__).resolve().parent


def story(devices: int, *arguments: str) -> dict:
    """What `story.py` says of a short training: 0 devices = plain PyTorch."""
    env = {**os.environ, "PJRT_DEVICE": "CPU", "CPU_NUM_DEVICES": str(max(devices, 1)),
           "PYTHONPATH": str(HERE.parents[1])}
    done = subprocess.run([sys.executable, str(HERE / "story.py"), str(devices), *arguments], env=env, text=True,
                          capture_output=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("devices", [1, 4])
@pytest.mark.parametrize("order, head", [("random", "diffusion"), ("raster", "softmax")])
def test_losses_equal_plain_pytorch_and_programs_are_compiled_once(order, head, devices):
    """20 steps with other random masks in each, clipping, the rate's schedule and the running mean included."""
    plain, xla = story(0, order, head), story(devices, order, head)
    assert xla["devices"] == devices and len(xla["losses"]) == 20
    assert xla["losses"] == pytest.approx(plain["losses"], rel=1e-5)
    assert xla["mean"] == pytest.approx(plain["mean"], rel=1e-5)
    assert xla["compilations"] <= 3, "shapes or Python numbers change from step to step"
    assert xla["fallbacks"] == []
    assert devices == 1 or xla["sharded"] > 0.9, "share of the parameters that is split over the devices"


def test_a_stopped_run_goes_on_as_if_it_had_not_been(tmp_path):
    whole = story(4, "random", "diffusion")
    first = story(4, "random", "diffusion", "--stop", "8", "--run", str(tmp_path))
    rest = story(4, "random", "diffusion", "--run", str(tmp_path))
    assert first["losses"] + rest["losses"] == pytest.approx(whole["losses"], rel=1e-5)
    alone = story(0, "random", "diffusion", "--run", str(tmp_path), "--stop", "20")
    assert alone["losses"] == [] and alone["mean"] == pytest.approx(whole["mean"], rel=1e-5)
