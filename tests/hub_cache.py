"""A Hugging Face cache made by hand, in the layout that huggingface_hub reads, and the exceptions that it raises."""

from pathlib import Path

from huggingface_hub.utils import httpx

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def put_into_cache(cache: Path, repo: str, fill, revision: str = "main", commit: str = COMMIT) -> Path:
    """Make a snapshot of `repo` in a cache; `fill(folder)` writes its files. Returns the snapshot's folder."""
    root = cache / f"models--{repo.replace('/', '--')}"
    snapshot = root / "snapshots" / commit
    snapshot.mkdir(parents=True)
    fill(snapshot)
    ref = root / "refs" / revision
    ref.parent.mkdir(parents=True, exist_ok=True)
    ref.write_text(commit)
    return snapshot


def answer(status: int) -> httpx.Response:
    """What the hub answers a request with."""
    return httpx.Response(status, request=httpx.Request("GET", "https://huggingface.co/api/models/x/y"))
