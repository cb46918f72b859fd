"""The command of the README over two real processes, started by torchrun."""

import contextlib
import importlib
import io
import json
import signal
import sys
from types import SimpleNamespace

import pytest

import fluidlab as fl
from fluidlab.cli import main
from fluidlab.train.checkpoint import checkpoints
from fluidlab.train.signals import stop_signals


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    folder = tmp_path_factory.mktemp("launch") / "cache"
    assert main(["cache", str(folder), "--num-images", "64", "--tokenizers", "scenes-vae", "--threads", "1"]) == 0
    return folder


def arguments(cache, out, *more):
    return ["train", "--preset", "nano", "--cache", cache, "--validation", cache, "--validate-images", "64", "--steps",
            "6", "--batch-size", "8", "--save-every", "3", "--device", "cpu", "--threads", "1", "--out", out, *more]


def test_two_processes_of_torchrun_train_as_one_does(cache, tmp_path, capfd):
    fl.launch(arguments(cache, tmp_path / "one"))
    alone = capfd.readouterr().out
    fl.launch(arguments(cache, tmp_path / "two"), processes=2)
    together = capfd.readouterr().out
    assert "on cpu" in alone and "on 2 x cpu, 2 shards to a copy, 1 copies" in together
    assert together.count("step 6 loss") == 1, "one of the two speaks"
    logs = [[json.loads(line) for line in (tmp_path / name / "log.jsonl").read_text().splitlines()]
            for name in ("one", "two")]
    assert [r["step"] for r in logs[1]] == [1, 2, 3, 4, 5, 6]
    for a, b in zip(*logs, strict=True):
        assert b["loss"] == pytest.approx(a["loss"], rel=1e-5)
    assert logs[1][-1]["val_loss"] == pytest.approx(logs[0][-1]["val_loss"], rel=1e-5)
    assert len(list(checkpoints(tmp_path / "two")[-1].glob("*.safetensors"))) == 2, "each wrote its shards"
    assert main(["export", str(tmp_path / "two"), str(tmp_path / "pipe"), "--tokenizer", "scenes-vae"]) == 0
    assert fl.FluidPipeline.from_pretrained(tmp_path / "pipe")("a cat", seed=0, num_denoising_steps=2).images


def test_what_goes_wrong_in_several_processes_reaches_the_caller(cache, tmp_path, capfd):
    with pytest.raises(ChildProcessError, match="fluidlab train on 2 processes ended with exit code 1"):
        fl.launch(arguments(cache, tmp_path, "--micro-batch", "3"), processes=2)
    assert "batch_size must be a multiple of micro_batch, got 8 and 3." in capfd.readouterr().out


def test_alone_its_errors_are_the_callers(cache, tmp_path):
    with pytest.raises(ValueError, match="multiple of micro_batch, got 8 and 3"):
        fl.launch(arguments(cache, tmp_path, "--micro-batch", "3"))
    with pytest.raises(ValueError, match="processes must be a whole number at least 1, got 0"):
        fl.launch(["doctor"], processes=0)


WAITS = """
import os, signal
assert "fluidlab" in os.listdir(os.environ["PYTHONPATH"])
print("in the session of its parent:", os.getsid(0) == os.getsid(os.getppid()))
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
print("ready", flush=True)
signal.sigwait([signal.SIGINT])
print("saved", flush=True)
"""


def test_a_stop_is_passed_on_once_and_waited_for(monkeypatch, tmp_path):
    """The processes are in a session of their own, so a signal to the kernel's does not reach them besides."""
    class Stops(io.StringIO):
        def write(self, text):
            super().write(text)
            if "ready" in text:
                raise KeyboardInterrupt

    monkeypatch.setattr(importlib.import_module("fluidlab.cli.launch"), "TORCHRUN", WAITS)
    monkeypatch.setattr(sys, "stdout", Stops())
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    with pytest.raises(KeyboardInterrupt):
        fl.launch(["train"], processes=2)
    assert "in the session of its parent: False" in sys.stdout.getvalue()
    assert sys.stdout.getvalue().endswith("saved\n")


def test_on_windows_a_stop_is_a_ctrl_break_to_a_group_of_its_own(monkeypatch):
    """There a Ctrl-C cannot be sent to others, and a new group would not hear it."""
    told, sent = {}, []

    class Child(contextlib.nullcontext):
        stdout, returncode = None, 1

        def __init__(self, command, **options):
            super().__init__(self)
            told.update(options)

        def send_signal(self, number):
            sent.append(number)

    def shows(stream):
        if not sent:
            raise KeyboardInterrupt
    module = importlib.import_module("fluidlab.cli.launch")
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(module.subprocess, "CREATE_NEW_PROCESS_GROUP", 512, raising=False)
    monkeypatch.setattr(module.signal, "CTRL_BREAK_EVENT", "break", raising=False)
    monkeypatch.setattr(module.subprocess, "Popen", Child)
    monkeypatch.setattr(module, "_show", shows)
    with pytest.raises(KeyboardInterrupt):
        fl.launch(["train"], processes=2)
    assert sent == ["break"] and told["creationflags"] == 512 and "start_new_session" not in told


def test_a_ctrl_break_asks_a_training_to_stop_where_there_is_one(monkeypatch):
    """On a machine without it, another signal stands for it."""
    trainer, before = SimpleNamespace(stop_asked=False), signal.getsignal(signal.SIGUSR1)
    monkeypatch.setattr(signal, "SIGBREAK", signal.SIGUSR1, raising=False)
    with stop_signals(trainer):
        signal.raise_signal(signal.SIGUSR1)
        assert trainer.stop_asked
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGUSR1)
    assert signal.getsignal(signal.SIGUSR1) == before
