"""Tokens and text features computed once, kept as Arrow files, memory-mapped and shuffled while training.

Training never sees an image, a tokenizer or a text encoder: it reads this. One cache can hold the tokens of several
tokenizers for the same images (that is how four variants are trained on the same pictures), and it knows which
tokenizers, encoder and source made it and refuses to be mixed with others. Text features are kept without padding.
"""

import contextlib
import hashlib
import json
import os
import shutil
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from fluidlab.config import check_range

MANIFEST = "manifest.json"


def write_cache(folder: str | Path, source, num_images: int, tokenizers: dict, text_encoder, *, batch_size: int = 256,
                description: dict | None = None, progress: bool = True) -> Path:
    """Encode the first `num_images` of a source and write the cache.

    Args:
        folder: to be made; an existing cache of the same making is kept, of another is refused.
        source: with `.batch(indices) -> (uint8 (B, 3, H, W), captions)`.
        tokenizers: name -> tokenizer.  text_encoder: prompts -> features (B, S, E), mask (B, S).
        description: JSON facts of the source (split, seed, size ...) kept in the manifest.

    Raises:
        ValueError: the folder holds another cache, or batch_size or num_images is below 1.
    """
    from datasets import Array2D, Dataset, Features, List, Value  # takes a second to import: only when writing

    check_range("num_images", num_images, 1, kind=int)
    check_range("batch_size", batch_size, 1, kind=int)
    folder = Path(folder)
    manifest = {"num_images": num_images, "tokenizers": {n: _facts(t) for n, t in tokenizers.items()},
                "source": description or {},
                "text": {"dim": text_encoder.dim, "fingerprint": text_encoder.fingerprint()}}
    if (folder / MANIFEST).exists():
        found = read_manifest(folder)
        if {k: found.get(k) for k in manifest} != manifest:
            raise ValueError(f"{folder} holds another cache ({found['num_images']} images of {found['source']}); "
                             f"name a new folder or remove it.")
        return folder

    columns = {"length": Value("int16"), "text": List(Value("float16"))}
    for name, tokenizer in tokenizers.items():
        continuous = tokenizer.kind == "continuous"
        columns[name] = (Array2D((tokenizer.seq_len, tokenizer.token_dim), "float16") if continuous
                         else List(Value("int32"), length=tokenizer.seq_len))

    def rows():
        starts = tqdm(range(0, num_images, batch_size), desc="cache", unit="batch", disable=not progress)
        for start in starts:
            images, captions = source.batch(range(start, min(start + batch_size, num_images)))
            pixels = images.float() / 127.5 - 1                                            # (B, 3, H, W)
            features, mask = text_encoder(captions)                                        # (B, S, E), (B, S)
            encoded = {name: t.encode(pixels).cpu().numpy() for name, t in tokenizers.items()}
            for i in range(len(captions)):
                text = features[i][mask[i]].half().numpy()                                 # (its length, E)
                tokens = {n: e[i].astype(np.float16 if e.ndim == 3 else np.int32) for n, e in encoded.items()}
                yield {"length": len(text), "text": text.reshape(-1), **tokens}

    temporary = folder.with_name(folder.name + ".part")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    with torch.no_grad(), _one_bar():
        dataset = Dataset.from_generator(rows, features=Features(columns), cache_dir=str(temporary / "work"))
        manifest["max_length"] = int(np.max(np.asarray(dataset["length"]))) if num_images else 0
        dataset.save_to_disk(str(temporary / "arrow"))
    del dataset
    shutil.rmtree(temporary / "work", ignore_errors=True)
    (temporary / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    os.replace(temporary, folder)
    return folder


@contextlib.contextmanager
def _one_bar():
    """Without the bars that `datasets` draws: ours already counts the batches, and `progress` turns it off."""
    from datasets.utils.logging import disable_progress_bar, enable_progress_bar, is_progress_bar_enabled
    shown = is_progress_bar_enabled()
    disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            enable_progress_bar()


def weights_fingerprint(module: torch.nn.Module, without: str = "") -> str:
    """SHA-256 over the names and bytes of all weights but those of parts named `without`."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        if without and without in name.split("."):
            continue
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def tokens_fingerprint(tokenizer: torch.nn.Module) -> str:
    """Two tokenizers with equal fingerprints give equal tokens: the decoder, which makes none, may go on learning."""
    return weights_fingerprint(tokenizer, without="decoder")


def _facts(tokenizer) -> dict:
    size = "token_dim" if tokenizer.kind == "continuous" else "codebook_size"
    return {"kind": tokenizer.kind, "fingerprint": tokens_fingerprint(tokenizer), "seq_len": tokenizer.seq_len,
            size: getattr(tokenizer, size)}


def cache_tokenizer(folder: str | Path, kind: str) -> str:
    """The one tokenizer of this kind ("discrete" or "continuous") in a cache.

    Raises:
        ValueError: there is none, or more than one.
    """
    tokenizers = read_manifest(Path(folder))["tokenizers"]
    found = [name for name, facts in tokenizers.items() if facts["kind"] == kind]
    if len(found) != 1:
        raise ValueError(f"{folder} holds {len(found)} {kind} tokenizers of {', '.join(tokenizers)}; name one.")
    return found[0]


def read_manifest(folder: Path) -> dict:
    """What a cache says of itself; `ValueError` if there is none."""
    if not (folder / MANIFEST).is_file():
        raise ValueError(f"{folder} holds no token cache; `fluidlab cache` makes one.")
    return json.loads((folder / MANIFEST).read_text(encoding="utf-8"))


class TokenCache:
    """A cache folder, read for one tokenizer.

    Args:
        folder: written by `write_cache`.
        tokenizer: which of its tokens to read; may be left out when there is only one.
    """

    def __init__(self, folder: str | Path, tokenizer: str | None = None):
        folder = Path(folder)
        self.manifest = read_manifest(folder)
        names = tuple(self.manifest["tokenizers"])
        if tokenizer is None and len(names) == 1:
            tokenizer = names[0]
        if tokenizer not in names:
            raise ValueError(f"this cache holds tokens of {', '.join(names)}, got {tokenizer!r}.")
        self.tokenizer, self.kind = tokenizer, self.manifest["tokenizers"][tokenizer]["kind"]
        self.text_dim, self.max_length = self.manifest["text"]["dim"], self.manifest["max_length"]
        self._open(folder / "arrow", tokenizer)

    def _open(self, folder: Path, tokenizer: str) -> None:
        """Zero-copy NumPy views of the memory-mapped columns, one per record batch."""
        from datasets import load_from_disk
        table = load_from_disk(str(folder)).data.table
        self._texts, self._tokens, self._lengths, self._first = [], [], [], [0]
        for batch in table.to_batches():
            text = batch.column("text")
            offsets = text.offsets.to_numpy()                                                  # (rows + 1,)
            self._texts.append((text.values.to_numpy(), offsets))
            tokens = batch.column(tokenizer)
            self._tokens.append(_flat(tokens).reshape(len(tokens), *self._token_shape(batch.schema, tokenizer)))
            self._lengths.append(batch.column("length").to_numpy())
            self._first.append(self._first[-1] + batch.num_rows)

    def _token_shape(self, schema, tokenizer: str) -> tuple:
        column = schema.field(tokenizer).type
        return tuple(column.shape) if self.kind == "continuous" else (column.list_size,)

    def __len__(self) -> int:
        return self._first[-1]

    def model_facts(self) -> dict:
        """What a `ModelConfig` must say to fit: seq_len, text_dim, and token_dim or codebook_size."""
        facts = self.manifest["tokenizers"][self.tokenizer]
        return {"text_dim": self.text_dim, **{k: v for k, v in facts.items() if k not in ("kind", "fingerprint")}}

    def facts(self) -> dict:
        """Which images these are: how many, and of what."""
        return {"images": self.manifest["num_images"], "source": self.manifest["source"]}

    def fingerprints(self) -> dict[str, str]:
        """Of the tokenizer and the text encoder that made what is read: a model belongs to these and to no others."""
        return {"tokenizer": self.manifest["tokenizers"][self.tokenizer]["fingerprint"],
                "text_encoder": self.manifest["text"]["fingerprint"]}

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """One image: its tokens (N, C) float16 or (N,) int32, and its text features (length, E) float16."""
        if not 0 <= index < len(self):
            raise IndexError(f"index must be from 0 to {len(self) - 1}, got {index}.")
        chunk = int(np.searchsorted(self._first, index, side="right")) - 1
        row = index - self._first[chunk]
        values, offsets = self._texts[chunk]
        return self._tokens[chunk][row], values[offsets[row]:offsets[row + 1]].reshape(-1, self.text_dim)

    def gather(self, indices) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens (B, N, C) float or (B, N) long, features (B, S, E) float32, mask (B, S); S is the cache's longest."""
        rows = [self[int(i)] for i in indices]
        tokens = torch.from_numpy(np.stack([t for t, _ in rows]))
        features = np.zeros((len(rows), max(self.max_length, 1), self.text_dim), np.float32)
        mask = np.zeros(features.shape[:2], bool)
        for i, (_, text) in enumerate(rows):
            features[i, :len(text)], mask[i, :len(text)] = text, True
        tokens = tokens.float() if self.kind == "continuous" else tokens.long()
        return tokens, torch.from_numpy(features), torch.from_numpy(mask)

    def batch(self, step: int, batch_size: int, seed: int = 0,
              rows: range | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """The batch of one training step: each epoch is a new permutation, and step n needs no step before it.

        Args:
            rows: the places in the batch that are wanted, for example this process's; None = all.
        """
        places = step * batch_size + np.asarray(range(batch_size) if rows is None else rows)
        epochs, order = places // len(self), places % len(self)
        indices = np.empty_like(places)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            indices[here] = self._permutation(seed, int(epoch))[order[here]]
        return self.gather(indices)

    def _permutation(self, seed: int, epoch: int) -> np.ndarray:
        if getattr(self, "_shuffled", (None,))[0] != (seed, epoch):
            g = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
            self._shuffled = ((seed, epoch), torch.randperm(len(self), generator=g).numpy())
        return self._shuffled[1]


def _flat(column) -> np.ndarray:
    """All numbers of a (nested) list column, without copying."""
    while hasattr(column, "storage"):
        column = column.storage
    while hasattr(column, "flatten") and hasattr(column, "values"):
        column = column.flatten()
    return column.to_numpy()
