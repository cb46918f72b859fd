"""Shards read from anywhere that fsspec reaches (https, s3, gs, hf, another folder), a few of them kept on disk.

It does not know in which order rows are wanted. Notice that every byte is compared with the manifest's SHA-256 when it
arrives, that a fetch is tried again before a long training is given up, and that a shard's place is made free before
the next one is fetched.
"""

import json
import tempfile
import threading
import time
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from fluidlab.data.shards import MANIFEST, SHARDS, Shard, open_shard, sha256, shard_path
from fluidlab.hub import hub_failure, split_name

TRIES = 4                                    # of one fetch, 1, 2 and 4 seconds apart
HUB = "hf://datasets/"
REMEDY = "check the address, the network and your access rights"


def is_url(place: str | Path) -> bool:
    return "://" in str(place)


def file_system(url: str):
    """The fsspec file system of an address, and the path in it.

    Raises:
        ValueError: there is no such protocol, or a package that it needs is missing.
    """
    import fsspec
    try:
        return fsspec.core.url_to_fs(url)
    except (ValueError, ImportError) as error:
        raise ValueError(f"{url} cannot be reached ({error}); install what the protocol needs or copy the cache "
                         f"to a folder.") from None


def fetch(file_system, remote: str, local: Path, url: str) -> None:
    """Copy a file here, trying again when the connection fails.

    Raises:
        ValueError: it is not there, may not be read, or did not come in TRIES tries.
    """
    for attempt in range(TRIES):
        try:
            return file_system.get_file(remote, str(local))
        except (FileNotFoundError, PermissionError) as error:
            raise _unread(url, error, "") from error
        except Exception as error:           # every protocol's client has exceptions of its own
            local.unlink(missing_ok=True)
            if attempt == TRIES - 1 or type(error).__name__ == "OfflineModeIsEnabled":
                raise _unread(url, error, f" in {attempt + 1} tries") from error
            time.sleep(2 ** attempt)


def _unread(url: str, error: Exception, tries: str) -> ValueError:
    """The sentence for a file that did not come; about the hub, as the hub room writes it."""
    if url.startswith(HUB):
        repo, _, revision = split_name("/".join(url.removeprefix(HUB).split("/")[:2]))
        return hub_failure(error, "token cache", url, repo=repo, revision=revision, kind="dataset")
    return ValueError(f"{url} could not be read{tries} ({type(error).__name__}: {error}); {REMEDY}.")


def remote_manifest(url: str) -> dict:
    """The manifest of a cache at an address.

    Raises:
        ValueError: there is none, it cannot be reached, or it is of the layout without shards.
    """
    fs, path = file_system(url)
    with tempfile.TemporaryDirectory(prefix="fluidlab-") as folder:
        local = Path(folder) / MANIFEST
        fetch(fs, f"{path.rstrip('/')}/{MANIFEST}", local, f"{url.rstrip('/')}/{MANIFEST}")
        try:
            manifest = json.loads(local.read_text(encoding="utf-8"))
        except ValueError as error:          # a login page in its place, for one
            raise ValueError(f"{url.rstrip('/')}/{MANIFEST} is no JSON ({error}); {REMEDY}.") from error
    if "shards" not in manifest:
        raise ValueError(f"{url} is a cache of the layout without shards, which cannot be streamed; copy it to a "
                         f"folder or write it again.")
    return manifest


class ShardStream:
    """The shards of a cache at an address, as `stream[k]`; the needed ones lie on disk, memory-mapped.

    Args:
        url: of the cache.  manifest: its own.  tokenizer: whose tokens.
        window: at most so many shards on disk, at least 1.  ahead: so many more, fetched before they are needed.
    """

    def __init__(self, url: str, manifest: dict, tokenizer: str, window: int, ahead: int = 0):
        self.url, self.manifest, self.tokenizer = url.rstrip("/"), manifest, tokenizer
        self.room, self.ahead = window + ahead, ahead
        self._fs, path = file_system(url)
        self._path = path.rstrip("/")
        self._kept: OrderedDict[int, Future] = OrderedDict()            # the one used longest ago comes first
        self._lanes, self._following, self._batch = {}, (), set()       # which shards are to be spared
        self._lock = threading.Lock()
        self._threads = ThreadPoolExecutor(max(1, min(ahead, 4)), thread_name_prefix="fluidlab-stream")
        self._scratch = tempfile.TemporaryDirectory(prefix="fluidlab-stream-")     # removed with this object
        self.folder = Path(self._scratch.name)
        (self.folder / SHARDS).mkdir()

    def __getitem__(self, index: int) -> Shard:
        with self._lock:
            shard = self._asked(index)
            self._kept.move_to_end(index)
        try:
            return shard.result()
        except BaseException:
            with self._lock:
                if self._kept.get(index) is shard:
                    del self._kept[index]                               # the next time it is fetched anew
            raise

    def in_turn(self, shards: list[int]):
        """The shards that a batch needs, one by one; each is done with when the next is asked for."""
        for place, k in enumerate(shards):
            self._batch = set(shards[place:])
            yield self[k]
        self._batch = set()

    def expect(self, lanes: dict[int, tuple[int, int, int]]) -> None:
        """Keep what lanes read now: lane -> its shard, its next one, and the batches until then. Others stand still."""
        with self._lock:
            self._lanes.update(lanes)

    def fetch_ahead(self) -> None:
        """Begin to fetch the `ahead` next shards that are needed soonest, and remove what no lane needs; at once."""
        with self._lock:
            soonest = sorted((batches, lane, shard) for lane, (_, shard, batches) in self._lanes.items())
            self._following = [shard for _, _, shard in soonest[:self.ahead]]
            for k in self._kept.keys() - self._expected:
                self._remove(k)
            for k in self._following:
                self._asked(k)

    @property
    def _expected(self) -> set[int]:
        return {*(now for now, _, _ in self._lanes.values()), *self._following}

    def _asked(self, index: int) -> Future:
        if index not in self._kept:
            while len(self._kept) >= self.room:
                self._make_room()
            self._kept[index] = self._threads.submit(self._fetched, index)
        return self._kept[index]

    def _make_room(self) -> None:
        """Remove the shard used longest ago that neither batch nor lane needs; else one that the batch does not."""
        for spared in (self._batch | self._expected, self._batch, ()):
            oldest = next((k for k in self._kept if k not in spared), None)
            if oldest is not None:
                return self._remove(oldest)

    def _remove(self, index: int) -> None:
        shard = self._kept.pop(index)
        if not shard.cancel() and shard.exception() is None:            # views still in use stay valid
            shard_path(self.folder, index).unlink()

    def _fetched(self, index: int) -> Shard:
        local, facts = shard_path(self.folder, index), self.manifest["shards"][index]
        url = f"{self.url}/{SHARDS}/{local.name}"
        fetch(self._fs, f"{self._path}/{SHARDS}/{local.name}", local, url)
        size, digest = local.stat().st_size, sha256(local)
        if (size, digest) != (facts["bytes"], facts["sha256"]):
            local.unlink()
            raise ValueError(f"{url} is not what its manifest says: {size} bytes with SHA-256 {digest[:12]}, not "
                             f"{facts['bytes']} with {facts['sha256'][:12]}; copy the cache there again.")
        return open_shard(local, self.manifest, index, self.tokenizer)

    def close(self) -> None:
        """Forget all shards, end the threads and remove the folder they lay in."""
        self._threads.shutdown(wait=True, cancel_futures=True)
        self._kept.clear()
        self._scratch.cleanup()
