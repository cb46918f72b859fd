"""A model as a folder: `config.json` and `model.safetensors`. Nothing is unpickled and nothing is executed."""

import json
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from fluidlab.config import ModelConfig
from fluidlab.layers import fill, whole
from fluidlab.model.fluid import Fluid
from fluidlab.whole import write_json, write_tensors

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
FILE_BYTES = 4 * 10 ** 9


def save_model(model: Fluid, folder: str | Path, *, dtype: torch.dtype = torch.float32,
               weights: dict[str, torch.Tensor] | None = None, write: bool = True) -> Path:
    """Write a model to a folder; half precision halves the file and is widened again on loading.

    What is larger than `FILE_BYTES` becomes several files and an index, as on the hub. A sharded model is gathered
    tensor by tensor: all processes call this, and the one that writes never holds more than a file.

    Args:
        weights: other weights of the same names, for example a running mean; None = the model's own.
        write: False in every process but one.
    """
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise ValueError(f"dtype must be a floating-point one, such as torch.float16, got {dtype!r}.")
    folder = Path(folder)
    weights = model.state_dict() if weights is None else weights
    files = _split({name: w.numel() * dtype.itemsize for name, w in weights.items()})
    if write:
        folder.mkdir(parents=True, exist_ok=True)
    for file, names in files.items():
        tensors = {name: _to_cpu(weights[name], dtype, write) for name in names}
        if write:
            write_tensors(folder / file, tensors)
    if write:
        (folder / INDEX).unlink(missing_ok=True)
        if len(files) > 1:
            place = {name: file for file, names in files.items() for name in names}
            write_json(folder / INDEX, {"metadata": {}, "weight_map": place})
        write_json(folder / "config.json", model.config.to_dict())
    return folder


def _split(sizes: dict[str, int]) -> dict[str, list[str]]:
    """File -> the tensors in it, in order, each file as full as it may be."""
    parts, room = [], 0
    for name, size in sizes.items():
        if not parts or size > room:
            parts.append([])
            room = FILE_BYTES
        parts[-1].append(name)
        room -= size
    if len(parts) == 1:
        return {WEIGHTS: parts[0]}
    return {f"model-{i:05d}-of-{len(parts):05d}.safetensors": part for i, part in enumerate(parts, start=1)}


def _to_cpu(w: torch.Tensor, dtype: torch.dtype, keep: bool) -> torch.Tensor | None:
    w = whole(w.detach())                                            # a collective, if it is sharded
    return w.to("cpu", dtype) if keep else None


def read_weights(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of a folder by `save_model`, of one file or several, as they are on the disk.

    Raises:
        ValueError: a file is missing or broken.
    """
    files = [WEIGHTS]
    try:
        if (folder / INDEX).is_file():
            index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
            files = sorted(set(index["weight_map"].values()))
        if any(Path(file).name != file for file in files):
            raise ValueError(f"{folder / INDEX} names a file outside its folder.")
        missing = [file for file in files if not (folder / file).is_file()]
        if missing:
            raise ValueError(f"{folder} holds no {missing[0]}, so it is not a Fluid model's folder.")
        return {name: w for file in files for name, w in load_file(folder / file).items()}
    except (SafetensorError, json.JSONDecodeError, KeyError) as error:
        raise ValueError(f"{folder} cannot be read as a Fluid model ({error}); fetch or train it again.") from error


def load_model(folder: str | Path, device="cpu") -> Fluid:
    """Read a model from a folder, float32, in evaluation mode.

    Raises:
        ValueError: a file is missing or broken, or the weights do not fit the configuration.
    """
    folder = Path(folder)
    model = Fluid(read_config(folder))
    load_weights(model, folder)
    return model.to(device).eval()


def read_config(folder: Path) -> ModelConfig:
    """The configuration in a folder by `save_model`; `ValueError` if there is none."""
    if not (folder / "config.json").is_file():
        raise ValueError(f"{folder} holds no config.json, so it is not a Fluid model's folder.")
    try:
        return ModelConfig.from_dict(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    except (json.JSONDecodeError, UnicodeDecodeError, TypeError) as error:
        raise ValueError(f"{folder} cannot be read as a Fluid model ({error}); fetch or train it again.") from error


def load_weights(model: Fluid, folder: Path) -> None:
    """Fill a model, sharded or not, with the weights in a folder by `save_model`.

    Raises:
        ValueError: they do not fit the model.
    """
    weights, own = read_weights(folder), dict(model.named_parameters())
    if set(own) != set(weights) or any(own[k].shape != weights[k].shape for k in own):
        wrong = sorted(set(own) ^ set(weights)) or [k for k in own if own[k].shape != weights[k].shape]
        raise ValueError(f"the weights in {folder} do not fit the model: {len(wrong)} of {len(own)} tensors differ, "
                         f"first {wrong[0]}.")
    for name, p in own.items():
        fill(p, weights[name].float())
