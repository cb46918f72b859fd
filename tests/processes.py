"""Several processes in a test: forked, so that they start in milliseconds, and meeting in a file."""

import json
import os
import traceback

import torch
import torch.distributed as dist

from fluidlab.train.parallel import join


def in_processes(size: int, work, folder, *, shards: int = 0, timeout: float = 60.0) -> list:
    """`work(world)` in `size` forked gloo processes; the JSON that each returns, by rank.

    A process that fails is an AssertionError with its traceback; one that was killed gives None.
    """
    folder.mkdir(parents=True, exist_ok=True)
    store = folder / f"store-{size}-{shards}-{len(list(folder.iterdir()))}"
    pids = [os.fork() or _child(rank, size, work, store, shards, timeout) for rank in range(size)]
    results = []
    for rank, pid in enumerate(pids):
        _, status = os.waitpid(pid, 0)
        answer = store.with_name(f"{store.name}-{rank}.json")
        assert os.WIFSIGNALED(status) or answer.exists(), f"process {rank} ended with {status} and said nothing"
        results.append(json.loads(answer.read_text()) if answer.exists() else None)
    for rank, result in enumerate(results):
        assert result is None or "error" not in result, f"process {rank}: {result['error']}"
    return [result and result["value"] for result in results]


def _child(rank: int, size: int, work, store, shards: int, timeout: float):
    torch.set_num_threads(1)
    try:
        world = join(torch.device("cpu"), shards=shards, timeout=timeout, store=dist.FileStore(str(store), size),
                     rank=rank, world_size=size)
        result = {"value": work(world)}
        world.close()
    except BaseException:
        result = {"error": traceback.format_exc()}
    answer = store.with_name(f"{store.name}-{rank}.json")
    answer.write_text(json.dumps(result))
    os._exit(0)
