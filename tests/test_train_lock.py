"""A run's folder belongs to one training at a time, and to nobody once that is gone; a lack of memory says what to do.
"""

import importlib
import os
import signal
import subprocess
import sys
import textwrap

import pytest
import torch
from test_train_loop import CONFIG, fresh

from fluidlab.cli import main
from fluidlab.train import lock as locks
from fluidlab.train.checkpoint import checkpoints
from fluidlab.train.lock import LOCK, FolderLock
from fluidlab.train.loop import train

HOLD = """
import sys, time
from pathlib import Path
from fluidlab.train.lock import FolderLock
lock = FolderLock(Path(sys.argv[1]))
assert lock.take()
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def other(tmp_path):
    """Another process that holds the folder."""
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(HOLD), str(tmp_path)], stdout=subprocess.PIPE,
                          text=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}) as child:
        assert child.stdout.readline() == "held\n"
        yield child
        child.kill()


def test_two_trainings_in_one_folder_are_refused_until_the_first_is_gone(other, tmp_path):
    """SIGKILL leaves the lock file behind, with the name of a process that is no more."""
    with pytest.raises(ValueError, match=f"is being trained into by process {other.pid} on .*: wait for it, stop it"):
        train(fresh(), tmp_path, progress=False)
    assert [p.name for p in tmp_path.iterdir()] == [LOCK]
    os.kill(other.pid, signal.SIGKILL)
    other.wait()
    assert str(other.pid) in (tmp_path / LOCK).read_text()
    assert len(train(fresh(), tmp_path, progress=False)) == 12


def test_the_folder_is_held_while_training_and_given_back_at_its_end(tmp_path):
    held = []

    def look(record):
        second = FolderLock(tmp_path)
        held.append((second.take(), second.holder))
    train(fresh(), tmp_path, progress=False, on_record=look)
    assert all(not taken and holder.startswith(f"process {os.getpid()} on ") for taken, holder in held)
    assert len(held) == 12 and FolderLock(tmp_path).take()


def test_a_refused_run_gives_the_folder_back(tmp_path):
    train(fresh(), tmp_path, progress=False)
    with pytest.raises(ValueError, match="already holds a run"):
        train(fresh(), tmp_path, progress=False)
    assert FolderLock(tmp_path).take()


def test_a_disk_without_locks_warns_and_trains(tmp_path, monkeypatch):
    def none(file):
        raise OSError(95, "Operation not supported")
    monkeypatch.setattr(locks, "_lock", none)
    with pytest.warns(UserWarning, match=r"run.lock cannot be locked \(.*not supported\), so nothing refuses"):
        assert len(train(fresh(), tmp_path, progress=False)) == 12


def runs_out_at(trainer, step, error):
    real = trainer.step

    def limited():
        if trainer.done == step - 1:
            raise error
        return real()
    trainer.step = limited
    return trainer


ERRORS = {"python": MemoryError(), "cuda": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
          "processor": RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
          "windows": RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes."),
          "xla": RuntimeError("RESOURCE_EXHAUSTED: XLA:TPU compile permanent error.")}


@pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS)
def test_running_out_of_memory_keeps_the_last_checkpoint_and_a_smaller_micro_batch_goes_on(error, tmp_path):
    with pytest.raises(MemoryError, match=r"step 7 ran out of memory.*: go on with --micro-batch 4 \(it was 8\); the "
                                          r"last complete checkpoint is step-00000006\.$"):
        train(runs_out_at(fresh(), 7, error), tmp_path, progress=False)
    assert [p.name for p in checkpoints(tmp_path)] == ["step-00000004", "step-00000006"]
    whole = train(fresh(), progress=False)
    rest = train(fresh(config=CONFIG.replace(micro_batch=4)), tmp_path, resume=True, progress=False)
    assert [r.loss for r in rest] == pytest.approx([r.loss for r in whole[6:]], abs=1e-5)


@pytest.mark.parametrize("changes, said", [
    ({"batch_size": 6}, r"--micro-batch 3 \(it was 6\)"),
    ({"batch_size": 9}, r"--micro-batch 3 \(it was 9\)"),
    ({"batch_size": 8, "micro_batch": 1}, r"--checkpointing, which recomputes"),
    ({"batch_size": 8, "micro_batch": 1, "checkpointing": True}, r"--preset pico in a new folder"),
])
def test_the_next_smaller_setting_is_named(changes, said):
    trainer = fresh(config=CONFIG.replace(**changes))
    with pytest.raises(MemoryError, match=rf"step 1 ran out of memory: .*{said}"):
        train(runs_out_at(trainer, 1, MemoryError()), progress=False)


def test_another_error_of_torch_stays_what_it_is():
    with pytest.raises(RuntimeError, match="^size mismatch$"):
        train(runs_out_at(fresh(), 1, RuntimeError("size mismatch")), progress=False)


def test_a_command_that_runs_out_of_memory_says_so_in_one_line(monkeypatch, capsys):
    def too_large(*_, **__):
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate\nmemory: you tried to allocate 9 bytes.")
    monkeypatch.setattr(importlib.import_module("fluidlab.train.plan"), "plan", too_large)
    assert main(["plan", "--device", "v5e"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("fluidlab plan: ran out of memory ([enforce fail] DefaultCPUAllocator: can't allocate mem")
