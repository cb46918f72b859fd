"""The second engine: torch_xla as Colab and Kaggle bring it, one process that drives every chip it finds (SPMD).

FSDP2 does not run there, but the model, the step, the data and the checkpoints are the same. Each parameter, its
moments and its running mean are split over the chips, each batch along its images, and XLA's compiler puts in what has
to be sent. On one chip, which is what Colab lends, nothing is split.

What to notice: operations are recorded, and a step becomes two programs: up to the numbers that Python must see (the
loss, to stop where it is not finite), and from there on. Shapes never change, so each is compiled once.
Written against torch_xla 2.9 and run on its CPU devices (`make test-xla`); not yet run on a TPU by us.
"""

import importlib.util
import logging
import os
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from fluidlab.config import TrainConfig
from fluidlab.model.fluid import Fluid
from fluidlab.train.parallel import World, check_shards


def has_tpu() -> bool:
    """Whether torch_xla is here, fits this torch, and finds a TPU."""
    if importlib.util.find_spec("torch_xla") is None:
        return False
    try:
        import torch_xla.runtime as xr
    except ImportError:                             # made for another torch
        return False
    return xr.device_type() == "TPU"


def start_xla(shards: int = 0) -> "XLAWorld":
    """All chips of this machine, driven by this process. To be called before anything else touches them.

    Args:
        shards: chips that share one copy of the state; 0 = all.

    Raises:
        ValueError: torch_xla is not here, there are several processes, or shards do not divide the chips.
    """
    _alone(int(os.environ.get("WORLD_SIZE", 1)))
    try:
        import torch_xla
        import torch_xla.backends
        import torch_xla.distributed.spmd as spmd
        import torch_xla.runtime as xr
    except ImportError as error:
        raise ValueError(f"engine xla needs a torch_xla made for torch {torch.__version__} ({error}).") from error
    logging.getLogger("torch_xla.backends").setLevel(logging.ERROR)     # the next line is called a second setting of it
    torch_xla.backends.set_mat_mul_precision("highest")                 # else a TPU multiplies float32 as bf16, unasked
    xr.use_spmd()
    _alone(xr.process_count())
    chips = xr.global_runtime_device_count()
    shards = check_shards("chips", chips, shards)
    mesh = spmd.Mesh(list(range(chips)), (chips // shards, shards), ("replicate", "shard"))
    return XLAWorld(device=torch_xla.device(), mesh=mesh, chips=chips, shards=shards)


def _alone(processes: int) -> None:
    if processes > 1:
        raise ValueError(f"engine xla drives all chips of one machine from one process, got {processes} processes: "
                         f"start one, without torchrun.")


@dataclass(frozen=True)
class XLAWorld(World):
    """One process, several chips. To the trainer it looks like one device."""

    chips: int = 1
    shards: int = 1

    def micro_batches(self, config: TrainConfig) -> list[range]:
        batches = super().micro_batches(config)
        if len(batches[0]) % self.chips:
            raise ValueError(f"the images computed at once must be a multiple of the number of chips, got "
                             f"{len(batches[0])} and {self.chips}.")
        return batches

    def prepare(self, model: Fluid, config: TrainConfig) -> Fluid:
        """Recompute, as the recipe says; values are split once they are there (`settle`).

        Raises:
            ValueError: the recipe asks for torch.compile, which does not work beside XLA's compiler.
        """
        if config.compile:
            raise ValueError("engine xla compiles every step by itself, got compile=True: leave --compile out.")
        if config.checkpointing:
            for block in model.backbone.blocks:
                block.forward = partial(recompute, block.forward)
        return model

    @property
    def memory(self) -> torch.device:
        """The host's, from where each chip is sent its share alone."""
        return torch.device("cpu")

    def settle(self, model: Fluid) -> Fluid:
        """From the host to the chips, split; and what the compiler would not find out by itself.

        It must be told that images stay where they are and weights come to them. Left to choose, it sends activations
        around, five times as much, and torch_xla's layer norm is a batch norm, for which each chip is sent all images.
        """
        model.to(self.device)
        self.spread(model.parameters())
        for layer in model.modules() if self.chips > 1 else ():
            if isinstance(layer, nn.Linear):
                layer.register_forward_hook(self._stays)
            if isinstance(layer, nn.LayerNorm):
                layer.forward = partial(layer_norm, layer)
        for p in model.parameters() if self.chips > 1 else ():
            p.register_hook(self._like_the_state)
        return model

    def spread(self, tensors) -> None:
        for t in tensors:
            self._like_the_state(t)
        self.flush()

    def place(self, batch: Tensor) -> Tensor:
        import torch_xla.distributed.spmd as spmd
        batch = batch.to(self.device)
        spmd.mark_sharding(batch, self.mesh, self._by_images(batch))
        return batch

    def _like_the_state(self, t: Tensor) -> Tensor:
        """Split over the chips that share a copy, along the first dimension that they divide."""
        import torch_xla.distributed.spmd as spmd
        dim = next((d for d, n in enumerate(t.shape) if n % self.shards == 0), None)
        spmd.mark_sharding(t, self.mesh, tuple("shard" if d == dim else None for d in range(t.ndim)))
        return t

    def _by_images(self, x: Tensor) -> tuple:
        """Over all chips along the images; where these do not divide, each chip has the whole."""
        return (None if len(x) % self.chips else ("replicate", "shard"),) + (None,) * (x.ndim - 1)

    def _stays(self, layer, inputs, out: Tensor) -> Tensor:
        """A layer's output stays with its images, and so does its gradient."""
        import torch_xla.distributed.spmd as spmd
        return spmd.mark_sharding_with_gradients(out, self.mesh, self._by_images(out))

    def optimizer_options(self) -> dict:
        """Plain operations, since torch_xla has no fused AdamW, and the counts of steps on the chips."""
        return {"foreach": False, "capturable": True}

    def flush(self) -> None:
        """Carry out what was recorded; Python does not wait for it."""
        import torch_xla
        torch_xla.sync()

    def read(self, x: Tensor) -> list[float]:
        """Numbers for Python. Without the flush they alone would be computed, and the gradients a second time."""
        self.flush()
        return x.tolist()

    def copy(self, t: Tensor) -> Tensor:
        """On the host, put together from the chips' shares; `t.cpu()` would compile a program for each tensor."""
        import torch_xla
        from torch_xla.distributed.spmd import XLAShardedTensor
        torch_xla.sync(wait=True)
        if self.chips == 1:
            return t.detach().cpu()
        whole = torch.empty(t.shape, dtype=t.dtype)
        for shard in XLAShardedTensor(t.detach()).local_shards:
            if shard.indices is Ellipsis:
                return shard.data
            whole[tuple(shard.indices)] = shard.data[tuple(slice(0, s.stop - s.start) for s in shard.indices)]
        return whole

    def last_micro_batch(self, model, last: bool) -> None:
        """Each micro-batch is carried out by itself: one program for all would grow with their number."""
        self.flush()

    def describe(self) -> str:
        import torch_xla.runtime as xr
        if self.chips == 1:
            return f"on one XLA device ({xr.device_type()}), so nothing is split"
        return (f"on {self.chips} XLA devices ({xr.device_type()}), {self.shards} shards to a copy, "
                f"{self.chips // self.shards} copies")


def recompute(forward, x: Tensor, text: Tensor, mask: Tensor, **options) -> Tensor:
    """A block that keeps its inputs alone, by torch_xla's own `checkpoint`; PyTorch's does not know its devices."""
    if not torch.is_grad_enabled():
        return forward(x, text, mask, **options)
    from torch_xla.utils.checkpoint import checkpoint
    return checkpoint(partial(forward, **options), x, text, mask, preserve_rng_state=False)


def layer_norm(layer: nn.LayerNorm, x: Tensor) -> Tensor:
    """Of each token by itself, in operations that a compiler can split along the images; float32."""
    x = x.float() - x.float().mean(dim=-1, keepdim=True)
    x = x * (x.square().mean(dim=-1, keepdim=True) + layer.eps).rsqrt()
    return x if layer.weight is None else x * layer.weight + layer.bias
