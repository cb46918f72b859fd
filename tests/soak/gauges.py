"""What a process holds, read from the system: memory, threads, open files."""

import gc
import os
import threading
from dataclasses import dataclass

import psutil


@dataclass(frozen=True)
class Held:
    """rss: resident memory in MB.  threads: of the system.  python_threads: of those, Python's.  files: open ones."""

    rss: float
    threads: int
    python_threads: int
    files: int


def held() -> Held:
    """What this process holds now, after Python has let go of what it can."""
    gc.collect()
    process = psutil.Process()
    return Held(process.memory_info().rss / 1e6, process.num_threads(), threading.active_count(),
                len(os.listdir("/proc/self/fd")))


def slope(minutes: list[float], values: list[float]) -> float:
    """Growth a minute: the least-squares line through the later two thirds, since a process first fills its caches."""
    start = len(minutes) // 3
    x, y = minutes[start:], values[start:]
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    return sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / sum((a - mean_x) ** 2 for a in x)
