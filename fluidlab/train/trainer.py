"""One training step. It knows tokens, a model and a world to share them with; no tokenizer, no order and no head.

Everything random in step n follows from (seed, n) and an image's place in the batch, so the losses of a run are those
of one that was stopped and resumed, that had another number of processes, or other micro-batches.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from fluidlab.config import TrainConfig, check_type, short
from fluidlab.layers import whole
from fluidlab.model.files import load_weights
from fluidlab.model.fluid import Fluid
from fluidlab.model.noise import image_streams, uniform
from fluidlab.train.checkpoint import Checkpoints, checkpoints, load_checkpoint, read_state, training_state
from fluidlab.train.optim import EMA, learning_rate, make_optimizer
from fluidlab.train.parallel import World, autocast


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
        model: a `Fluid`, trained in place; sharded by `build` if there is a world to share it with.
        data: with `.batch(step, batch_size, seed) -> tokens, features, mask`, for example a `TokenCache`; with
            several processes or micro-batches also with a range, the rows of the step's batch that are wanted.
        config: a `TrainConfig`.
        validate: called with a model in evaluation mode, returns the validation loss; with several processes called
            with (model, world) by all of them.
        world: of `start()`; None = this process alone.
    """

    def __init__(self, model: Fluid, data, config: TrainConfig, validate: Callable[..., float] | None = None,
                 world: World | None = None):
        check_type("config", config, TrainConfig, "a TrainConfig")
        if not hasattr(data, "batch"):
            raise ValueError(f"data must have .batch(step, batch_size, seed), as a TokenCache has, got {short(data)}.")
        self.model, self.data, self.config, self.validate = model, data, config, validate
        self.world = world or World(device=next(model.parameters()).device)
        self.micro_batches = self.world.micro_batches(config)
        self.optimizer = make_optimizer(model, config, **self.world.optimizer_options())
        self.ema, self.done = EMA(model, config.ema_decay), 0
        self._spread()
        self.stop_asked, self._all_stop = False, False
        self._best = math.inf

    def step(self) -> Record:
        """One optimizer step, all processes together.

        A mean over predicted tokens is taken over those of all processes and micro-batches, which are known only at
        the end: gradients are those of a sum, and are divided then.

        Raises:
            FloatingPointError: the loss or its gradient is not finite; the weights are those before this step.
        """
        start, c = time.perf_counter(), self.config
        lr = learning_rate(c, self.done)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        most = c.batch_size * self.model.config.seq_len                     # tokens of the batch, predicted or not
        total = torch.tensor([0.0, 0.0, float(self.stop_asked)], device=self.world.device)
        for rows in self.micro_batches:
            self.world.last_micro_batch(self.model, rows is self.micro_batches[-1])
            loss, is_target = self._losses(self.done, rows)                 # (b, N), (b, N)
            loss = (loss * is_target).sum()
            (loss / most).backward()
            total[:2] += torch.stack([loss.detach(), is_target.sum()])
        loss_sum, count, stop = self.world.sum(total)
        torch._foreach_mul_([p.grad for p in self.model.parameters()], most / count)
        norm = whole(nn.utils.clip_grad_norm_(self.model.parameters(), c.clip))
        value, norm, self._all_stop = self.world.read(torch.stack([loss_sum / count, norm, stop]))
        if not (math.isfinite(value) and math.isfinite(norm)):
            self.optimizer.zero_grad(set_to_none=True)
            what, bad = ("gradient's norm", norm) if math.isfinite(value) else ("loss", value)
            raise FloatingPointError(f"the {what} of step {self.done + 1} is {bad} at learning rate {lr:.2e}: resume "
                                     f"from the last checkpoint with a smaller lr, more warm-up or a smaller clip.")
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.ema.update(self.model)
        self.world.flush()
        self.done += 1
        return Record(self.done, value, lr, norm, c.batch_size / (time.perf_counter() - start))

    def _losses(self, step: int, rows: range) -> tuple[torch.Tensor, torch.Tensor]:
        """Loss of every token (b, N) and which of them count (b, N), for some rows of the step's batch."""
        c, device = self.config, self.world.device
        streams = image_streams(c.seed, step, rows)
        mine = () if len(rows) == c.batch_size else (rows,)
        batch = self.data.batch(step, c.batch_size, c.seed, *mine)
        tokens, features, mask = (self.world.place(t) for t in batch)
        keep = uniform((len(rows), 1), streams, device) >= c.text_dropout                  # (b, 1)
        self.model.train()
        with autocast(device, c.precision):
            return self.model.token_losses(tokens, features, mask & keep, streams)

    @property
    def stops(self) -> bool:
        """Whether to stop now: this process was asked to and is alone, or all have heard with the last step."""
        return bool(self._all_stop) or self.stop_asked and self.world.size == 1

    def validation(self) -> float:
        """The validation loss of the running mean, which is what is sampled and shipped.

        It is float32, but for a sharded bf16 run, whose weights reach a device in bf16 only.
        """
        several = (self.world,) if self.world.mesh is not None else ()
        precision = self.config.precision if several else "float32"
        with self.ema.inside(self.model), torch.no_grad(), autocast(self.world.device, precision):
            self.world.flush()
            loss = self.validate(self.model.eval(), *several)
        self.world.flush()
        return loss

    def averaged(self) -> Fluid:
        """A copy of the model, whole, that carries the running mean; all processes must call it."""
        return self.ema.copy_to(Fluid(self.model.config).to(self.world.device)).eval()

    def save(self, run: Path, checkpoints: Checkpoints | None = None, val_loss: float | None = None) -> Path:
        """Write a checkpoint, beside the training if the run's `Checkpoints` are given."""
        wait, checkpoints = checkpoints is None, checkpoints or self.checkpoints(run)
        state = {"model": self.model.config.to_dict(), "train": self.config.to_dict(), "val_loss": val_loss,
                 "ema_updates": self.ema.updates}
        return checkpoints.save(self.done, training_state(self.model, self.ema, self.optimizer), state, wait)

    def begin_with(self, folder: str | Path) -> None:
        """Take the weights of an exported model; the running mean begins with them."""
        load_weights(self.model, Path(folder))
        self.ema.restart(self.model)
        self._spread()

    def checkpoints(self, run: Path) -> Checkpoints:
        return Checkpoints(run, self.config.keep, self.world.rank, self.world.side, self.world.copy)

    def resume(self, run: Path) -> int:
        """Continue from the run's last complete checkpoint, if there is one; returns the steps already done."""
        found = checkpoints(Path(run))
        if found:
            state = load_checkpoint(found[-1], self.model, self.ema, self.optimizer, self.world.side)
            self.done = state["step"]
            self._spread()
            self._best = min((loss for p in found if (loss := read_state(p)["val_loss"]) is not None), default=math.inf)
        return self.done

    def _spread(self) -> None:
        """All tensors of the run lie as the world wants them; AdamW's moments are made, for a program to find them."""
        self.world.spread(training_state(self.model, self.ema, self.optimizer).values())
