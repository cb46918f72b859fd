"""Which files a model's folder needs, and whether they are there. Nothing here knows what a model is."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fluidlab.whole import read_json

WEIGHTS = ("model", "diffusion_pytorch_model")                # as transformers and as diffusers call them
UNSAFE = (".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".pkl")
TOKENIZERS = ("tokenizer.json", "spiece.model", "vocab.json")  # one of them is a text model's tokenizer
PARTS = ("*.json", "spiece.model", "merges.txt", *(f"{stem}*.safetensors" for stem in WEIGHTS))


def missing_file(folder: Path) -> str | None:
    """What a model's folder lacks, in words, or None if it has all its files."""
    if not (folder / "config.json").is_file():
        return "config.json"
    for stem in WEIGHTS:
        index = folder / f"{stem}.safetensors.index.json"
        if index.is_file():
            shards = sorted(set(read_json(index).get("weight_map", {}).values()))
            return next((shard for shard in shards if not (folder / shard).is_file()), None)
        if (folder / f"{stem}.safetensors").is_file():
            return None
    unsafe = sorted(path.name for path in folder.iterdir() if path.suffix in UNSAFE)
    return f"weights as safetensors ({', '.join(unsafe)} would have to be unpickled)" if unsafe else (
        "weights as safetensors")


def weight_files(folder: Path) -> dict[str, Path]:
    """The safetensors file of every weight in a model's whole folder, by the weight's name."""
    from safetensors import safe_open
    stem = next(stem for stem in WEIGHTS if list(folder.glob(f"{stem}.safetensors*")))
    index = folder / f"{stem}.safetensors.index.json"
    if index.is_file():
        return {name: folder / shard for name, shard in read_json(index)["weight_map"].items()}
    with safe_open(folder / f"{stem}.safetensors", framework="pt") as file:
        return dict.fromkeys(file.keys(), folder / f"{stem}.safetensors")


def has_tokenizer(folder: Path) -> bool:
    """Whether a text model's folder has its tokenizer too, beside the weights or where a pipeline keeps it."""
    return any((place / name).is_file() for place in (folder, tokenizer_beside(folder)) for name in TOKENIZERS)


def tokenizer_beside(folder: Path) -> Path:
    """Where a diffusers pipeline keeps the tokenizer of the text encoder in a folder."""
    return folder.parent / folder.name.replace("text_encoder", "tokenizer")


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is looked for.

    Args:
        what: to call it.  shipped: names that are.  classes: how a diffusers pipeline lists it.
        lacks: what is missing in a folder, in words; None if nothing is.
        is_whole: whether a snapshot that lacks nothing has all else that belongs to it; if not, it is fetched on.
        parts: patterns of the files to fetch.  deep: they lie in sub-folders too.
    """

    what: str
    shipped: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    lacks: Callable[[Path], str | None] = missing_file
    is_whole: Callable[[Path], bool] = lambda folder: True
    parts: tuple[str, ...] = PARTS
    deep: bool = False

    @property
    def instead(self) -> str:
        """What else could be given, for the end of a sentence."""
        return f", or one of {', '.join(self.shipped)}" if self.shipped else ""


@contextlib.contextmanager
def reading(what: str, folder: Path):
    """Around a library's own loading: whatever a broken file makes it raise becomes one sentence."""
    try:
        yield
    except Exception as error:
        cause = " ".join(str(error).split())[:300]
        raise ValueError(f"The {what} in {str(folder)!r} cannot be read ({type(error).__name__}: {cause}): make or "
                         "download the folder again.") from error
