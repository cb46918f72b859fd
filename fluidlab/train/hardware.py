"""What there is to train on: a TPU through torch_xla, GPUs, or the processor; how many, how large, how it is driven.

It asks, and changes nothing, except that a TPU is started as `fluidlab train` would start it. What to notice: which
TPU it is, is read from its number on the PCI bus, because torch_xla names no chip once it drives several as one.
Written from the documents; only the processor was ever found by us.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import torch

from fluidlab.train.plan import DEVICES
from fluidlab.train.xla import has_tpu, start_xla

PCI = Path("/sys/bus/pci/devices")
GOOGLE = "0x1ae0"
CHIPS = {"0x0062": "v5p", "0x0063": "v5e", "0x006f": "v6e"}       # as torch_xla and JAX list them
BF16_FROM = 8                                                     # compute capability (Ampere); older GPUs emulate it


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """What a run can have.

    Args:
        kind: "tpu", "cuda" or "cpu".  name: in words.  devices: chips, GPUs, or 1.
        memory: bytes of one device, None for a processor.  model: its name in `plan.DEVICES`, None if not there.
        precision: in which it computes well, for `TrainConfig`.
    """

    kind: str
    name: str
    devices: int
    memory: float | None
    model: str | None
    precision: str

    @property
    def processes(self) -> int:
        """How many `launch` should start: one for each GPU; one process drives all chips of a TPU."""
        return self.devices if self.kind == "cuda" else 1

    def at_once(self, micro_batch: int) -> int:
        """What `--micro-batch` must say, so that every device computes so many images at once."""
        return micro_batch * self.devices // self.processes


def find_hardware() -> Hardware:
    """The TPU, else the GPUs, else the processor. (Other accelerators are left alone: `--device` names them.)"""
    if has_tpu():
        return _tpu(start_xla().chips)
    if torch.cuda.is_available():
        return _gpus(torch.cuda.device_count())
    return Hardware(kind="cpu", name=f"a processor with {os.cpu_count()} cores", devices=1, memory=None, model=None,
                    precision="float32")


def _tpu(chips: int) -> Hardware:
    model = next((CHIPS[chip] for chip in _chips_on_the_bus() if chip in CHIPS), None)
    name = f"TPU {model}" if model else "TPU of a kind that is not known here, taken for the smallest"
    memory = DEVICES[model].memory if model else min(d.memory for d in DEVICES.values())
    return Hardware(kind="tpu", name=name, devices=chips, memory=memory, model=model, precision="bf16")


def _chips_on_the_bus() -> list[str]:
    return [(vendor.parent / "device").read_text().strip() for vendor in sorted(PCI.glob("*/vendor"))
            if vendor.read_text().strip() == GOOGLE]


def _gpus(count: int) -> Hardware:
    """The first one stands for all."""
    found = torch.cuda.get_device_properties(0)
    model = next((model for model in DEVICES if model in found.name.lower()), None)
    return Hardware(kind="cuda", name=found.name, devices=count, memory=float(found.total_memory), model=model,
                    precision="bf16" if found.major >= BF16_FROM else "float32")
