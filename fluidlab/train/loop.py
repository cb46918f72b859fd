"""The loop around the step: it logs, validates, saves, and can be stopped and continued at any time."""

import json
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path

from tqdm.auto import tqdm

from fluidlab.config import check_type, short
from fluidlab.model.files import save_model
from fluidlab.train.checkpoint import checkpoints
from fluidlab.train.lock import only_run
from fluidlab.train.memory import enough_memory, keep_freed_memory
from fluidlab.train.signals import peers, stop_signals
from fluidlab.train.trainer import Record, Trainer
from fluidlab.whole import read_json, whole_file, write_json

MAY_CHANGE = {"log_every", "validate_every", "validate_images", "save_every", "keep", "micro_batch", "checkpointing",
              "compile", "shards"}


def train(trainer: Trainer, run: str | Path | None = None, *, resume: bool = False, progress: bool = True,
          on_record: Callable[[Record], None] | None = None, facts: dict | None = None) -> list[Record]:
    """Run a trainer to its last step.

    Args:
        run: folder for checkpoints, `log.jsonl` and the final `model/`, shared by all processes; None = keep nothing.
        resume: continue what is in the folder; without it a folder with checkpoints is refused.
        on_record: called with every `Record`, for live curves.
        facts: JSON to keep in the run's `run.json` beside both configurations.

    Returns:
        The records of the steps that were logged.

    Raises:
        ValueError: the folder holds a run and `resume` is False, or another training is writing into it.
        KeyboardInterrupt: after Ctrl-C or SIGTERM, once a checkpoint has been written.
        ConnectionError: another process was lost.
        OSError: a checkpoint could not be written.
        MemoryError: a step did not fit; the sentence names the next smaller setting.
    """
    check_type("trainer", trainer, Trainer, "a Trainer")
    with nullcontext() if run is None else only_run(trainer.world, Path(run)):
        return _train(trainer, run, resume, progress, on_record, facts)


def _train(trainer: Trainer, run: str | Path | None, resume: bool, progress: bool,
           on_record: Callable[[Record], None] | None, facts: dict | None) -> list[Record]:
    """`train`, in a folder that no other training writes into."""
    run, c, first = None if run is None else Path(run), trainer.config, trainer.world.rank == 0
    keep_freed_memory()
    if run is not None:
        _open_run(trainer, run, resume, facts or {})
    records = []
    bar = tqdm(total=c.steps, initial=trainer.done, unit="step", disable=not (progress and first), smoothing=0.05)
    keeper = _Keeper(trainer, run, progress and first)
    try:
        with stop_signals(trainer), peers(trainer), enough_memory(trainer, run, keeper.settle):
            while keeper.pending or trainer.done < c.steps:
                record = keeper.pending or trainer.step()
                bar.update()
                bar.set_postfix(loss=f"{record.loss:.4f}", images_per_s=f"{record.images_per_second:.0f}")
                record = keeper.keep(record)
                if on_record is not None:
                    on_record(record)
                if keeper.is_logged(record):
                    records.append(record)
                if trainer.stops:
                    raise KeyboardInterrupt
            keeper.finish()
    except KeyboardInterrupt:
        keeper.stopped()
        raise
    finally:
        bar.close()
    return records


class _Keeper:
    """What a run keeps of its steps: log lines, validation losses, checkpoints, and the model at the end."""

    def __init__(self, trainer: Trainer, run: Path | None, progress: bool):
        self.trainer, self.run, self.progress, self.c = trainer, run, progress, trainer.config
        self.writes = run is not None and trainer.world.rank == 0
        self.every = 1 if self.c.steps <= 50 else self.c.log_every
        self.checkpoints = None if run is None else trainer.checkpoints(run)
        self.pending = None if run is None else self._cut_off()      # a step that is done but not yet kept

    def keep(self, record: Record) -> Record:
        """Validate, log and save where the recipe says so; returns the record with its validation loss."""
        self.pending, t, n = record, self.trainer, record.step
        if self._validates(n):
            record = replace(record, val_loss=t.validation())
        if self.is_logged(record):
            self._log(record)
        self.pending = None
        best = record.val_loss is not None and record.val_loss < t._best
        if best:
            t._best = record.val_loss
        every = self.c.save_every
        if self.run is not None and (best or n == self.c.steps or every and n % every == 0):
            t.save(self.run, self.checkpoints, record.val_loss)
        return record

    def is_logged(self, record: Record) -> bool:
        n = record.step
        return n == self.c.steps or record.val_loss is not None or bool(self.every) and n % self.every == 0

    def settle(self) -> None:
        """What is being written is on the disk."""
        if self.checkpoints is not None:
            self.checkpoints.finish()

    def finish(self) -> None:
        """The last checkpoint is on the disk, and the running mean lies beside it as a model."""
        if self.run is not None:
            self.checkpoints.finish()
            save_model(self.trainer.model, self.run / "model", weights=self.trainer.ema.tensors(), write=self.writes)

    def stopped(self) -> None:
        """After Ctrl-C: whoever goes on shall find the last step, and what of it is still to be measured."""
        if self.run is None:
            return
        if self.pending is not None and self._validates(self.pending.step):
            self._log(self.pending)
        folder = self.trainer.save(self.run, self.checkpoints)
        self.checkpoints.finish()
        if self.writes:
            tqdm.write(f"stopped: {folder} holds step {self.trainer.done}; --resume continues.")

    def _validates(self, step: int) -> bool:
        every = self.c.validate_every
        return self.trainer.validate is not None and (step == self.c.steps or bool(every) and step % every == 0)

    def _log(self, record: Record) -> None:
        if self.progress:
            tqdm.write(record.line())
        if self.writes:
            with (self.run / "log.jsonl").open("a", encoding="utf-8") as f:
                f.write(json.dumps(asdict(record)) + "\n")

    def _cut_off(self) -> Record | None:
        """The last step, if it was logged but a stop cut off its validation; its line leaves the log for now."""
        log, done = self.run / "log.jsonl", self.trainer.done
        records = read_log(log)
        last = Record(**records[-1]) if records else None
        self.trainer.world.barrier()                                  # all have read it
        if last is None or last.step != done or last.val_loss is not None or not self._validates(last.step):
            return None
        if self.writes:
            _trim_log(log, done - 1)
        return last


def _open_run(trainer: Trainer, run: Path, resume: bool, facts: dict) -> None:
    world = trainer.world
    found = checkpoints(run)
    if found and not resume:
        raise ValueError(f"{run} already holds a run at {found[-1].name}: continue it with resume, or name another.")
    configs = {"model": trainer.model.config.to_dict(), "train": trainer.config.to_dict()}
    if resume:
        check_same_run(run, {**configs, **facts})
        trainer.resume(run)
    world.barrier()                                                   # all have looked
    if world.rank == 0:
        _trim_log(run / "log.jsonl", trainer.done)
        for cut_off in run.glob("step-*.part"):
            shutil.rmtree(cut_off, ignore_errors=True)
        write_json(run / "run.json", {**configs, **facts})
    world.barrier()


def check_same_run(run: Path, asked: dict) -> None:
    """Raise `ValueError` if a run's `run.json` names another model, recipe or data than is asked for.

    How often it logs, validates and saves may change, and how it is shared out over devices; everything else would
    make two runs out of one.
    """
    if not (run / "run.json").is_file():
        return
    kept, asked = read_json(run / "run.json"), json.loads(json.dumps(asked))
    for part in ("model", "train", "fingerprints", "data", "validation"):
        then, now = kept.get(part, {}), asked.get(part, {})
        if part == "data" and then and now:             # what one of them does not name is decided otherwise
            then, now = ({**dict.fromkeys([*then, *now]), **facts} for facts in (then, now))
        for key, value in now.items():
            found = then.get(key, value)
            if found != value and key not in MAY_CHANGE:
                raise ValueError(f"{run} was started with {key} {found}, now it is {value}: name a new folder, or ask "
                                 f"for the same.")


def _trim_log(path: Path, done: int) -> None:
    """Forget lines of steps that will be done again."""
    if path.exists():
        kept = [json.dumps(record) + "\n" for record in read_log(path) if record["step"] <= done]
        with whole_file(path) as beside:
            beside.write_text("".join(kept), encoding="utf-8")


def read_log(path: Path) -> list[dict]:
    """The records of a run's log, in order; none where there is no log yet.

    Raises:
        ValueError: a line is no record, as a full disk can leave one.
    """
    records = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines() if path.exists() else (), start=1):
        try:
            record = json.loads(line)
            Record(**record)
        except (ValueError, TypeError) as error:
            raise ValueError(f"line {number} of {path} is no record of a step, got {short(line)}: remove it and what "
                             f"follows.") from error
        records.append(record)
    return records
