"""The whole state of a run in one folder per step, written beside and renamed: half a checkpoint is never picked up.

safetensors and JSON only. Model, running mean and AdamW's two moments are tensors under the parameters' names; batch
order and noise need no state, since step n's depend on (seed, n) alone.
"""

import json
import os
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file

from fluidlab.config import ModelConfig
from fluidlab.model.files import write_json, write_tensors
from fluidlab.model.fluid import Fluid
from fluidlab.train.optim import EMA

MOMENTS = ("exp_avg", "exp_avg_sq")


def save_checkpoint(run: Path, step: int, model, ema: EMA, optimizer: torch.optim.Optimizer, state: dict,
                    keep: int = 2) -> Path:
    """Write `run/step-00000042/` and remove all but the last `keep`.

    Args:
        step: optimizer steps done.  state: JSON facts of the run, given back by `load_checkpoint`.
    """
    target = run / f"step-{step:08d}"
    part = run / f"step-{step:08d}.part"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    names = {p: name for name, p in model.named_parameters()}
    moments = {f"{names[p]}.{m}": s[m] for p, s in optimizer.state.items() for m in MOMENTS}
    write_tensors(part / "model.safetensors", dict(model.named_parameters()))
    write_tensors(part / "ema.safetensors", ema.tensors())
    write_tensors(part / "optimizer.safetensors", moments)
    write_json(part / "state.json", {**state, "step": step, "ema_updates": ema.updates})
    shutil.rmtree(target, ignore_errors=True)
    os.replace(part, target)
    for old in checkpoints(run)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def checkpoints(run: Path) -> list[Path]:
    """The complete checkpoints of a run, oldest first."""
    return sorted(p for p in Path(run).glob("step-*") if p.suffix != ".part" and (p / "state.json").is_file())


def averaged_model(run: Path) -> tuple[Fluid, int]:
    """The running mean of a run's last checkpoint as a model, and the steps it has seen; the run may still go on.

    Raises:
        ValueError: there is no complete checkpoint.
    """
    found = checkpoints(run)
    if not found:
        raise ValueError(f"{run} holds no complete checkpoint; training writes one every save_every steps.")
    state = json.loads((found[-1] / "state.json").read_text(encoding="utf-8"))
    model = Fluid(ModelConfig.from_dict(state["model"])).eval()
    model.load_state_dict(load_file(found[-1] / "ema.safetensors"))
    return model, state["step"]


def load_checkpoint(folder: Path, model, ema: EMA, optimizer: torch.optim.Optimizer) -> dict:
    """Put a checkpoint into a model, its running mean and its optimizer; returns the state that was saved with it.

    Raises:
        ValueError: the checkpoint is of another model.
    """
    weights, parameters = load_file(folder / "model.safetensors"), dict(model.named_parameters())
    if {k: w.shape for k, w in weights.items()} != {k: p.shape for k, p in parameters.items()}:
        raise ValueError(f"the checkpoint {folder.name} is of another model: {len(weights)} tensors, this model has "
                         f"{len(parameters)}, or their shapes differ.")
    state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
    moments = load_file(folder / "optimizer.safetensors")
    with torch.no_grad():
        for name, p in parameters.items():
            p.copy_(weights[name])
            if f"{name}.{MOMENTS[0]}" in moments:
                step = torch.tensor(float(state["step"]))
                optimizer.state[p] = {"step": step, **{m: moments[f"{name}.{m}"].to(p.device) for m in MOMENTS}}
        for name, mean in load_file(folder / "ema.safetensors").items():
            ema.weights[name].copy_(mean)
    ema.updates = state["ema_updates"]
    return state
