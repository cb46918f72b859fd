"""Seconds, and what the machine could do: both measured in the same run, so that only their ratio needs to be believed.

What to notice: whatever is compared is timed in turn, round after round, and a median is taken. A machine that slows
down half-way slows all of them.
"""

import statistics
import time
from collections.abc import Callable, Mapping

import torch
from torch.utils.flop_counter import FlopCounterMode


def seconds_of(functions: Mapping[str, Callable[[], object]], repeats: int = 3, warm: bool = True) -> dict[str, float]:
    """Median seconds of a call of each, called in turn; with `warm`, after a first call that is not counted."""
    for call in functions.values() if warm else ():
        call()
    found = {name: [] for name in functions}
    for _ in range(repeats):
        for name, call in functions.items():
            start = time.perf_counter()
            call()
            found[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in found.items()}


def measured(functions: Mapping[str, Callable[[], object]], repeats: int = 3) -> dict[str, tuple[float, int]]:
    """Median seconds of a call of each, called in turn, and its operations, counted during a first call of each."""
    flops = {name: flops_of(call) for name, call in functions.items()}
    seconds = seconds_of(functions, repeats, warm=False)
    return {name: (seconds[name], flops[name]) for name in functions}


def peak_flops(dtype: torch.dtype = torch.float32, side: int = 1536, repeats: int = 5) -> float:
    """Operations a second of a large matrix product on all threads: the limit that nothing here can pass."""
    a, b = (torch.randn(side, side).to(dtype) for _ in range(2))
    return 2 * side ** 3 / seconds_of({"product": lambda: a @ b}, repeats)["product"]


def flops_of(call: Callable[[], object]) -> int:
    """Operations of a call, as PyTorch counts them (a multiply-add is 2)."""
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()
