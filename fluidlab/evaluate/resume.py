"""What a long evaluation needs so that it can be stopped and go on: what a folder holds, and of which parts.

A plan is JSON of everything that the numbers depend on. It is written before the work begins and compared when it goes
on, because numbers of two models in one folder would be taken for numbers of one. What to notice: weights and pictures
stand in a plan by their SHA-256, so another model behind the same name is another plan.
"""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

import torch

from fluidlab.evaluate.results import provenance
from fluidlab.whole import write_json


def keep_plan(plan: dict, path: Path) -> None:
    """Write a plan where none is; where one is, it must be the same.

    Raises:
        ValueError: the file holds another plan; the sentence names what differs.
    """
    plan = json.loads(json.dumps(plan))                                     # tuples become lists, as they will be read
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        write_json(path, plan)
        return
    kept = json.loads(path.read_text(encoding="utf-8"))
    for key in sorted(set(plan) | set(kept)):
        if kept.get(key) != plan.get(key):
            raise ValueError(f"{path.parent} holds an evaluation with another {key} ({str(kept.get(key))[:60]}, now "
                             f"{str(plan.get(key))[:60]}): name a new folder or remove it.")


def made_by(folder: Path) -> dict[str, str]:
    """Command, commit and torch version of the run that began the work in a folder, whoever asks later."""
    begun = folder / "made_by.json"
    if not begun.exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_json(begun, provenance())
    return json.loads(begun.read_text(encoding="utf-8"))


def digest_of_weights(module: torch.nn.Module) -> str:
    """SHA-256 over the names and bytes of all weights."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def digest_of_files(paths: Iterable[Path]) -> str:
    """SHA-256 over the contents of files, in their order; their names and folders do not matter."""
    digest = hashlib.sha256()
    for path in paths:
        with Path(path).open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def digest_of(values) -> str:
    """SHA-256 of anything that JSON can say."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
