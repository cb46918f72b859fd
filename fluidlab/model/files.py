"""A model as a folder: `config.json` and `model.safetensors`. Nothing is unpickled and nothing is executed."""

import json
import os
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from fluidlab.config import ModelConfig
from fluidlab.model.fluid import Fluid


def write_json(path: Path, values: dict) -> None:
    """Written beside and renamed, so that a reader never finds half a file."""
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    os.replace(temporary, path)


def write_tensors(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Written beside and renamed."""
    temporary = path.with_name(path.name + ".part")
    save_file({name: t.detach().contiguous().cpu() for name, t in tensors.items()}, temporary)
    os.replace(temporary, path)


def save_model(model: Fluid, folder: str | Path, *, dtype: torch.dtype = torch.float32,
               weights: dict[str, torch.Tensor] | None = None) -> Path:
    """Write a model to a folder; half precision halves the file and is widened again on loading.

    Args:
        weights: other weights of the same names, for example a running mean; None = the model's own.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    weights = model.state_dict() if weights is None else weights
    write_tensors(folder / "model.safetensors", {name: w.to(dtype) for name, w in weights.items()})
    write_json(folder / "config.json", model.config.to_dict())
    return folder


def load_model(folder: str | Path, device="cpu") -> Fluid:
    """Read a model from a folder, float32, in evaluation mode.

    Raises:
        ValueError: a file is missing or broken, or the weights do not fit the configuration.
    """
    folder = Path(folder)
    for name in ("config.json", "model.safetensors"):
        if not (folder / name).is_file():
            raise ValueError(f"{folder} holds no {name}, so it is not a Fluid model's folder.")
    try:
        config = ModelConfig.from_dict(json.loads((folder / "config.json").read_text(encoding="utf-8")))
        weights = {k: w.float() for k, w in load_file(folder / "model.safetensors").items()}
    except (SafetensorError, json.JSONDecodeError, TypeError) as error:
        raise ValueError(f"{folder} cannot be read as a Fluid model ({error}); fetch or train it again.") from error
    model = Fluid(config)
    own = model.state_dict()
    if set(own) != set(weights) or any(own[k].shape != weights[k].shape for k in own):
        wrong = sorted(set(own) ^ set(weights)) or [k for k in own if own[k].shape != weights[k].shape]
        raise ValueError(f"the weights in {folder} do not fit its config.json: {len(wrong)} of {len(own)} tensors "
                         f"differ, first {wrong[0]}.")
    model.load_state_dict(weights)
    return model.to(device).eval()
