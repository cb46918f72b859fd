"""A tokenizer on disk: config.json beside model.safetensors, both written aside and then renamed.

A file that is renamed into place is whole: a run that is stopped while saving leaves the former one, not half of one.
"""

import json
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from fluidlab.whole import write_json, write_tensors


def optimizer_tensors(prefix: str, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The state of an optimizer as named tensors, `prefix.index.key`."""
    states = optimizer.state_dict()["state"]
    return {f"{prefix}.{index}.{key}": value for index, state in states.items() for key, value in state.items()}


def load_optimizer(prefix: str, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put back what `optimizer_tensors` named."""
    state = optimizer.state_dict()
    for name, value in tensors.items():
        if name.startswith(f"{prefix}."):
            _, index, key = name.split(".")
            state["state"].setdefault(int(index), {})[key] = value
    optimizer.load_state_dict(state)


def save_model(model: nn.Module, config: dict, folder: str | Path, dtype: torch.dtype) -> None:
    """Save `model` with its floating weights in `dtype`, and `config`, into `folder` (made if missing)."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    weights = {k: v.to(dtype) if v.is_floating_point() else v for k, v in model.state_dict().items()}
    write_tensors(folder / "model.safetensors", weights)
    write_json(folder / "config.json", config)


def load_model(build: Callable[[dict], nn.Module], kind: str, folder: str | Path) -> nn.Module:
    """Build from config.json, load model.safetensors as float32, freeze. ValueError where either does not fit."""
    folder = Path(folder)
    values = _readable(folder, lambda: json.loads((folder / "config.json").read_text(encoding="utf-8")))
    found = values.pop("kind", None)
    if found != kind:
        raise ValueError(f"{folder / 'config.json'} is of a tokenizer of kind {found!r}, but {kind!r} was asked for.")
    model = _readable(folder, lambda: build(values))
    tensors = _readable(folder, lambda: load_file(folder / "model.safetensors"))
    weights = {k: v.float() if v.is_floating_point() else v for k, v in tensors.items()}
    if {k: v.shape for k, v in weights.items()} != {k: v.shape for k, v in model.state_dict().items()}:
        raise ValueError(f"{folder / 'model.safetensors'} holds {len(weights)} tensors that do not fit config.json, "
                         f"which asks for {len(model.state_dict())}; it was made by another version of fluidlab.")
    model.load_state_dict(weights)
    return model.eval().requires_grad_(False)


def _readable(folder: Path, read: Callable):
    try:
        return read()
    except (OSError, SafetensorError, json.JSONDecodeError, TypeError, RuntimeError) as error:
        raise ValueError(f"{folder} cannot be read as a tokenizer ({error}); copy or make it again.") from error
