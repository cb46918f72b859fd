"""AdamW with two groups, the learning rate's schedule, and a running mean of the weights that is warmed up."""

import math

import torch
from torch import Tensor, nn

from fluidlab.config import TrainConfig


def make_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW (arXiv 1711.05101): matrices decay; vectors, positions and embedding tables do not.

    Decay pulls towards zero, which is a prior for a linear map and harm for a place or a name.
    """
    decay, keep = [], []
    for name, p in model.named_parameters():
        embedding = name.endswith(("positions", "table"))
        (keep if p.ndim < 2 or embedding else decay).append(p)
    groups = [{"params": decay, "weight_decay": config.weight_decay}, {"params": keep, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, fused=True)


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
        self.decay, self.updates = decay, 0
        self.weights = {name: p.detach().clone() for name, p in model.named_parameters()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        torch._foreach_lerp_(list(self.weights.values()), [p.detach() for p in model.parameters()], 1 - decay)

    @torch.no_grad()
    def copy_to(self, model: nn.Module) -> nn.Module:
        """Write the mean into a model (usually a copy) and return it."""
        for name, p in model.named_parameters():
            p.copy_(self.weights[name])
        return model

    def tensors(self) -> dict[str, Tensor]:
        return self.weights
