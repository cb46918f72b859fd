"""The allocator is asked, and a training step no longer faults its memory in again."""

import resource
import subprocess
import sys

import pytest

CODE = """
import resource, sys, torch
from fluidlab.train.memory import keep_freed_memory
kept = keep_freed_memory() if sys.argv[1] == "keep" else None
def step():
    return len([torch.ones(2_000_000) for _ in range(12)])     # 12 blocks of 8 MB, together, as activations are
step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    step()
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks glibc")
def test_freed_memory_is_kept():
    """Pages that ten steps fault in: thousands without, hardly any with. A process each, since asking lasts."""
    said = [subprocess.run([sys.executable, "-c", CODE, word], stdout=subprocess.PIPE, text=True, check=True)
            .stdout.split() for word in ("plain", "keep")]
    assert said[1][0] == "True"
    plain, kept = int(said[0][1]), int(said[1][1])
    page = resource.getpagesize()
    assert plain * page > 100e6 and kept * page < 10e6, (plain, kept)
