"""AdamW with two groups, the learning rate's schedule, and a running mean of the weights that is warmed up."""

import math
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from fluidlab.config import TrainConfig
from fluidlab.layers import whole


def make_optimizer(model: nn.Module, config: TrainConfig, **options) -> torch.optim.AdamW:
    """AdamW (arXiv 1711.05101): matrices decay; vectors, positions and embedding tables do not.

    Decay pulls towards zero, which is a prior for a linear map and harm for a place or a name.

    Args:
        options: of `torch.optim.AdamW`, such as the implementation for the device; default fused.
    """
    decay, keep = [], []
    for name, p in model.named_parameters():
        embedding = name.endswith(("positions", "table"))
        (keep if p.ndim < 2 or embedding else decay).append(p)
    groups = [{"params": decay, "weight_decay": config.weight_decay}, {"params": keep, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, **(options or {"fused": True}))


def learning_rate(config: TrainConfig, step: int) -> float:
    """Rate of step 0, 1, ...: linear warm-up, then constant, or a cosine down to `final_lr` x lr at the last step."""
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return config.lr
    progress = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    cosine = (1 + math.cos(math.pi * min(progress, 1.0))) / 2
    return config.lr * (config.final_lr + (1 - config.final_lr) * cosine)


class EMA:
    """Running mean of the weights: a dictionary of tensors, so that it shards and is saved like any other.

    The decay is warmed up as min(decay, (1 + n) / (10 + n)); at 0.9999 from the start, the mean would still be the
    random initialisation after 10,000 steps.
    """

    def __init__(self, model: nn.Module, decay: float):
        self.decay = decay
        self.restart(model)

    def restart(self, model: nn.Module) -> None:
        """Begin anew with the weights that the model has now."""
        self.updates = 0
        self.weights = {name: p.detach().clone() for name, p in model.named_parameters()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        torch._foreach_lerp_(list(self.weights.values()), [p.detach() for p in model.parameters()], 1 - decay)

    @torch.no_grad()
    def copy_to(self, model: nn.Module) -> nn.Module:
        """Write the mean into a copy of the model, which is whole, and return it."""
        for name, p in model.named_parameters():
            p.copy_(whole(self.weights[name]))
        return model

    @contextmanager
    def inside(self, model: nn.Module):
        """For a while the model carries the mean; its own weights wait where the mean was, so no memory is needed."""
        self._exchange(model)
        try:
            yield model
        finally:
            self._exchange(model)

    @torch.no_grad()
    def _exchange(self, model: nn.Module) -> None:
        for name, p in model.named_parameters():
            own = p.detach().clone()
            p.copy_(self.weights[name])
            self.weights[name].copy_(own)

    def tensors(self) -> dict[str, Tensor]:
        return self.weights
