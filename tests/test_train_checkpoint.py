"""What a run must survive: being killed at any moment, a full disk, files that were cut off or damaged."""

import json
import os
import random
import resource
import shutil
import signal
import threading
import time

import pytest
import torch
from helpers import variant
from test_train_loop import CONFIG, fresh

from fluidlab.evaluate.loss import validator
from fluidlab.model.files import load_model, save_model
from fluidlab.train.checkpoint import averaged_model, checkpoints, read_state
from fluidlab.train.loop import train
from fluidlab.train.trainer import Trainer

RECIPE = CONFIG.replace(steps=40, save_every=2, validate_every=8, log_every=1)


def in_child(work, seconds: float | None = None) -> int:
    """`work()` in a forked process; killed without warning after so many seconds. Returns its wait status."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        except BaseException as error:
            print(f"child: {type(error).__name__}: {error}", flush=True)
            os._exit(1)
        os._exit(0)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(pid, signal.SIGKILL)
    return os.waitpid(pid, 0)[1]


def log_of(run) -> list[dict]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def test_killed_at_twenty_random_moments_runs_end_with_the_same_losses(tmp_path):
    end_with_the_same_losses(tmp_path, kills=20, seed=0)


def end_with_the_same_losses(tmp_path, kills: int, seed: int):
    """SIGKILL cannot be answered. It comes during start, steps, validation and saves; a run that has ended before all
    kills is followed by another. Losses and weights are then bit-equal to those of a run that was left alone."""
    chance, left, runs = random.Random(seed), kills, [tmp_path / "run0"]
    whole = train(fresh(config=RECIPE), tmp_path / "whole", progress=False)
    while left:
        run = runs[-1]
        status = in_child(lambda run=run: train(fresh(config=RECIPE), run, resume=True, progress=False),
                          chance.uniform(0.02, 0.4))
        assert os.WIFSIGNALED(status) or status == 0
        if (run / "model" / "config.json").is_file():
            runs.append(tmp_path / f"run{len(runs)}")
            continue
        left -= 1
        if checkpoints(run):                               # whatever has a name can be read
            averaged_model(run)
    theirs = load_model(tmp_path / "whole" / "model")
    for run in runs:
        train(fresh(config=RECIPE), run, resume=True, progress=False)
        log = {r["step"]: r for r in log_of(run)}
        assert [(r["step"], r["loss"], r["val_loss"]) for r in log.values()] == [(r.step, r.loss, r.val_loss)
                                                                                 for r in whole]
        assert not list(run.glob("*.part"))
        ours = load_model(run / "model")
        assert all(torch.equal(p, q) for p, q in zip(ours.parameters(), theirs.parameters(), strict=True))


def test_a_full_disk_keeps_the_last_good_checkpoint_and_says_so(tmp_path):
    """From step 5 on no file may grow beyond 64 kB: the save of step 6 fails in the system, not in a mock."""
    run = tmp_path / "run"

    def work():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

        def fill_the_disk(record):
            if record.step == 5:
                while not (run / "step-00000004" / "state.json").exists():      # it is written beside the training
                    time.sleep(0.01)
                resource.setrlimit(resource.RLIMIT_FSIZE, (64_000, resource.RLIM_INFINITY))
        with pytest.raises(OSError, match=r"could not be written .*; the last complete one is step-00000004"):
            train(fresh(config=RECIPE), run, progress=False, on_record=fill_the_disk)

    assert in_child(work) == 0
    assert [p.name for p in checkpoints(run)] == ["step-00000002", "step-00000004"]
    whole = train(fresh(config=RECIPE), progress=False)
    rest = train(fresh(config=RECIPE), run, resume=True, progress=False)
    assert [r.loss for r in rest] == [r.loss for r in whole[4:]] and not list(run.glob("*.part"))


def test_training_goes_on_while_a_checkpoint_is_written_and_it_holds_the_weights_of_its_step(tmp_path, monkeypatch):
    import torch.distributed.checkpoint as dcp
    may_write, real = threading.Event(), dcp.save
    monkeypatch.setattr(dcp, "save", lambda *a, **k: may_write.wait(30) and real(*a, **k))
    trainer = fresh()
    trainer.step()
    before = {name: w.clone() for name, w in trainer.ema.tensors().items()}
    keeper = trainer.checkpoints(tmp_path)
    trainer.save(tmp_path, keeper)
    for _ in range(3):
        trainer.step()
    assert trainer.done == 4 and not checkpoints(tmp_path)          # not yet named
    may_write.set()
    keeper.finish()
    model, steps = averaged_model(tmp_path)
    assert steps == 1 and all(torch.equal(p, before[name]) for name, p in model.named_parameters())


def test_the_newest_and_the_best_checkpoint_stay(tmp_path):
    """A validation loss that is least at step 4 of 12, two newest kept."""
    losses = iter([0.9, 0.1, 0.5, 0.6, 0.7, 0.8])
    trainer = fresh(config=CONFIG.replace(validate_every=2, save_every=2))
    trainer.validate = lambda model: next(losses)
    train(trainer, tmp_path, progress=False)
    assert [p.name for p in checkpoints(tmp_path)] == ["step-00000004", "step-00000010", "step-00000012"]
    assert read_state(tmp_path / "step-00000004")["val_loss"] == 0.1


@pytest.mark.parametrize("damage", ["cut off", "other bytes", "a file is gone"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_still_works(damage, tmp_path):
    whole = train(fresh(), tmp_path, progress=False)
    last, before = checkpoints(tmp_path)[-1], checkpoints(tmp_path)[-2]
    [file] = last.glob("*.safetensors")
    if damage == "cut off":
        file.write_bytes(file.read_bytes()[:5000])
    elif damage == "other bytes":
        file.write_bytes(b"\xff" * 5000)
    else:
        file.unlink()
    with pytest.raises(ValueError, match=f"the checkpoint .*{last.name}"):
        fresh().resume(tmp_path)
    shutil.rmtree(last)
    rest = train(fresh(), tmp_path, resume=True, progress=False)
    assert [r.loss for r in rest] == [r.loss for r in whole[read_state(before)["step"]:]]


def test_an_exported_model_can_be_trained_on(tmp_path):
    source = variant("random", "diffusion")
    save_model(source, tmp_path)
    trainer = fresh()
    trainer.begin_with(tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(trainer.averaged().parameters(), source.parameters(), strict=True))
    data = trainer.data
    other = Trainer(source, data, trainer.config, validator(data, 16, batch_size=8))
    assert [trainer.step().loss for _ in range(3)] == [other.step().loss for _ in range(3)]


def test_a_large_model_is_several_files_and_loads_again(tmp_path, monkeypatch):
    monkeypatch.setattr("fluidlab.model.files.FILE_BYTES", 300_000)
    model = variant("random", "softmax")
    save_model(model, tmp_path)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    files = sorted(p.name for p in tmp_path.glob("*.safetensors"))
    assert len(files) > 2 and sorted(set(index["weight_map"].values())) == files
    assert all((tmp_path / f).stat().st_size < 320_000 for f in files)
    again = load_model(tmp_path)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), again.parameters(), strict=True))
    (tmp_path / files[1]).unlink()
    with pytest.raises(ValueError, match=f"holds no {files[1]}"):
        load_model(tmp_path)
    index["weight_map"]["head.table"] = "../model.safetensors"
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match="names a file outside its folder"):
        load_model(tmp_path)
