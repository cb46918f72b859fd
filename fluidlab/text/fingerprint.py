"""Which encoder made these features? SHA-256 of its tokenizer and its weights, in the precision that they had then.

An encoder that is held in bfloat16 can still be recognised as the one that made features in float32: its weights are
read once more from the folder that it came from, one at a time, so that T5-XXL never lies in memory in float32.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn

from fluidlab.hub import weight_files


def fingerprint_of(model: nn.Module, spec: str, dtype: torch.dtype | None = None, folder: Path | None = None) -> str:
    """SHA-256 over a text and the names and bytes of all weights.

    Args:
        spec: what else belongs to it.
        dtype: of the weights, rounded to it; None for as they are.
        folder: where they came from, for a dtype that is wider than theirs.
    """
    digest = hashlib.sha256(spec.encode())
    held = sorted(model.state_dict().items())
    wider = dtype == torch.float32 and any(weight.dtype == torch.bfloat16 for _, weight in held)
    for name, weight in _from_disk(held, folder) if wider and folder is not None and folder.is_dir() else held:
        digest.update(name.encode())
        weight = weight.detach().to(device="cpu", dtype=dtype if weight.is_floating_point() else None)
        digest.update(weight.contiguous().view(torch.uint8).numpy())
    return digest.hexdigest()


def _from_disk(held: list[tuple[str, Tensor]], folder: Path) -> Iterator[tuple[str, Tensor]]:
    """The weights as they lie in a folder; those that no longer round to what is held stay what is held."""
    files = weight_files(folder)
    kept_as = {weight.data_ptr(): name for name, weight in held if name in files}     # tied weights are kept once
    for name, weight in held:
        kept = kept_as.get(weight.data_ptr())
        if kept is not None:
            with safe_open(files[kept], framework="pt") as file:
                stored = file.get_tensor(kept)
            weight = stored if stored.to(weight.dtype).equal(weight.cpu()) else weight
        yield name, weight
