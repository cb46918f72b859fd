"""A pipeline as a folder: what lies in it, reading and writing it, and refusing what is not whole.

    config.json, model.safetensors   the model
    tokenizer/, text_encoder/        its parts, or in pipeline.json the names of shipped ones
    pipeline.json                    which parts, recommended settings, SHA-256 of the weights; written last
    training.json                    how it was trained and with which parts, if that is known
    model_index.json, README.md      for diffusers and for people

Nothing here is unpickled or executed, whoever made the folder. What to notice: two different questions are asked.
Are these the bytes that were saved (the sums of pipeline.json)? And are these the parts that the model was trained
with (the fingerprints of training.json)? The first finds a broken copy, the second a wrong tokenizer.
"""

import hashlib
from pathlib import Path

import torch

from fluidlab.config import SampleConfig, data_dir
from fluidlab.data.token_cache import tokens_fingerprint
from fluidlab.hub import Wanted, find_model, read_json
from fluidlab.model.files import load_model, save_model
from fluidlab.model.fluid import Fluid
from fluidlab.publish.card import pipeline_card
from fluidlab.text.encoder import load_text_encoder
from fluidlab.tokenizer import load_tokenizer
from fluidlab.whole import write_json, write_text

INDEX = "pipeline.json"
TRAINING = "training.json"
PARTS = ("tokenizer", "text_encoder")
MODEL = Wanted(what="model", classes=("FluidModel",))


def read_index(folder: Path) -> dict:
    """pipeline.json: tokenizer and text_encoder (a folder inside, or a name), defaults, sha256.

    Raises:
        ValueError: it cannot be read, or its defaults are no settings of `SampleConfig`.
    """
    index = {"defaults": {}, "sha256": {}, **read_json(folder / INDEX)}
    if not all(isinstance(index.get(part), str) for part in PARTS):
        raise ValueError(f"{folder / INDEX} must name a tokenizer and a text_encoder, got {index}.")
    if not all(isinstance(index[name], dict) for name in ("defaults", "sha256")):
        raise ValueError(f"{folder / INDEX} must hold objects of defaults and sha256, got {index}.")
    SampleConfig.from_dict(index["defaults"])
    return index


def shipped_pipelines() -> tuple[str, ...]:
    """The names of the pipelines that the course ships."""
    return tuple(sorted(path.parent.name for path in data_dir().glob(f"*/{INDEX}")))


def read_training(folder: Path) -> dict | None:
    """training.json, or None where a model's training is not recorded."""
    path = folder / TRAINING
    return read_json(path) if path.is_file() else None


def load_parts(folder: Path, given: dict, verify: bool = True, dtype: torch.dtype = torch.float32) -> dict:
    """Model, tokenizer and text encoder of a folder.

    Args:
        given: parts that are used in place of the folder's own.
        verify: compare the weights with the sums that they were saved with.
        dtype: of the text encoder's weights, which never lie in memory in another.

    Raises:
        ValueError: a part cannot be read, has other bytes than were saved, or is not what the model was trained with.
    """
    index = read_index(folder)
    sums = {path: saved for path, saved in index["sha256"].items() if _part_of(path) not in given}
    if verify:
        check_sums(folder, sums)

    def find(part: str) -> str:
        return str(folder / index[part]) if (folder / index[part]).is_dir() else index[part]
    loaders = {"model": lambda: load_model(find_model(folder, MODEL)),
               "tokenizer": lambda: load_tokenizer(find("tokenizer")),
               "text_encoder": lambda: load_text_encoder(find("text_encoder"), dtype)}
    parts = {name: given[name] if name in given else load() for name, load in loaders.items()}
    saved_with_it = set(map(_part_of, sums))
    check_trained_with(folder, {part: parts[part] for part in PARTS if part not in saved_with_it})
    return parts


def _part_of(path: str) -> str:
    return path.split("/")[0] if "/" in path else "model"


def write_folder(folder: Path, name: str, model: Fluid, tokenizer, text_encoder, *, dtype: torch.dtype,
                 defaults: dict, training: dict | None) -> None:
    """Write a pipeline. The index goes first and comes last: without one a folder is none, so half of one is refused.

    Args:
        name: what the card calls it.  dtype: of the model's weights on the disk.
        defaults: recommended settings.  training: of training.json, if known.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / INDEX).unlink(missing_ok=True)
    save_model(model, folder, dtype=dtype)
    tokenizer.save_pretrained(folder / "tokenizer")
    text_encoder.save_pretrained(folder / "text_encoder")
    if training is not None:
        write_json(folder / TRAINING, training)
    card = pipeline_card(name, model, tokenizer, text_encoder, defaults=defaults, training=training)
    write_text(folder / "README.md", card)
    write_json(folder / INDEX, {"tokenizer": "tokenizer", "text_encoder": "text_encoder",
                                **({"defaults": defaults} if defaults else {}), "sha256": sums_of(folder)})


def sums_of(folder: Path) -> dict[str, str]:
    """SHA-256 of the safetensors files of a folder's model, tokenizer and text encoder, by their paths in it."""
    files = [folder / "model.safetensors", *(path for part in PARTS for path in (folder / part).glob("*.safetensors"))]
    return {path.relative_to(folder).as_posix(): _sha256(path) for path in sorted(files)}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_sums(folder: Path, sums: dict[str, str]) -> None:
    """Raise `ValueError` unless these files are there with the bytes that they were saved with."""
    missing = [path for path in sums if not (folder / path).is_file()]
    if missing:
        raise ValueError(f"{folder} holds no {', '.join(missing)}, so it is not whole: copy or save it again.")
    for path, saved in sums.items():
        found = _sha256(folder / path)
        if found != saved:
            raise ValueError(f"{folder / path} has other bytes than were saved: SHA-256 {found[:12]}, saved was "
                             f"{saved[:12]}; copy or save it again.")


def check_trained_with(folder: Path, parts: dict) -> None:
    """Raise `ValueError` unless these parts are those that the model in this folder was trained with, if that is known.

    A part that was saved with the model is not asked: whoever saved it had it in use, perhaps in another precision.
    A text encoder may be the same one in float32 or in bf16, then or now.
    """
    trained = (read_training(folder) or {}).get("fingerprints", {})
    print_of = {"tokenizer": tokens_fingerprint, "text_encoder": lambda encoder: encoder.fingerprint()}
    is_it = {"tokenizer": lambda tokenizer, saved: tokens_fingerprint(tokenizer) == saved,
             "text_encoder": lambda encoder, saved: encoder.made(saved)}
    for part in parts:
        if part in trained and not is_it[part](parts[part], trained[part]):
            raise ValueError(f"the model in {folder} was trained with another {part}: fingerprint "
                             f"{trained[part][:12]}, this one has {print_of[part](parts[part])[:12]}.")


def check_saving(safe_serialization: bool = True, variant: str | None = None) -> None:
    """Raise `ValueError` for ways of saving that diffusers has and this package has not."""
    if not safe_serialization:
        raise ValueError("safe_serialization must be True, got False: weights are safetensors and never pickles.")
    if variant is not None:
        raise ValueError(f"variant must be None, got {variant!r}: a folder holds one precision of the weights.")
