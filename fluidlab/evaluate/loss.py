"""Validation loss with fixed masks, times and noise: otherwise the curve is mostly the variance of those draws."""

from collections.abc import Callable

import torch

from fluidlab.model.fluid import Fluid


@torch.no_grad()
def validation_loss(model: Fluid, data, num_images: int = 2048, *, batch_size: int = 256, seed: int = 0) -> float:
    """Mean loss per predicted token over the first `num_images` of a cache, the same at every call.

    Args:
        data: a `TokenCache` or anything with `gather(indices)` and a length.
        seed: of masks, times and noise; batch b draws from a generator of its own.

    Returns:
        Cross-entropy in nats, or squared error per channel of the noise or velocity.

    Raises:
        ValueError: more images than the data holds, or none.
    """
    if not 1 <= num_images <= len(data):
        raise ValueError(f"num_images must be from 1 to {len(data)}, got {num_images}.")
    device, total, count = next(model.parameters()).device, 0.0, 0.0
    for start in range(0, num_images, batch_size):
        generator = torch.Generator().manual_seed(seed * 1_000_003 + start)
        tokens, features, mask = (t.to(device) for t in data.gather(range(start, min(start + batch_size, num_images))))
        loss, is_target = model.token_losses(tokens, features, mask, generator)
        total += float((loss.double() * is_target).sum())
        count += float(is_target.sum())
    return total / count


def validator(data, num_images: int = 2048, **options) -> Callable[[Fluid], float]:
    """The callable that a `Trainer` takes: model -> validation loss on fixed images."""
    return lambda model: validation_loss(model, data, num_images, **options)
