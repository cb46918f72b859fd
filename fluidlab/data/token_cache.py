"""Tokens and text features computed once, read while training: memory-mapped from a folder, or streamed.

Training never sees an image, a tokenizer or a text encoder: it reads this. One cache can hold the tokens of several
tokenizers for the same images (that is how four variants are trained on the same pictures), and it knows which
tokenizers, encoder and source made it and refuses to be mixed with others. Writing is `cache_writing.py`, a file
`shards.py`, the order of rows `shuffle.py`.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fluidlab.config import check_range, check_type
from fluidlab.data.cache_writing import tokens_fingerprint, weights_fingerprint, write_cache
from fluidlab.data.shards import (
    AGAIN,
    MANIFEST,
    PLAN,
    Shard,
    missing_shards,
    open_shard,
    sha256,
    shard_path,
    views,
    what_is_missing,
)
from fluidlab.data.shuffle import FullShuffle, WindowShuffle
from fluidlab.data.streaming import ShardStream, is_url, remote_manifest
from fluidlab.whole import read_json

__all__ = ["MANIFEST", "TokenCache", "cache_tokenizer", "missing_shards", "read_manifest", "tokens_fingerprint",
           "weights_fingerprint", "what_is_missing", "write_cache"]
WINDOW = 4                                   # shards whose rows a stream mixes
SMALL = 2 ** 13                              # numbers of a text with its padding; measured on one core


def cache_tokenizer(folder: str | Path, kind: str) -> str:
    """The one tokenizer of this kind ("discrete" or "continuous") in a cache.

    Raises:
        ValueError: there is none, or more than one.
    """
    tokenizers = read_manifest(folder)["tokenizers"]
    found = [name for name, facts in tokenizers.items() if facts["kind"] == kind]
    if len(found) != 1:
        raise ValueError(f"{folder} holds {len(found)} {kind} tokenizers of {', '.join(tokenizers)}; name one.")
    return found[0]


def read_manifest(folder: str | Path) -> dict:
    """What a cache, in a folder or at an address, says of itself.

    Raises:
        ValueError: there is none, or shards are still missing; which, is said.
    """
    if is_url(folder):
        return remote_manifest(str(folder))
    folder = Path(folder)
    if (folder / MANIFEST).is_file():
        return read_json(folder / MANIFEST, "tokenizers", "text", "source", "max_length")
    if not (folder / PLAN).is_file():
        raise ValueError(f"{folder} holds no token cache; `fluidlab cache` makes one.")
    raise ValueError(f"{folder} holds no token cache that is complete: {what_is_missing(folder)}; `fluidlab cache` "
                     f"with the same options goes on with it.")


class TokenCache:
    """A cache, read for one tokenizer.

    Args:
        folder: written by `write_cache`, or an address of such a folder that fsspec knows (then stream=True).
        tokenizer: which of its tokens to read; may be left out when there is only one.
        stream: fetch shards when they are needed and keep the window's on disk, instead of memory-mapping all.
        window: mix the rows of so many shards at a time, instead of all rows; a stream's default is 4. A multiple of
            the number of processes lets each fetch its own shards alone (`WindowShuffle`).
        ahead: shards that a stream fetches in threads before they are needed, and keeps on disk besides: 0 is least
            disk and a stop at every shard's end, `window` is no stop if the connection is as fast as training.

    Raises:
        ValueError: there is no complete cache, it has no such tokenizer, a shard is missing, cut short or another's,
            or the address cannot be reached.
    """

    def __init__(self, folder: str | Path, tokenizer: str | None = None, *, stream: bool = False,
                 window: int | None = None, ahead: int = 0):
        check_type("folder", folder, (str, Path), "a path or an address")
        if is_url(folder) and not stream:
            raise ValueError(f"{folder} is an address, which is read with stream=True; got stream=False.")
        window = WINDOW if stream and window is None else window
        if window is not None:
            check_range("window", window, 1, kind=int)
            check_range("ahead", ahead, 0, window if stream else 0, kind=int)
        self.place, self.window = folder, window
        self.manifest = remote_manifest(str(folder)) if stream else read_manifest(folder)
        names = tuple(self.manifest["tokenizers"])
        if tokenizer is None and len(names) == 1:
            tokenizer = names[0]
        if tokenizer not in names:
            raise ValueError(f"this cache holds tokens of {', '.join(names)}, got {tokenizer!r}.")
        self.tokenizer, self.kind = tokenizer, self.manifest["tokenizers"][tokenizer]["kind"]
        self.text_dim, self.max_length = self.manifest["text"]["dim"], self.manifest["max_length"]
        if stream:
            self._shards = ShardStream(str(folder), self.manifest, tokenizer, window, ahead)
            sizes = [facts["rows"] for facts in self.manifest["shards"]]
        else:
            self._shards = self._opened(Path(folder))
            sizes = [len(shard.tokens) for shard in self._shards]
        self._first = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])              # (shards + 1,)
        self._shuffle = FullShuffle(len(self)) if window is None else WindowShuffle(sizes, window)

    def _opened(self, folder: Path) -> list[Shard]:
        """All shards, memory-mapped; of the layout without shards, the record batches of `datasets`."""
        if "shards" in self.manifest:
            return [open_shard(shard_path(folder, k), self.manifest, k, self.tokenizer)
                    for k in range(len(self.manifest["shards"]))]
        from datasets import load_from_disk  # takes a second to import: only for the first layout
        return [views(batch, self.tokenizer, self.text_dim)
                for batch in load_from_disk(str(folder / "arrow")).data.table.to_batches()]

    def __len__(self) -> int:
        return int(self._first[-1])

    def model_facts(self) -> dict:
        """What a `ModelConfig` must say to fit: seq_len, text_dim, and token_dim or codebook_size."""
        facts = self.manifest["tokenizers"][self.tokenizer]
        return {"text_dim": self.text_dim, **{k: v for k, v in facts.items() if k not in ("kind", "fingerprint")}}

    def facts(self) -> dict:
        """Which images these are, how many, and of what; if not all are mixed, what decides their order."""
        order = {} if self.window is None else {"order": "lanes", "window": self.window,
                                                "shard_size": self.manifest.get("shard_size")}
        return {"images": len(self), "source": self.manifest["source"], **order}

    def fingerprints(self) -> dict[str, str]:
        """Of the tokenizer and the text encoder that made what is read: a model belongs to these and to no others."""
        return {"tokenizer": self.manifest["tokenizers"][self.tokenizer]["fingerprint"],
                "text_encoder": self.manifest["text"]["fingerprint"]}

    def verify(self) -> None:
        """Read every byte of a folder's shards; opening looks at sizes and headers only, a stream at all it fetches.

        Raises:
            ValueError: a shard's SHA-256 is not the manifest's.
        """
        for k, facts in enumerate(self.manifest.get("shards", ())):
            path = shard_path(Path(self.place), k)
            if (digest := sha256(path)) != facts["sha256"]:
                raise ValueError(f"shard {path} has SHA-256 {digest[:12]}, its manifest says {facts['sha256'][:12]}; "
                                 f"remove it, and {AGAIN}.")

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """One image: its tokens (N, C) float16 or (N,) int32, and its text features (length, E) float16."""
        k = int(self._homes(np.array([index]))[0])
        shard, row = self._shards[k], index - self._first[k]
        return shard.tokens[row], shard.text[shard.starts[row]:shard.starts[row + 1]]

    def _homes(self, indices: np.ndarray) -> np.ndarray:
        """The shard of each row."""
        wrong = (indices < 0) | (indices >= len(self))
        if wrong.any():
            raise IndexError(f"index must be from 0 to {len(self) - 1}, got {indices[wrong][0]}.")
        return np.searchsorted(self._first, indices, side="right") - 1

    def gather(self, indices) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens (B, N, C) float or (B, N) long, features (B, S, E) float32, mask (B, S); S is the cache's longest."""
        indices = np.fromiter(indices, np.int64, len(indices))
        B, S = len(indices), max(self.max_length, 1)
        tokens, texts = None, [None] * B
        for shard, places, rows in self._by_shard(indices):
            if tokens is None:
                tokens = np.empty((B, *shard.tokens.shape[1:]), shard.tokens.dtype)
            tokens[places] = shard.tokens[rows]
            starts, ends = shard.starts[rows].tolist(), shard.starts[rows + 1].tolist()
            for place, start, end in zip(places.tolist(), starts, ends, strict=True):
                texts[place] = shard.text[start:end]
        lengths = np.array([len(text) for text in texts])
        mask = np.arange(S) < lengths[:, None]                                             # (B, S)
        tokens = torch.from_numpy(tokens)
        tokens = tokens.float() if self.kind == "continuous" else tokens.long()
        return tokens, padded(texts, S), torch.from_numpy(mask)

    def _by_shard(self, indices: np.ndarray):
        """Each shard that holds some of the rows, with their places and their row numbers in it.

        Shards come as their rows do, so a stream is done with one window before it begins the next.
        """
        homes = self._homes(indices)
        order = np.argsort(homes, kind="stable")
        ends = np.flatnonzero(np.diff(homes[order], append=-1)) + 1                        # (shards that are needed,)
        groups = [order[start:end] for start, end in zip([0, *ends], ends, strict=False)]
        groups.sort(key=lambda places: places[0])
        needed = [int(homes[places[0]]) for places in groups]
        streamed = isinstance(self._shards, ShardStream)
        shards = self._shards.in_turn(needed) if streamed else map(self._shards.__getitem__, needed)
        for shard, k, places in zip(shards, needed, groups, strict=True):
            yield shard, places, indices[places] - self._first[k]

    def batch(self, step: int, batch_size: int, seed: int = 0,
              rows: range | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """The batch of one training step: each epoch is a new order of all rows, and step n needs no step before it.

        Args:
            rows: the places in the batch that are wanted, for example this process's; None = all.
        """
        places = step * batch_size + np.asarray(range(batch_size) if rows is None else rows)
        indices = self._shuffle(seed, places, batch_size)
        if not isinstance(self._shards, ShardStream):
            return self.gather(indices)
        self._shards.expect(self._shuffle.shards_around(seed, places, batch_size))
        batch = self.gather(indices)
        self._shards.fetch_ahead()
        return batch

    def close(self) -> None:
        """Remove what a stream keeps on disk; a folder has nothing to close."""
        if isinstance(self._shards, ShardStream):
            self._shards.close()


def padded(texts: list[np.ndarray], length: int) -> Tensor:
    """Texts (n, E) float16, each of its own n, as one (B, length, E) float32 with zeros behind each.

    Small ones are the faster padded and then made float32, all at once. Of large ones only what is no padding should be
    touched, which copying many parts in one call does, and it makes them float32 on the way.
    """
    B, E = len(texts), texts[0].shape[1]
    if length * E < SMALL:
        features = np.zeros((B, length, E), np.float16)
        for place, text in enumerate(texts):
            features[place, :len(text)] = text
        return torch.from_numpy(features).float()
    features = torch.from_numpy(np.zeros((B * length, E), np.float32))
    lengths = [len(text) for text in texts]
    parts = features.split([n for here in lengths for n in (here, length - here)])
    torch._foreach_copy_(parts[::2], torch.from_numpy(np.concatenate(texts)).split(lengths))
    return features.view(B, length, E)
