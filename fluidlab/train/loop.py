"""Training: one step, and the loop around it that logs, validates, saves and can be stopped and continued.

It trains on cached tokens and knows no tokenizer, no order and no head. Everything random in step n follows from
(seed, n), so a run that was stopped and resumed gives the losses of one that was not.
"""

import json
import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import nn
from tqdm.auto import tqdm

from fluidlab.config import TrainConfig
from fluidlab.model.files import save_model, write_json
from fluidlab.model.fluid import Fluid
from fluidlab.train.checkpoint import checkpoints, load_checkpoint, save_checkpoint
from fluidlab.train.memory import keep_freed_memory
from fluidlab.train.optim import EMA, learning_rate, make_optimizer


@dataclass(frozen=True)
class Record:
    """What one step reports. step counts from 1; val_loss only where it was measured (on the running mean)."""

    step: int
    loss: float
    lr: float
    grad_norm: float
    images_per_second: float
    val_loss: float | None = None

    def line(self) -> str:
        val = "" if self.val_loss is None else f" val_loss {self.val_loss:.4f}"
        return (f"step {self.step} loss {self.loss:.4f} lr {self.lr:.2e} grad_norm {self.grad_norm:.3f} "
                f"images/s {self.images_per_second:.0f}{val}")


class Trainer:
    """A model, its optimizer and its running mean, advanced one step at a time.

    Args:
        model: a `Fluid`, trained in place.
        data: with `.batch(step, batch_size, seed) -> tokens, features, mask`, for example a `TokenCache`.
        config: a `TrainConfig`.
        validate: called with a model in evaluation mode, returns the validation loss.
    """

    def __init__(self, model: Fluid, data, config: TrainConfig, validate: Callable[[Fluid], float] | None = None):
        self.model, self.data, self.config, self.validate = model, data, config, validate
        self.optimizer, self.ema, self.done = make_optimizer(model, config), EMA(model, config.ema_decay), 0
        self.device = next(model.parameters()).device

    def step(self) -> Record:
        """One optimizer step.

        Raises:
            FloatingPointError: the loss is not finite; the weights are those before this step.
        """
        start, c = time.perf_counter(), self.config
        lr = learning_rate(c, self.done)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        loss = self._loss(self.done)
        value = loss.item()
        if not math.isfinite(value):
            raise FloatingPointError(f"the loss of step {self.done + 1} is {value} at learning rate {lr:.2e}: resume "
                                     f"from the last checkpoint with a smaller lr, more warm-up or a smaller clip.")
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), c.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.ema.update(self.model)
        self.done += 1
        return Record(self.done, value, lr, float(norm), c.batch_size / (time.perf_counter() - start))

    def _loss(self, step: int) -> torch.Tensor:
        c = self.config
        generator = torch.Generator().manual_seed(c.seed * 1_000_003 + step)
        tokens, features, mask = (t.to(self.device) for t in self.data.batch(step, c.batch_size, c.seed))
        keep = torch.rand(len(mask), 1, generator=generator) >= c.text_dropout             # (B, 1)
        autocast = torch.autocast(self.device.type, torch.bfloat16) if c.precision == "bf16" else nullcontext()
        self.model.train()
        with autocast:
            return self.model(tokens, features, mask & keep.to(self.device), generator)

    @torch.no_grad()
    def averaged(self) -> Fluid:
        """A copy of the model that carries the running mean: what is validated, sampled and shipped."""
        copy = type(self.model)(self.model.config).to(self.device)
        return self.ema.copy_to(copy).eval()

    def save(self, run: Path) -> Path:
        return save_checkpoint(Path(run), self.done, self.model, self.ema, self.optimizer,
                               {"model": self.model.config.to_dict(), "train": self.config.to_dict()})

    def resume(self, run: Path) -> int:
        """Continue from the run's last complete checkpoint, if there is one; returns the steps already done."""
        found = checkpoints(Path(run))
        if found:
            self.done = load_checkpoint(found[-1], self.model, self.ema, self.optimizer)["step"]
        return self.done


def train(trainer: Trainer, run: str | Path | None = None, *, resume: bool = False, progress: bool = True,
          on_record: Callable[[Record], None] | None = None, facts: dict | None = None) -> list[Record]:
    """Run a trainer to its last step.

    Args:
        run: folder for checkpoints, `log.jsonl` and the final `model/`; None = keep nothing.
        resume: continue what is in the folder; without it a folder with checkpoints is refused.
        on_record: called with every `Record`, for live curves.
        facts: JSON to keep in the run's `run.json` beside both configurations.

    Returns:
        The records of the steps that were logged.

    Raises:
        ValueError: the folder holds a run and `resume` is False.
        KeyboardInterrupt: after Ctrl-C, once a checkpoint has been written.
    """
    run, c = None if run is None else Path(run), trainer.config
    keep_freed_memory()
    if run is not None:
        _open_run(trainer, run, resume, facts or {})
    every = 1 if c.steps <= 50 else c.log_every
    records, bar = [], tqdm(total=c.steps, initial=trainer.done, unit="step", disable=not progress, smoothing=0.05)
    record = None if run is None else _cut_off(trainer, run)
    try:
        while record is not None or trainer.done < c.steps:
            record = record or trainer.step()
            n, last = record.step, record.step == c.steps
            if _to_validate(trainer, n):
                record = replace(record, val_loss=trainer.validate(trainer.averaged()))
            bar.update()
            bar.set_postfix(loss=f"{record.loss:.4f}", images_per_s=f"{record.images_per_second:.0f}")
            if on_record is not None:
                on_record(record)
            if last or record.val_loss is not None or every and n % every == 0:
                records.append(record)
                _log(run, record, progress)
            if run is not None and (last or c.save_every and n % c.save_every == 0):
                trainer.save(run)
            record = None
    except KeyboardInterrupt:
        if run is not None:
            if record is not None and record.val_loss is None and _to_validate(trainer, record.step):
                _log(run, record, progress)      # so that whoever goes on knows what is still to be measured
            tqdm.write(f"stopped: {trainer.save(run)} holds step {trainer.done}; --resume continues.")
        raise
    finally:
        bar.close()
    if run is not None:
        save_model(trainer.model, run / "model", weights=trainer.ema.tensors())
    return records


def _to_validate(trainer: Trainer, step: int) -> bool:
    every = trainer.config.validate_every
    return trainer.validate is not None and (step == trainer.config.steps or bool(every) and step % every == 0)


def _cut_off(trainer: Trainer, run: Path) -> Record | None:
    """The last step, if it was done and logged but a stop cut off its validation; its line leaves the log for now."""
    lines = (run / "log.jsonl").read_text(encoding="utf-8").splitlines() if (run / "log.jsonl").exists() else []
    last = Record(**json.loads(lines[-1])) if lines else None
    if last is None or last.step != trainer.done or last.val_loss is not None or not _to_validate(trainer, last.step):
        return None
    _trim_log(run / "log.jsonl", trainer.done - 1)
    return last


def _open_run(trainer: Trainer, run: Path, resume: bool, facts: dict) -> None:
    run.mkdir(parents=True, exist_ok=True)
    found = checkpoints(run)
    if found and not resume:
        raise ValueError(f"{run} already holds a run at {found[-1].name}: continue it with resume, or name another.")
    configs = {"model": trainer.model.config.to_dict(), "train": trainer.config.to_dict()}
    if resume:
        check_same_run(run, {**configs, **facts})
        trainer.resume(run)
        _trim_log(run / "log.jsonl", trainer.done)
    write_json(run / "run.json", {**configs, **facts})


def check_same_run(run: Path, asked: dict) -> None:
    """Raise `ValueError` if a run's `run.json` names another model, recipe or data than is asked for.

    How often it logs, validates and saves may change; everything else would make two runs out of one.
    """
    if not (run / "run.json").is_file():
        return
    kept, asked = json.loads((run / "run.json").read_text(encoding="utf-8")), json.loads(json.dumps(asked))
    for part in ("model", "train", "fingerprints", "data", "validation"):
        for key, value in asked.get(part, {}).items():
            found = kept.get(part, {}).get(key, value)
            if found != value and key not in ("log_every", "validate_every", "validate_images", "save_every"):
                raise ValueError(f"{run} was started with {key} {found}, now it is {value}: name a new folder, or ask "
                                 f"for the same.")


def _log(run: Path | None, record: Record, progress: bool) -> None:
    if progress:
        tqdm.write(record.line())
    if run is not None:
        with (run / "log.jsonl").open("a", encoding="utf-8") as f:
            f.write(json.dumps(asdict(record)) + "\n")


def _trim_log(path: Path, done: int) -> None:
    """Forget lines of steps that will be done again."""
    if path.exists():
        lines = [s for s in path.read_text(encoding="utf-8").splitlines() if json.loads(s)["step"] <= done]
        path.write_text("".join(s + "\n" for s in lines), encoding="utf-8")
