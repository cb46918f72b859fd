"""The second engine: torch_xla as Colab and Kaggle bring it, one process that drives every chip it finds (SPMD).

FSDP2 does not run there, but the model, the step, the data and the checkpoints are the same. Each parameter, its
moments and its running mean are split along the first dimension over all chips, each batch along its images, and XLA's
compiler puts in what has to be sent.

What to notice: operations are recorded, and a step becomes two programs: up to the numbers that Python must see (the
loss, to stop where it is not finite), and from there on. Shapes never change, so each is compiled once.
Written against torch_xla 2.9 and run on its CPU devices (`make test-xla`); not yet run on a TPU by us.
"""

import importlib.util
from dataclasses import dataclass

import torch
from torch import Tensor

from fluidlab.config import TrainConfig
from fluidlab.model.fluid import Fluid
from fluidlab.train.parallel import World


def has_tpu() -> bool:
    """Whether torch_xla is here and finds a TPU."""
    if importlib.util.find_spec("torch_xla") is None:
        return False
    import torch_xla.runtime as xr
    return xr.device_type() == "TPU"


def start_xla() -> "XLAWorld":
    """All chips of this machine, driven by this process. To be called before anything else touches them."""
    import numpy as np
    import torch_xla
    import torch_xla.distributed.spmd as spmd
    import torch_xla.runtime as xr
    xr.use_spmd()
    chips = xr.global_runtime_device_count()
    return XLAWorld(device=torch_xla.device(), mesh=spmd.Mesh(np.arange(chips), (chips,), ("chips",)), chips=chips)


@dataclass(frozen=True)
class XLAWorld(World):
    """One process, several chips. To the trainer it looks like one device."""

    chips: int = 1

    def micro_batches(self, config: TrainConfig) -> list[range]:
        batches = super().micro_batches(config)
        if len(batches[0]) % self.chips:
            raise ValueError(f"the images computed at once must be a multiple of the number of chips, got "
                             f"{len(batches[0])} and {self.chips}.")
        return batches

    def prepare(self, model: Fluid, config: TrainConfig) -> Fluid:
        """Nothing: values are split once they are there (`spread`), and XLA compiles in any case."""
        return model

    def spread(self, tensors) -> None:
        """Split tensors along their first dimension over the chips; what cannot be divided stays whole on each."""
        import torch_xla.distributed.spmd as spmd
        for t in tensors:
            split = t.ndim > 0 and t.shape[0] % self.chips == 0
            spmd.mark_sharding(t, self.mesh, (("chips" if split else None,) + (None,) * (t.ndim - 1)) if t.ndim else ())

    def place(self, batch: Tensor) -> Tensor:
        """A batch on the chips, each with its share of the images."""
        batch = batch.to(self.device)
        self.spread([batch])
        return batch

    def optimizer_options(self) -> dict:
        """Step and rate live on the chip: as Python numbers they would be part of the program, compiled each step."""
        return {"foreach": False, "capturable": True}

    def rate(self, lr: float) -> Tensor:
        return torch.tensor(lr).to(self.device)

    def end_step(self) -> None:
        import torch_xla
        torch_xla.sync()

    def last_micro_batch(self, model, last: bool) -> None:
        """Nothing: there is one program, and it sends what it must."""

    def describe(self) -> str:
        return f"on {self.chips} XLA device{'s' if self.chips > 1 else ''}"
