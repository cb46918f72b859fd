"""`Fluid` as diffusers wants a model: the same network, with the mixins that pipelines, loaders and offloading rely on.

Nothing is computed here that `Fluid` does not compute. What to notice: `FluidModel.of(model)` is no copy but the same
tensors under another class, so that a model can be drawn from while it is trained; and in bf16 the head and the order
keep float32, because the diffusion arithmetic and everything tied to its tokens is float32 by rule.
"""

from pathlib import Path

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import FrozenDict
from torch import Tensor, nn

from fluidlab.config import ModelConfig, check_choice
from fluidlab.model.files import save_model
from fluidlab.model.fluid import Fluid
from fluidlab.publish.folder import check_saving, load_weights
from fluidlab.publish.remote import find_folder

DTYPES = (torch.float32, torch.bfloat16)


class FluidModel(Fluid, ModelMixin, ConfigMixin):
    """A `Fluid` that is a `diffusers.ModelMixin`.

    Args:
        config: the fields of `ModelConfig`.
    """

    config_name = "config.json"
    _keep_in_fp32_modules = ["head", "order"]

    def __init__(self, **config):
        super().__init__(ModelConfig.from_dict(config))

    @classmethod
    def of(cls, model: Fluid) -> "FluidModel":
        """The same model, tensor for tensor, under this class; what a subclass of `Fluid` overrides stays so."""
        if isinstance(model, cls):
            return model
        kind = cls if type(model) is Fluid else type(type(model).__name__, (type(model), cls), {})
        same = object.__new__(kind)
        same.__dict__.update(model.__dict__, _gradient_checkpointing_func=None)
        return same

    @property
    def config(self) -> ModelConfig:
        return self.__dict__["config"]

    @config.setter
    def config(self, config: ModelConfig) -> None:
        self.__dict__["config"] = config

    @property
    def _internal_dict(self) -> FrozenDict:
        """diffusers' view of the configuration. Not kept: `order` and `head` would hide the parts of these names."""
        return FrozenDict(self.config.to_dict())

    def hidden(self, *args, **options) -> Tensor:
        """As `Fluid.hidden`, z in float32 whatever the backbone's precision."""
        return super().hidden(*args, **options).float()

    def to(self, *args, **kwargs):
        """As any module's. ModelMixin's own warns, at every change of dtype, of what `_apply` prevents."""
        return nn.Module.to(self, *args, **kwargs)

    def _apply(self, fn, recurse: bool = True):
        def exact(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            return moved if moved.dtype == tensor.dtype else tensor.to(moved.device)

        for name, part in self.named_children():
            part._apply(exact if name in self._keep_in_fp32_modules else fn)
        return super()._apply(fn, recurse=False)

    @classmethod
    def from_config(cls, config: dict, **changes) -> "FluidModel":
        """A model with new weights, from a configuration; entries that diffusers adds (`_class_name`) are skipped."""
        return cls(**{name: value for name, value in {**config, **changes}.items() if not name.startswith("_")})

    @classmethod
    def from_pretrained(cls, name: str | Path, *, subfolder: str = "", torch_dtype: torch.dtype | None = None,
                        **download) -> "FluidModel":
        """The model of a pipeline's folder, shipped name or Hub id, in evaluation mode.

        Args:
            subfolder: of the folder.  torch_dtype: float32 or bfloat16.  download: of `find_folder`.
        """
        folder = find_folder(name, needs=str(Path(subfolder, "config.json")), **download) / subfolder
        return cls.of(load_weights(folder)).to(check_dtype(torch_dtype))

    def save_pretrained(self, folder: str | Path, safe_serialization: bool = True, variant: str | None = None) -> None:
        """Write config.json and model.safetensors, float32."""
        check_saving(safe_serialization, variant)
        save_model(self, folder)


def check_dtype(dtype: torch.dtype | None) -> torch.dtype:
    """float32 for None; `ValueError` for anything but float32 and bfloat16, and so for fp16, which is never used."""
    dtype = torch.float32 if dtype is None else dtype
    check_choice("dtype", dtype, DTYPES)
    return dtype
