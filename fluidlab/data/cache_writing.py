"""Tokens and text features computed once and written shard by shard: stop it anywhere, and it goes on with the next.

It knows tokenizers and encoders only by what they promise. Several processes may write one cache, each its own part;
whoever finishes last writes the manifest. Text features are kept without padding. Notice that nothing is locked:
every file is written beside its place and renamed, and the same shard written twice has the same bytes.
"""

import contextlib
import hashlib
import json
import os
import uuid
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from fluidlab.config import check_range
from fluidlab.data.shards import (
    MAKING,
    MANIFEST,
    PLAN,
    SHARDS,
    cache_id,
    is_whole,
    missing_shards,
    num_shards,
    read_facts,
    shard_path,
    shard_rows,
    write_json_whole,
    write_shard,
)

SHARD_SIZE = 8192                            # 50 MB at 64 pixels; one shard is held in memory while it is written


def write_cache(folder: str | Path, source, num_images: int, tokenizers: dict, text_encoder, *, batch_size: int = 256,
                shard_size: int = SHARD_SIZE, part: int = 0, parts: int = 1, description: dict | None = None,
                progress: bool = True) -> Path:
    """Encode the first `num_images` of a source and write the cache, or what is missing of it.

    Args:
        folder: to be made; an existing cache of the same making is kept or continued, of another is refused.
        source: with `.batch(indices) -> (uint8 (B, 3, H, W), captions)`. What it leaves out of a batch is left out of
            the cache: then `num_images` is how many there are at most.
        tokenizers: name -> tokenizer.  text_encoder: prompts -> features (B, S, E), mask (B, S).
        batch_size: images encoded at once.  shard_size: images of a shard; a whole one is held in memory.
        part, parts: of several processes, this one writes shards part, part + parts, ...; see `missing_shards`.
        description: JSON facts of the source (split, seed, size ...) kept in the manifest.

    Raises:
        ValueError: the folder holds another cache or something else, a number is out of its range, or features or
            tokens are not finite in float16.
    """
    for name, value in (("num_images", num_images), ("batch_size", batch_size), ("shard_size", shard_size),
                        ("parts", parts)):
        check_range(name, value, 1, kind=int)
    check_range("part", part, 0, parts - 1, kind=int)
    folder = Path(folder)
    plan = {"num_images": num_images, "shard_size": shard_size,
            "tokenizers": {n: _facts(t) for n, t in tokenizers.items()}, "source": description or {},
            "text": {"dim": text_encoder.dim, "fingerprint": text_encoder.fingerprint()}}
    plan = _join(folder, json.loads(json.dumps(plan)))                  # as JSON gives it back: lists, not tuples
    if "shard_size" not in plan:                                        # a whole cache of the first layout
        return folder
    cache = cache_id(plan)
    mine = range(part, num_shards(plan), parts)
    todo = [k for k in mine if not is_whole(folder, cache, k)]
    with torch.no_grad(), tqdm(total=sum(len(shard_rows(num_images, plan["shard_size"], k)) for k in todo),
                               desc="cache", unit="image", disable=not progress or not todo) as bar:
        for k in todo:
            rows = shard_rows(num_images, plan["shard_size"], k)
            if not is_whole(folder, cache, k):                          # another process may have been faster
                encoded = _encode(source, rows, tokenizers, text_encoder, batch_size, bar)
                with _unless_there(lambda k=k: is_whole(folder, cache, k)):
                    write_shard(shard_path(folder, k), cache, k, *encoded)
    with _unless_there((folder / MANIFEST).exists):
        _finish(folder, plan, rewritten=bool(todo))
    return folder


@contextlib.contextmanager
def _unless_there(done):
    """A process that finishes the cache clears all unfinished files away; whoever wrote one needs it no more."""
    try:
        yield
    except FileNotFoundError:
        if not done():
            raise


def _join(folder: Path, plan: dict) -> dict:
    """The plan of the folder, which is this one if the folder is new.

    A cache of the same making that is whole keeps its own shard size.

    Raises:
        ValueError: the folder holds another cache, one begun with other shards, or other files.
    """
    if not (folder / MANIFEST).exists() and not (folder / PLAN).exists():
        (folder / SHARDS).mkdir(parents=True, exist_ok=True)
        strangers = sorted(p.name for p in folder.iterdir() if not p.name.startswith((SHARDS, PLAN, MANIFEST, ".")))
        if strangers:
            raise ValueError(f"{folder} holds {strangers[0]} and no token cache; name a new folder or an empty one.")
        _publish(folder / PLAN, plan)
    whole = (folder / MANIFEST).exists()
    found = json.loads((folder / (MANIFEST if whole else PLAN)).read_text(encoding="utf-8"))
    if any(found.get(name) != plan[name] for name in MAKING):
        raise ValueError(f"{folder} holds another cache ({found['num_images']} images of {found['source']}); "
                         f"name a new folder or remove it.")
    if not whole and found["shard_size"] != plan["shard_size"]:
        raise ValueError(f"{folder} holds a cache begun with shards of {found['shard_size']} images, got "
                         f"{plan['shard_size']}; give the same shard_size or name a new folder.")
    return {name: found[name] for name in (*MAKING, "shard_size") if name in found}


def _publish(path: Path, plan: dict) -> None:
    """Write the plan unless another process just did: a hard link is made by one of them only."""
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}.part")
    try:
        write_json_whole(temporary, plan)
        os.link(temporary, path)
    except FileExistsError:
        pass
    except OSError:                          # a file system without hard links; every shard still names its cache
        if not path.exists():
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _finish(folder: Path, plan: dict, rewritten: bool) -> None:
    """Write the manifest if all shards are there and it is not, and clear away what stopped processes left."""
    if (folder / MANIFEST).exists() and not rewritten or missing_shards(folder):
        return
    shards = [read_facts(folder, k) for k in range(num_shards(plan))]
    for facts in shards:
        facts.pop("cache")
    write_json_whole(folder / MANIFEST, {**plan, "cache": cache_id(plan), "shards": shards,
                                         "max_length": max(facts["max_length"] for facts in shards)})
    for left in (*folder.glob("*.part"), *(folder / SHARDS).glob("*.part")):
        left.unlink(missing_ok=True)


def _encode(source, rows: range, tokenizers: dict, text_encoder, batch_size: int,
            bar) -> tuple[dict, np.ndarray, np.ndarray]:
    """Tokens by tokenizer, text features (T, E) and lengths (R,) of some images."""
    tokens, text, lengths = {name: [] for name in tokenizers}, [], []
    for start in range(rows.start, rows.stop, batch_size):
        indices = range(start, min(start + batch_size, rows.stop))
        images, captions = source.batch(indices)
        bar.update(len(indices))
        if not captions:
            continue
        pixels = images.float() / 127.5 - 1                                                # (B, 3, H, W)
        features, mask = text_encoder(captions)                                            # (B, S, E), (B, S)
        text.append(_without_padding(features.cpu(), mask.cpu(), captions))
        lengths.append(mask.sum(1).cpu().numpy())
        for name, tokenizer in tokenizers.items():
            tokens[name].append(_stored(tokenizer.encode(pixels).cpu(), name, captions))
    if not lengths:                                                     # every picture of this shard is broken
        return {n: _no_tokens(t) for n, t in tokenizers.items()}, np.empty((0, text_encoder.dim), np.float16), ()
    return {n: np.concatenate(parts) for n, parts in tokens.items()}, np.concatenate(text), np.concatenate(lengths)


def _no_tokens(tokenizer) -> np.ndarray:
    """The tokens of no image, as they are kept."""
    if tokenizer.kind == "discrete":
        return np.empty((0, tokenizer.seq_len), np.int32)
    return np.empty((0, tokenizer.seq_len, tokenizer.token_dim), np.float16)


def _without_padding(features: Tensor, mask: Tensor, captions) -> np.ndarray:
    """Features (T, E) in float16 of the real text tokens alone, row behind row.

    Raises:
        ValueError: one is not finite in float16, as large T5 encoders run in float16 are known to give.
    """
    text = features[mask].half()                                                           # (T, E)
    finite = text.isfinite().all(1)
    if not finite.all():
        worst = mask.nonzero()[:, 0][~finite][0].item()
        raise ValueError(f"the text features of {captions[worst]!r} are not finite in float16 (the largest is "
                         f"{features[worst][mask[worst]].abs().max():.4g}, allowed are up to 65504); run the text "
                         f"encoder in float32.")
    return text.numpy()


def _stored(tokens: Tensor, name: str, captions: list[str]) -> np.ndarray:
    """Tokens as they are kept: float16 (B, N, C) or int32 (B, N)."""
    if tokens.ndim == 2:
        return tokens.int().numpy()
    kept = tokens.half()
    finite = kept.isfinite().flatten(1).all(1)
    if not finite.all():
        worst = (~finite).nonzero()[0].item()
        raise ValueError(f"the {name} tokens of the image {captions[worst]!r} are not finite in float16 (the largest "
                         f"is {tokens[worst].abs().max():.4g}, allowed are up to 65504).")
    return kept.numpy()


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
