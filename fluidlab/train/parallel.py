"""One model over many devices: torchrun starts the processes, FSDP2 shards the state, and the trainer does not notice.

A `World` is all that training knows of it: which rows of a batch are mine, add this up over all of us, shard that
model. One process is a world too, in which every row is mine and nothing is sent.

What to notice: the four parts of a Fluid are sharded as four units, and inside aligner and backbone each block is one
more. A unit's weights exist whole only while it computes, so a device holds its share of everything and one block.
Written against torch 2.13 and run on gloo; nccl and `torch_tpu` take the same lines and were not run by us.
"""

import os
import warnings
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from fluidlab.config import ModelConfig, TrainConfig, check_choice, check_range
from fluidlab.model.fluid import Fluid
from fluidlab.train.checkpoint import copy_to_cpu

if TYPE_CHECKING:                   # a second of importing that only several processes need
    from torch.distributed.device_mesh import DeviceMesh
    from torch.distributed.fsdp import FSDPModule

# What is called of a part beside `forward`.
METHODS = {"order": ("inputs",), "backbone": ("read",), "head": ("embed", "loss", "sample")}


@dataclass(frozen=True)
class World:
    """This process among all.

    Args:
        rank, size: which process this is, of how many.  device: on which it computes.
        mesh: of all devices, 1-D ("shard") or 2-D ("replicate", "shard"); None = one process, nothing sharded.
        side: a second group of the same processes, on the CPU, for checkpoints written beside the training.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = torch.device("cpu")
    mesh: "DeviceMesh | None" = None
    side: "dist.ProcessGroup | None" = None

    def micro_batches(self, config: TrainConfig) -> list[range]:
        """The rows of the global batch that this process computes, split into what it computes at once.

        Raises:
            ValueError: processes and micro-batches do not divide the batch.
        """
        at_once = config.micro_batch or config.batch_size // self.size
        if at_once == 0 or config.batch_size % (self.size * at_once):
            raise ValueError(f"batch_size must be a multiple of {self.size} processes x micro_batch {at_once or 1}, "
                             f"got {config.batch_size}.")
        share = config.batch_size // self.size
        first = self.rank * share
        return [range(start, start + at_once) for start in range(first, first + share, at_once)]

    def sum(self, x: Tensor) -> Tensor:
        """Added up over all processes, in place."""
        if self.size > 1:
            dist.all_reduce(x)
        return x

    def barrier(self) -> None:
        """Return when all processes have come here."""
        if self.size > 1:
            dist.barrier()

    def prepare(self, model: Fluid, config: TrainConfig) -> Fluid:
        """Recompute, compile and shard in place, as the recipe says; the model's names and shapes stay."""
        blocks = [*model.aligner.blocks, *model.backbone.blocks]
        if config.compile:
            for block in blocks:
                block.forward = torch.compile(block.forward)
        if config.checkpointing:
            for block in model.backbone.blocks:
                block.forward = partial(checkpoint, block.forward, use_reentrant=False)
        if self.mesh is not None:
            shard(model, blocks, self.mesh, config.precision)
        return model

    @property
    def memory(self) -> torch.device:
        """Where weights are when they are first filled."""
        return self.device

    def settle(self, model: Fluid) -> Fluid:
        """What is left to do when the weights are there: nothing, they lie where they are needed."""
        return model

    def spread(self, tensors) -> None:
        """Parts of a run's state lie where they are needed; nothing to do, FSDP2 has made them in shards."""

    def place(self, batch: Tensor) -> Tensor:
        """A batch on this process's device."""
        return batch.to(self.device)

    def optimizer_options(self) -> dict:
        """AdamW's implementation for the device."""
        return {"fused": True}

    def flush(self) -> None:
        """Nothing: operations were carried out when they were called."""

    def read(self, x: Tensor) -> list[float]:
        """Numbers for Python, which waits for them."""
        return x.tolist()

    def copy(self, t: Tensor) -> Tensor:
        """A tensor of the state on the CPU, sharded as before."""
        return copy_to_cpu(t)

    def last_micro_batch(self, model: nn.Module, last: bool) -> None:
        """Gradients are sent around once a step, with its last micro-batch."""
        if self.mesh is not None:
            for unit in units(model):
                unit.set_requires_gradient_sync(last)

    def describe(self) -> str:
        """Where it runs, in words."""
        if self.mesh is None:
            return f"on {self.device.type}"
        shards = self.mesh.size(-1)
        return f"on {self.size} x {self.device.type}, {shards} shards to a copy, {self.size // shards} copies"

    def close(self) -> None:
        if self.size > 1:
            dist.destroy_process_group()


def shard(model: Fluid, blocks: list[nn.Module], mesh: "DeviceMesh", precision: str = "float32") -> None:
    """Split every parameter along its first dimension over the mesh, block by block.

    In bf16 weights travel and compute as bf16, gradients are added up in float32, and the state stays float32. Sums
    are sums: what a mean is taken over is the trainer's business, because random masks give each process another count.
    """
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16 if precision == "bf16" else None,
                                  reduce_dtype=torch.float32, cast_forward_inputs=False)
    for part in (*blocks, model.aligner, model.order, model.head, model.backbone):
        fully_shard(part, mesh=mesh, mp_policy=policy, reshard_after_forward=True)
    for name, methods in METHODS.items():
        for method in methods:
            register_fsdp_forward_method(getattr(model, name), method)
    for block in model.backbone.blocks:
        register_fsdp_forward_method(block, "read")
    for unit in units(model):
        unit.set_gradient_divide_factor(1.0)
        unit.set_force_sum_reduction_for_comms(True)
    # embed and loss of a head return views; nothing here writes into them
    warnings.filterwarnings("ignore", message=r"FSDP2-wrapped module .* returned a view")


def units(model: nn.Module) -> "list[FSDPModule]":
    """The parts of a sharded model that are gathered as one."""
    from torch.distributed.fsdp import FSDPModule
    return [module for module in model.modules() if isinstance(module, FSDPModule)]


def build(config: ModelConfig, recipe: TrainConfig, world: World | None = None) -> Fluid:
    """A model with weights from `recipe.seed`, sharded if there is a world to share it with.

    It is made without memory, split, given memory, and then filled tensor by tensor: a model of any size never exists
    whole in one memory, and the weights are those of any other number of processes.
    """
    world = world or World()
    with torch.device("meta"):
        model = Fluid(config)
    world.prepare(model, recipe).to_empty(device=world.memory)
    torch.manual_seed(recipe.seed)
    model.init_weights()
    return world.settle(model)


def find_device() -> torch.device:
    """The accelerator that PyTorch finds (cuda, xpu, mps, tpu ...), else the CPU."""
    return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")


def start(device: str | torch.device | None = None, *, shards: int = 0, timeout: float = 600.0,
          engine: str = "auto") -> World:
    """The world this process is in: torchrun's, if it was started by it, else its own.

    Args:
        engine: "fsdp", "xla" (torch_xla, one process for all chips), or "auto": xla where it finds a TPU.
        device: "cpu", or the accelerator that is found ("cuda" ...), which None is.
        shards: devices that share one copy of the state; 0 = all.
        timeout: seconds after which a peer that does not answer is given up.

    Raises:
        ValueError: processes or chips are not a multiple of shards, or engine or device are not what is here.
    """
    check_choice("engine", engine, ("auto", "fsdp", "xla"))
    check_range("timeout", timeout, 1, 10 ** 7)
    from fluidlab.train.xla import has_tpu, start_xla
    if engine == "xla" and device is not None:
        raise ValueError(f"engine xla finds its own device (PJRT_DEVICE names another), got device {str(device)!r}.")
    if engine == "xla" or engine == "auto" and device is None and has_tpu():
        return start_xla(shards)
    here = find_device()
    device = here if device is None else device
    check_choice("device", str(device).partition(":")[0], tuple(dict.fromkeys(("cpu", here.type))))
    device = torch.device(device)
    size = int(os.environ.get("WORLD_SIZE", 1))
    if size == 1:
        check_shards("processes", 1, shards)
        return World(device=device)
    local = int(os.environ.get("LOCAL_RANK", 0))
    if device.type not in ("cpu", "tpu"):                                   # a TPU process sees one chip only
        torch.accelerator.set_device_index(local)
        device = torch.device(device.type, local)
    return join(device, shards=shards, timeout=timeout)


def check_shards(what: str, size: int, shards: int) -> int:
    """How many of `size` processes or chips share one copy of the state; 0 = all.

    Raises:
        ValueError: size is not a multiple of shards.
    """
    if shards and size % shards:
        raise ValueError(f"the number of {what} must be a multiple of shards, got {size} and {shards}.")
    return shards or size


def join(device: torch.device, *, shards: int = 0, timeout: float = 600.0, **init) -> World:
    """Meet the other processes: init_process_group, and a mesh of all devices.

    Args:
        init: store, rank and world_size where torchrun's environment does not say them.

    Raises:
        ValueError: the number of processes is not a multiple of shards.
    """
    from torch.distributed.device_mesh import init_device_mesh
    backend = dist.get_default_backend_for_device(device)
    both = backend if device.type == "cpu" else f"cpu:gloo,{device.type}:{backend}"
    dist.init_process_group(both, timeout=timedelta(seconds=timeout), **init)
    size = dist.get_world_size()
    try:
        shards = check_shards("processes", size, shards)
    except ValueError:
        dist.destroy_process_group()
        raise
    mesh = (init_device_mesh(device.type, (size,), mesh_dim_names=("shard",)) if size == shards else
            init_device_mesh(device.type, (size // shards, shards), mesh_dim_names=("replicate", "shard")))
    side = dist.new_group(backend="gloo", timeout=timedelta(seconds=timeout))
    return World(dist.get_rank(), size, device, mesh, side)


def autocast(device: torch.device, precision: str):
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()
