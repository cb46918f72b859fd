"""One shard of a token cache: an Arrow file of some images' tokens and text features, and the facts that prove it.

It does not know tokenizers, training or where a shard came from. Notice that a shard says in its own header which
cache and which place in it are its own, so a swapped or foreign file is refused without reading its rows; `datasets`
opens one too (`Dataset.from_file`). A folder is `plan.json` (what is to be made), `shards/` (a file and its facts
each) and, only when all shards are there, `manifest.json`.
"""

import hashlib
import json
import os
import uuid
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

MANIFEST, PLAN, SHARDS = "manifest.json", "plan.json", "shards"
MAKING = ("num_images", "tokenizers", "source", "text")                 # what two caches must share to be the same
AGAIN = "`fluidlab cache` with the options it was made with writes it again"


@dataclass(frozen=True)
class Shard:
    """Zero-copy views of a file: tokens (R, N, C) or (R, N), text (T, E), and where each row's text begins (R + 1,)."""

    tokens: np.ndarray
    text: np.ndarray
    starts: np.ndarray


def shard_path(folder: Path, index: int) -> Path:
    return folder / SHARDS / f"{index:05d}.arrow"


def shard_rows(num_images: int, shard_size: int, index: int) -> range:
    """The images of one shard: all shards but the last are full."""
    return range(index * shard_size, min((index + 1) * shard_size, num_images))


def num_shards(plan: dict) -> int:
    return -(-plan["num_images"] // plan["shard_size"])


def cache_id(plan: dict) -> str:
    """SHA-256 of all that decides what is in a cache and in each of its shards."""
    facts = {name: plan[name] for name in (*MAKING, "shard_size")}
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def write_json_whole(path: Path, values: dict) -> None:
    """JSON that is there completely or not at all, whenever the process is stopped."""
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}.part")
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(json.dumps(values, indent=2) + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_shard(path: Path, cache: str, index: int, tokens: dict[str, np.ndarray], text: np.ndarray,
                lengths: np.ndarray) -> None:
    """Write a shard and the facts beside it; the facts come last, so a shard without them is none.

    Args:
        cache, index: the `cache_id` and the place in it.
        tokens: by tokenizer: float16 (R, N, C) or int32 (R, N).  text: float16 (T, E), row behind row, no padding.
        lengths: text tokens of each row (R,), T in sum.
    """
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)                    # (R + 1,)
    columns = {"text": pa.ListArray.from_arrays(pa.array(starts), _lists(text)),
               **{name: _lists(values) for name, values in tokens.items()}}
    batch = pa.RecordBatch.from_pydict(columns)
    batch = batch.replace_schema_metadata({"fluidlab": json.dumps({"cache": cache, "shard": index})})
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}.part")
    try:
        with open(temporary, "wb") as file:
            with pa.ipc.new_stream(file, batch.schema) as writer:
                writer.write_batch(batch)
            file.flush()
            os.fsync(file.fileno())
        facts = {"cache": cache, "rows": len(lengths), "bytes": temporary.stat().st_size, "sha256": sha256(temporary),
                 "max_length": int(max(lengths, default=0))}
        os.replace(temporary, path)
        write_json_whole(path.with_suffix(".json"), facts)
    finally:
        temporary.unlink(missing_ok=True)


def _lists(values: np.ndarray) -> pa.Array:
    """(R, N, C) as R lists of N lists of C numbers, (R, C) as R lists of C, without copying."""
    array = pa.array(np.ascontiguousarray(values).reshape(-1))
    for size in reversed(values.shape[1:]):
        array = pa.FixedSizeListArray.from_arrays(array, size)
    return array


def sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_facts(folder: Path, index: int) -> dict | None:
    """What was noted of a finished shard, None if it was not finished."""
    path = shard_path(folder, index).with_suffix(".json")
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def is_whole(folder: Path, cache: str, index: int) -> bool:
    """Whether a shard was finished and is what it was then, as far as can be seen without reading its rows."""
    facts = read_facts(folder, index)
    if facts is None or facts["cache"] != cache:
        return False
    try:
        open_batch(shard_path(folder, index), cache, index, facts)
    except ValueError:
        return False
    return True


def missing_shards(folder: str | Path) -> list[int]:
    """The shards that a cache still lacks, none for a whole one of the first layout.

    Raises:
        ValueError: no cache was begun there.
    """
    folder = Path(folder)
    named = [folder / name for name in (PLAN, MANIFEST) if (folder / name).is_file()]
    if not named:
        raise ValueError(f"{folder} holds no token cache; `fluidlab cache` makes one.")
    plan = json.loads(named[0].read_text(encoding="utf-8"))
    if "shard_size" not in plan:
        return []
    return [k for k in range(num_shards(plan)) if not is_whole(folder, cache_id(plan), k)]


def what_is_missing(folder: str | Path) -> str:
    """Which shards a cache lacks, in words, the first eight by number."""
    plan, missing = json.loads((Path(folder) / PLAN).read_text(encoding="utf-8")), missing_shards(folder)
    if not missing:
        return f"all {num_shards(plan)} shards are there and its manifest is missing"
    names = ", ".join(map(str, missing[:8])) + (" ..." if len(missing) > 8 else "")
    return f"{len(missing)} of {num_shards(plan)} shards are missing ({names})"


def open_batch(path: Path, cache: str, index: int, facts: dict) -> pa.RecordBatch:
    """A shard memory-mapped, after proof that it is the one the manifest speaks of.

    The file's descriptor is closed again, or a thousand shards would use up what a process may have open.

    Raises:
        ValueError: the file is missing, shorter or longer, no Arrow file, of another cache or another place.
    """
    if not path.is_file():
        raise ValueError(f"shard {path} is missing; {AGAIN}.")
    size = path.stat().st_size
    if size != facts["bytes"]:
        raise ValueError(f"shard {path} has {size} bytes, its manifest says {facts['bytes']}; {AGAIN}.")
    try:
        with pa.memory_map(str(path)) as file, pa.ipc.open_stream(file) as reader:
            header = json.loads((reader.schema.metadata or {}).get(b"fluidlab", b"{}"))
            batch = reader.read_next_batch()
    except (pa.ArrowInvalid, OSError, StopIteration, ValueError) as error:
        raise ValueError(f"shard {path} is no Arrow file of a token cache ({error}); {AGAIN}.") from None
    if header.get("cache") != cache:
        raise ValueError(f"shard {path} belongs to another cache ({str(header.get('cache'))[:12]}, not {cache[:12]}); "
                         f"{AGAIN}.")
    if header["shard"] != index or batch.num_rows != facts["rows"]:
        raise ValueError(f"shard {path} is shard {header['shard']} with {batch.num_rows} rows, not shard {index} with "
                         f"{facts['rows']}; {AGAIN}.")
    return batch


def column_types(manifest: dict, tokenizer: str) -> dict[str, pa.DataType]:
    """The columns that are read for a tokenizer, and of what they are."""
    facts = manifest["tokenizers"][tokenizer]
    token = pa.list_(pa.float16(), facts["token_dim"]) if facts["kind"] == "continuous" else pa.int32()
    return {"text": pa.list_(pa.list_(pa.float16(), manifest["text"]["dim"])),
            tokenizer: pa.list_(token, facts["seq_len"])}


def open_shard(path: Path, manifest: dict, index: int, tokenizer: str) -> Shard:
    """A shard memory-mapped for one tokenizer, after the proof of `open_batch` and that of its columns.

    Raises:
        ValueError: it is not the one the manifest speaks of, or holds other columns.
    """
    batch = open_batch(path, manifest["cache"], index, manifest["shards"][index])
    for name, said in column_types(manifest, tokenizer).items():
        found = batch.schema.field(name).type if name in batch.schema.names else None
        if found != said:
            raise ValueError(f"column {name} of shard {path} is of type {found}, its manifest says {said}; {AGAIN}.")
    return views(batch, tokenizer, manifest["text"]["dim"])


def views(batch: pa.RecordBatch, tokenizer: str, text_dim: int) -> Shard:
    """The columns of a record batch for one tokenizer, of this layout or the first one (flat text, Array2D tokens)."""
    text, tokens = batch.column("text"), batch.column(tokenizer)
    starts, values = text.offsets.to_numpy(), _numbers(text.values).reshape(-1, text_dim)
    if not hasattr(text.type.value_type, "list_size"):                  # the first layout counts numbers, not vectors
        starts = starts // text_dim
    return Shard(_numbers(tokens).reshape(len(tokens), *_shape(tokens.type)), values, starts)


def _shape(kind: pa.DataType) -> tuple[int, ...]:
    """Sizes of nested lists of fixed size, outermost first; `datasets`' arrays name theirs."""
    if hasattr(kind, "shape"):
        return tuple(kind.shape)
    return (kind.list_size, *_shape(kind.value_type)) if hasattr(kind, "list_size") else ()


def _numbers(column: pa.Array) -> np.ndarray:
    """All numbers of a (nested) list column, without copying."""
    while hasattr(column, "storage"):
        column = column.storage
    while hasattr(column, "flatten") and hasattr(column, "values"):
        column = column.flatten()
    return column.to_numpy()
