"""The next batches, made ready by a thread while the model computes; and how many images a second a loader gives.

It knows of a data set only that it has `.batch`. Notice that nothing is announced: a training asks for the same rows
in every step, so what it asks next is known after the first, and a wrong guess costs time and never a wrong batch.
"""

import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import torch
from torch import Tensor

from fluidlab.config import check_range


class Request(NamedTuple):
    step: int
    batch_size: int
    seed: int
    rows: range | None


class Prefetcher:
    """A data set whose `.batch` gives the very same batches, read ahead in a thread. A context manager.

    Everything else (length, facts, fingerprints ...) is the data set's own.

    Args:
        data: with `.batch(step, batch_size, seed, rows) -> tensors`.
        depth: batches read ahead, at least 1; with micro-batches, those.
        pin: page-locked memory, from which a GPU copies while it computes; None = if there is CUDA.
    """

    def __init__(self, data, depth: int = 4, pin: bool | None = None):
        check_range("depth", depth, 1, kind=int)
        self.data, self.depth = data, depth
        self.pin = torch.cuda.is_available() if pin is None else pin
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="fluidlab-prefetch")
        self._ahead: deque[tuple[Request, Future]] = deque()
        self._step, self._rows = None, []           # the step asked for, and the rows asked for in each step

    def batch(self, step: int, batch_size: int, seed: int = 0, rows: range | None = None) -> tuple[Tensor, ...]:
        """What `data.batch` gives, and its exceptions.

        Raises:
            ValueError: the prefetcher is closed.
        """
        if self._thread is None:
            raise ValueError("this prefetcher is closed; make a new one.")
        request = Request(step, batch_size, seed, rows)
        self._learn(request)
        if not self._ahead or self._ahead[0][0] != request:
            self._forget()
            self._ahead.append((request, self._thread.submit(self._read, request)))
        _, batch = self._ahead.popleft()
        last = self._ahead[-1][0] if self._ahead else request
        while len(self._ahead) < self.depth:
            last = self._after(last)
            self._ahead.append((last, self._thread.submit(self._read, last)))
        return batch.result()

    def _read(self, request: Request) -> tuple[Tensor, ...]:
        batch = self.data.batch(*request)
        return tuple(t.pin_memory() for t in batch) if self.pin else batch

    def _learn(self, request: Request) -> None:
        """Which rows a step asks for, in their order: micro-batches come one by one."""
        if request.step != self._step and self._rows[:1] != [request.rows]:
            self._rows = []
        if request.rows not in self._rows:
            self._rows.append(request.rows)
        self._step = request.step

    def _after(self, request: Request) -> Request:
        """What will be asked for after this."""
        place = self._rows.index(request.rows) + 1 if request.rows in self._rows else 0
        if place % len(self._rows):
            return request._replace(rows=self._rows[place])
        return request._replace(step=request.step + 1, rows=self._rows[0])

    def _forget(self) -> None:
        for _, batch in self._ahead:
            batch.cancel()
        self._ahead.clear()

    def close(self) -> None:
        """Wait for the batch that is being read, drop the others and end the thread; closing again does nothing."""
        if self._thread is not None:
            self._forget()
            self._thread.shutdown(wait=True, cancel_futures=True)
            self._thread = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def __len__(self) -> int:
        return len(self.data)

    def __getattr__(self, name: str):
        if name == "data":                          # not yet set: a copy that is just being made
            raise AttributeError(name)
        return getattr(self.data, name)


def throughput(data, batch_size: int, seconds: float = 2.0) -> tuple[float, float]:
    """Images that `data.batch` gives in a second, and in a second of one core's time, which other programs do not eat.

    One batch before is not counted.
    """
    data.batch(0, batch_size)
    start, cpu, steps = time.perf_counter(), time.process_time(), 0
    while not steps or time.perf_counter() - start < seconds:
        steps += 1
        data.batch(steps, batch_size)
    images = steps * batch_size
    return images / (time.perf_counter() - start), images / max(time.process_time() - cpu, 1e-9)
