"""The whole state of a run in one folder per step, as PyTorch's distributed checkpoint (DCP) in safetensors files.

Every process writes the shards it holds, and a run goes on with any other number of them: DCP finds for each tensor
which files hold which rows. Model, running mean and AdamW's two moments are tensors under the parameters' names; the
order of the data and all noise need no state, since those of step n follow from (seed, n).

What to notice: a checkpoint is written to `step-N.part` by a thread while training goes on, and gets its name only when
every process has written its share. Whatever is cut off keeps the name that nobody reads.
"""

import os
import shutil
import threading
import warnings
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors import SafetensorError
from torch import Tensor

from fluidlab.config import ModelConfig
from fluidlab.model.fluid import Fluid
from fluidlab.train.optim import EMA
from fluidlab.whole import read_json, write_json

MOMENTS = ("exp_avg", "exp_avg_sq")


class Checkpoints:
    """Writes the checkpoints of a run, one at a time, beside the training.

    Args:
        run: the run's folder, on a disk that all processes share.
        keep: how many of the newest stay; the one with the least "val_loss" stays besides.
        rank: of this process; the first gives checkpoints their names and removes old ones.
        group: process group of the writers, used by nothing else; None = this process alone.
        copy: of a tensor, on the CPU.
    """

    def __init__(self, run: Path, keep: int = 2, rank: int = 0, group: dist.ProcessGroup | None = None,
                 copy: Callable[[Tensor], Tensor] | None = None):
        self.run, self.keep, self.rank, self.group, self.copy = Path(run), keep, rank, group, copy or copy_to_cpu
        self._thread, self._error = None, None

    def save(self, step: int, tensors: dict[str, Tensor], state: dict, wait: bool = False) -> Path:
        """Write `run/step-00000042/`; the tensors are copied first, so training may go on while they are written.

        Args:
            tensors: of `training_state`.  state: JSON facts, given back by `load_checkpoint`; "val_loss" is one.
            wait: return only when it is on the disk.

        Raises:
            OSError: this or the last one could not be written; older ones are untouched.
        """
        self.finish()
        part = self.run / f"step-{step:08d}.part"
        if self.rank == 0:
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir(parents=True)
        if self.group is not None:
            dist.barrier(group=self.group)
        copies = {name: self.copy(t) for name, t in tensors.items()}
        self._thread = threading.Thread(target=self._write, args=(part, copies, {**state, "step": step}), daemon=True)
        self._thread.start()
        if wait:
            self.finish()
        return part.with_suffix("")

    def finish(self) -> None:
        """Wait for what is being written.

        Raises:
            OSError: it could not be.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        error, self._error = self._error, None
        if error is not None:
            [first, *_] = getattr(error, "failures", {None: (error, None)}).values()    # DCP: by rank, with tracebacks
            found = checkpoints(self.run)
            raise OSError(f"a checkpoint in {self.run} could not be written ({first[0]}); the last complete one is "
                          f"{found[-1].name if found else 'none'}.") from error

    def _write(self, part: Path, tensors: dict[str, Tensor], state: dict) -> None:
        try:
            import torch.distributed.checkpoint as dcp  # a second, not to be paid by whoever never saves
            with _alone_is_meant():
                dcp.save(tensors, storage_writer=dcp.HuggingFaceStorageWriter(str(part), save_distributed=True),
                         process_group=self.group, no_dist=self.group is None)
            if self.rank == 0:
                write_json(part / "state.json", state)
                shutil.rmtree(part.with_suffix(""), ignore_errors=True)
                os.replace(part, part.with_suffix(""))
                self._forget()
            if self.group is not None:
                dist.barrier(group=self.group)                 # so that no process reads a name that is not yet there
        except BaseException as error:                         # DCP's own is one; finish() tells the training
            self._error = error

    def _forget(self) -> None:
        found = checkpoints(self.run)
        measured = {p: loss for p in found if (loss := read_state(p).get("val_loss")) is not None}
        best = {min(measured, key=measured.get)} if measured else set()
        for old in set(found[:-self.keep]) - best:
            shutil.rmtree(old, ignore_errors=True)


def copy_to_cpu(t: Tensor) -> Tensor:
    """On the CPU, sharded as before: what a thread may write while the original changes."""
    t = t.detach()
    return t.clone() if t.device.type == "cpu" else t.cpu()


def training_state(model, ema: EMA, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """All tensors of a run by name; AdamW's moments are made (zero) where it has not taken a step yet."""
    tensors = {}
    for name, p in model.named_parameters():
        moments = optimizer.state[p]
        if not moments:
            moments.update(step=torch.zeros((), device=p.device), **{m: torch.zeros_like(p) for m in MOMENTS})
        tensors |= {f"model.{name}": p, f"ema.{name}": ema.weights[name]}
        tensors |= {f"{m}.{name}": moments[m] for m in MOMENTS}
    return tensors


def checkpoints(run: Path) -> list[Path]:
    """The complete checkpoints of a run, oldest first."""
    return sorted(p for p in Path(run).glob("step-*") if p.suffix != ".part" and (p / "state.json").is_file())


def read_state(folder: Path) -> dict:
    """The JSON facts that were saved with a checkpoint; `ValueError` if they are damaged."""
    return read_json(folder / "state.json", "step", "model", "ema_updates")


def load_checkpoint(folder: Path, model, ema: EMA, optimizer: torch.optim.Optimizer, group=None) -> dict:
    """Put a checkpoint into a model, its running mean and its optimizer; returns the state that was saved with it.

    Raises:
        ValueError: the checkpoint is of another model, or its files are broken.
    """
    state, tensors = read_state(folder), training_state(model, ema, optimizer)
    _load(folder, tensors, group)
    for p in model.parameters():
        optimizer.state[p]["step"].fill_(float(state["step"]))
    ema.updates = state["ema_updates"]
    return state


def averaged_model(run: Path) -> tuple[Fluid, int]:
    """The running mean of a run's last checkpoint as a model, and the steps it has seen; the run may still go on.

    Raises:
        ValueError: there is no complete checkpoint.
    """
    found = checkpoints(run)
    if not found:
        raise ValueError(f"{run} holds no complete checkpoint; training writes one every save_every steps.")
    state = read_state(found[-1])
    model = Fluid(ModelConfig.from_dict(state["model"])).eval()
    _load(found[-1], {f"ema.{name}": p.detach() for name, p in model.named_parameters()})
    return model, state["step"]


def _load(folder: Path, tensors: dict[str, Tensor], group=None) -> None:
    """Fill tensors in place, each process the rows that it holds."""
    import torch.distributed.checkpoint as dcp
    reader = dcp.HuggingFaceStorageReader(str(folder))
    try:
        kept = {name: tuple(facts.size) for name, facts in reader.read_metadata().state_dict_metadata.items()}
    except (SafetensorError, OSError) as error:
        raise ValueError(f"the checkpoint {folder} cannot be read ({error}); remove it, and the one before it is "
                         f"taken.") from error
    for name, t in tensors.items():
        if kept.get(name) != tuple(t.shape):
            raise ValueError(f"the checkpoint {folder.name} is of another model: its {name} is "
                             f"{kept.get(name, 'missing')}, this model's is {tuple(t.shape)}.")
    staged = {name: t if _takes_rows(t) else torch.empty_like(t, device="cpu") for name, t in tensors.items()}
    with _alone_is_meant():
        dcp.load(staged, storage_reader=reader, process_group=group, no_dist=group is None)
    with torch.no_grad():
        for name, t in tensors.items():
            if staged[name] is not t:
                t.copy_(staged[name])


def _takes_rows(t: Tensor) -> bool:
    """Whether DCP may write into a tensor; XLA's are no memory that one could write to."""
    return t.device.type != "xla"


@contextmanager
def _alone_is_meant():
    """Without DCP's warning that one process is taken to be all there are."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        yield
