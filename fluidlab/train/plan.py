"""Will it fit, and how long will it take? Memory and time of a sharded run, before a single weight is made.

What a device must hold: its shard of the weights, gradients, AdamW's moments and running mean (float32: 20 bytes a
parameter, over all shards), the few layers that are gathered whole at one moment, and the activations of one
micro-batch. What to notice: sharding divides the first, and nothing but a smaller micro-batch or recomputing divides
the last.
"""

import functools
import math
import re
from dataclasses import dataclass

import torch

from fluidlab.config import ModelConfig, check_choice, check_range
from fluidlab.model.cost import activation_bytes, part_counts, training_flops
from fluidlab.model.fluid import Fluid


@dataclass(frozen=True)
class Device:
    """A kind of accelerator: bytes of memory and dense bfloat16 operations a second, as its maker states them."""

    memory: float
    peak: float


DEVICES = {
    "v5e": Device(16e9, 197e12), "v5p": Device(95e9, 459e12), "v6e": Device(32e9, 918e12),
    "a100": Device(80e9, 312e12), "h100": Device(80e9, 989e12), "h200": Device(141e9, 989e12),
}
DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16}
USABLE = 0.92     # of a device's memory: the rest is the runtime's, and fragments
SECONDS_A_DAY = 86_400


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What one device holds, in bytes, and what a step costs. `plan` makes it."""

    config: ModelConfig
    devices: int
    shards: int             # over how many devices the state is split; devices / shards copies learn side by side
    batch_size: int
    micro_batch: int        # images that one device computes at once
    checkpointing: bool
    precision: str
    text_tokens: int
    parameters: int
    weights: int
    gradients: int
    optimizer: int
    ema: int
    gathered: int
    activations: int
    flops: float            # of one step, all devices together

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer + self.ema + self.gathered + self.activations

    @property
    def accumulation(self) -> int:
        """Micro-batches that make a step."""
        return self.batch_size // (self.devices * self.micro_batch)

    def seconds_per_step(self, peak: float, utilisation: float) -> float:
        """At so many operations a second of each device, of which the given share does the model's work.

        Recomputed blocks are work that `flops` does not count, so checkpointing lowers the utilisation to expect.
        """
        return self.flops / (self.devices * peak * utilisation)


def plan(config: ModelConfig, *, devices: int, batch_size: int, shards: int | None = None,
         micro_batch: int | None = None, checkpointing: bool = False, precision: str = "bf16",
         text_tokens: int = 128) -> Plan:
    """Count what a run needs.

    Args:
        config: the model.  devices: how many.  batch_size: images of one optimizer step, over all devices.
        shards: devices that share one copy of the state; default all of them (FSDP), fewer for HSDP.
        micro_batch: images a device computes at once; default its whole share of the batch.
        checkpointing: recompute the backbone's blocks in the backward pass.
        precision: "bf16" or "float32" of the computation; the state is float32 always.
        text_tokens: length of a text, padding included.

    Raises:
        ValueError: numbers that do not divide each other, or are out of range.
    """
    for name, value in (("devices", devices), ("batch_size", batch_size), ("text_tokens", text_tokens)):
        check_range(name, value, 1, kind=int)
    check_choice("precision", precision, tuple(DTYPES))
    shards = devices if shards is None else shards
    check_range("shards", shards, 1, devices, kind=int)
    if devices % shards:
        raise ValueError(f"devices must be a multiple of shards, got {devices} devices and {shards} shards.")
    if batch_size % devices:
        raise ValueError(f"batch_size must be a multiple of the number of devices, got {batch_size} and {devices}.")
    micro_batch = batch_size // devices if micro_batch is None else micro_batch
    check_range("micro_batch", micro_batch, 1, kind=int)
    if batch_size % (devices * micro_batch):
        raise ValueError(f"the {batch_size // devices} images of each device must be a multiple of micro_batch, got "
                         f"{micro_batch}.")
    shard, dtype = _shard_elements(config, shards), DTYPES[precision]
    gathered = 0 if shards == 1 else _gathered(config, dtype.itemsize)
    return Plan(config=config, devices=devices, shards=shards, batch_size=batch_size, micro_batch=micro_batch,
                checkpointing=checkpointing, precision=precision, text_tokens=text_tokens,
                parameters=part_counts(config)["total"], weights=4 * shard, gradients=4 * shard, optimizer=8 * shard,
                ema=4 * shard, gathered=gathered,
                activations=micro_batch * activation_bytes(config, text_tokens, dtype, checkpointing=checkpointing),
                flops=training_flops(config, text_tokens) * batch_size)


def fits(found: Plan, memory: float) -> bool:
    """Whether a device of so many bytes can hold it, with what the runtime needs left free."""
    return found.total <= USABLE * memory


def smallest_change(found: Plan, memory: float) -> tuple[str, Plan] | None:
    """The least that makes a plan fit a device of so many bytes: its name, and the plan with it; None if nothing does.

    Tried in the order of what they cost: a smaller micro-batch (nothing, as long as the device stays busy),
    recomputing (about a third more work), more shards (more communication), more devices (more money).
    """
    share = found.batch_size // found.devices
    smaller = [m for m in range(found.micro_batch - 1, 0, -1) if share % m == 0]
    more = [found.devices * 2 ** k for k in range(1, 16) if found.batch_size % (found.devices * 2 ** k) == 0]
    wider = [s for s in range(found.shards + 1, found.devices + 1) if found.devices % s == 0]
    tries = [{"micro_batch": m} for m in smaller]
    tries += [{"checkpointing": True, "micro_batch": m} for m in (found.micro_batch, *smaller)]
    tries += [{"shards": s, "checkpointing": c, "micro_batch": m} for s in wider for c in (False, True)
              for m in (found.micro_batch, 1)]
    tries += [{"devices": d, "shards": d, "checkpointing": True, "micro_batch": 1} for d in more]
    asked = {"devices": found.devices, "shards": found.shards, "micro_batch": found.micro_batch,
             "checkpointing": found.checkpointing}
    for change in tries:
        other = plan(found.config, batch_size=found.batch_size, precision=found.precision,
                     text_tokens=found.text_tokens, **{**asked, **change})
        if fits(other, memory):
            changed = {name: value for name, value in change.items() if value != asked[name]}
            return ", ".join(f"{name} {'on' if value is True else value}" for name, value in changed.items()), other
    return None


def largest_that_fits(configs: dict[str, ModelConfig], memory: float, *, devices: int, batch_size: int,
                      **options) -> tuple[str, Plan] | None:
    """The largest model that these devices can train, with the least change of a plan that makes it fit.

    Args:
        configs: name -> model, to choose from.  memory: bytes of one device.
        devices, batch_size, options: of `plan`.

    Returns:
        Name and plan, or None if not even the smallest fits.
    """
    for name in sorted(configs, key=lambda name: part_counts(configs[name])["total"], reverse=True):
        found = plan(configs[name], devices=devices, batch_size=batch_size, **options)
        changed = None if fits(found, memory) else smallest_change(found, memory)
        found = found if changed is None else changed[1]
        if fits(found, memory) and found.devices == devices:
            return name, found
    return None


def parse_bytes(text: str) -> float:
    """"32GB" is 32e9 bytes, "32GiB" is 32 x 2**30; also MB, MiB, TB, TiB.

    Raises:
        ValueError: something else.
    """
    found = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([MGT])(i?)B\s*", text)
    if not found or float(found[1]) <= 0:
        raise ValueError(f"a size of memory must look like 32GB or 80GiB, got {text!r}.")
    power = " MGT".index(found[2]) + 1
    return float(found[1]) * (1024 ** power if found[3] else 1000 ** power)


@functools.lru_cache(maxsize=256)
def _shard_elements(config: ModelConfig, shards: int) -> int:
    """Numbers that the first device holds when every parameter is split along its first dimension."""
    with torch.device("meta"):
        shapes = [p.shape for p in Fluid(config.replace(depth=1)).parameters()]
        deeper = [p.shape for p in Fluid(config.replace(depth=2)).parameters()]

    def rows(shape) -> int:
        return math.ceil(shape[0] / shards) * math.prod(shape[1:])
    one = sum(map(rows, shapes))
    return one + (config.depth - 1) * (sum(map(rows, deeper)) - one)


@functools.lru_cache(maxsize=64)
def _gathered(config: ModelConfig, itemsize: int) -> int:
    """Bytes of what is whole at the fullest moment of the backward pass, and of the messages then.

    Of a block: its weights, its gradients, the next block's weights on their way, a float32 sum of the block before.
    Each part of the model keeps its last sum until the pass is done: the head's lies beside the blocks', or, where
    a table of codes embeds too and is reduced at the end, a block's beside the head's.
    """
    counts = part_counts(config.replace(depth=1, aligner_depth=1))
    block = part_counts(config.replace(depth=2, aligner_depth=1))["total"] - counts["total"]
    block, head = max(block, counts["aligner"]), counts["head"]
    return max((3 * itemsize + 4) * block + 4 * head, (2 * itemsize + 4) * head + 4 * block)


def describe(found: Plan) -> dict[str, int]:
    """Name -> bytes of everything a device holds, in the order of a table."""
    names = ("weights", "gradients", "optimizer", "ema", "gathered", "activations", "total")
    return {name: getattr(found, name) for name in names}
