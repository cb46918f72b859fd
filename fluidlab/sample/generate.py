"""One loop that samples every variant: walk the permutation chunk by chunk, read z, let the head draw tokens.

It asks neither which order nor which head it has. Whoever wants to watch (the order player, the explorers, a test)
passes `on_step` and sees every intermediate state.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fluidlab.config import SampleConfig, check_type
from fluidlab.layers import take
from fluidlab.model.fluid import Fluid
from fluidlab.model.guidance import scale_at
from fluidlab.model.noise import Streams, streams
from fluidlab.sample.cached import CachedReader


@dataclass(frozen=True)
class Step:
    """What `on_step` sees after each step.

    Args:
        index: 0, 1, ...  positions: (B, K) filled in this step.
        tokens: (B, N) or (B, N, C) so far.  unknown: (B, N) bool, True = still to be filled.
    """

    index: int
    positions: Tensor
    tokens: Tensor
    unknown: Tensor


@torch.no_grad()
def generate(model: Fluid, features: Tensor, mask: Tensor, *, guidance_scale: float = 3.0,
             guidance_schedule: str = "constant", temperature: float = 1.0, num_inference_steps: int | None = None,
             num_denoising_steps: int | tuple[int, int] = 25, solver: str | None = None, generator: Streams = None,
             on_step: Callable[[Step], bool | None] | None = None, use_cache: bool = True,
             tokens: Tensor | None = None, unknown: Tensor | None = None) -> Tensor:
    """Draw one image's tokens for each text.

    Args:
        features, mask: (B, S, E) and (B, S) bool of the text encoder; an all-False row means "no text".
        guidance_scale, guidance_schedule, temperature, num_inference_steps, num_denoising_steps, solver: see
            `SampleConfig`.
        generator: one CPU generator, from which a stream per image is drawn, or a list of one per image.
        on_step: called with a `Step` after every step; its answer False ends the drawing there, and tokens that are
            unknown stay blank (or as they were given).
        use_cache: let a causal order keep its keys and values; the same tokens, sooner.
        tokens, unknown: start from these tokens and fill only the positions (B, N) where unknown is True, the same
            number in each image. Given tokens never change.

    Returns:
        (B, N) codes or (B, N, C) latents.

    Raises:
        ValueError: values out of range, or tensors that do not fit the model.
    """
    config = SampleConfig(guidance_scale=guidance_scale, guidance_schedule=guidance_schedule, temperature=temperature,
                          num_inference_steps=num_inference_steps, num_denoising_steps=num_denoising_steps,
                          solver=solver)
    check_type("model", model, Fluid, "a Fluid")
    check_type("on_step", on_step, Callable | None, "a function of a Step")
    _check_text(model, features, mask)
    B, N, device = len(features), model.config.seq_len, features.device
    generator = streams(generator, B)
    tokens, unknown, num_unknown = _start(model, features, mask, tokens, unknown)
    permutation = _known_first(model.order.permutation(B, N, generator, device), unknown)     # (B, N)
    sizes = model.order.chunk_sizes(num_unknown, config.num_inference_steps)

    guided = guidance_scale != 1.0
    text, text_mask = model.aligner(*(_with_null(features, mask) if guided else (features, mask)))  # (B or 2B, S, D)
    from_blank = num_unknown == N
    reader = CachedReader(model, text, text_mask) if use_cache and model.order.causal and from_blank else FullReader(
        model, text, text_mask)
    filled = N - num_unknown
    for index, size in enumerate(sizes):
        positions = permutation[:, filled:filled + size]                                      # (B, K)
        denoising_steps = config.denoising_steps_at(filled / N)
        filled += size
        z = reader(tokens, unknown, positions)                                                # (B or 2B, K, D)
        z, z_null = z.chunk(2) if guided else (z, None)
        drawn = model.head.sample(z, z_null, scale_at(guidance_schedule, guidance_scale, filled / N), temperature,
                                  generator, denoising_steps, solver)                         # (B, K) or (B, K, C)
        tokens = _put(tokens, positions, drawn)
        unknown = unknown.scatter(1, positions, False)                                        # (B, N)
        if on_step is not None and on_step(Step(index, positions, tokens, unknown)) is False:
            break
    return tokens


class FullReader:
    """z at the asked positions from one pass over the whole sequence."""

    def __init__(self, model: Fluid, text: Tensor, text_mask: Tensor):
        self.model, self.text, self.text_mask = model, model.backbone.read(text), text_mask

    def __call__(self, tokens: Tensor, unknown: Tensor, positions: Tensor) -> Tensor:
        copies = len(self.text_mask) // len(tokens)                                           # 2 with guidance, else 1
        tokens, unknown, positions = (torch.cat([t] * copies) for t in (tokens, unknown, positions))
        if self.model.order.causal:
            return take(self.model.hidden(tokens, unknown, self.text, self.text_mask), positions)
        return self.model.hidden(tokens, unknown, self.text, self.text_mask, rows=positions)  # (B or 2B, K, D)


def _check_text(model: Fluid, features: Tensor, mask: Tensor) -> None:
    """As the model does, and also what would be drawn from without a word: numbers that are none, another device."""
    model.check_text(features, mask)
    device = next(model.parameters()).device
    if features.device != device or mask.device != device:
        raise ValueError(f"features and mask must be on the model's device {device}, got {features.device} and "
                         f"{mask.device}.")
    if not torch.isfinite(features).all():
        raise ValueError("features must be finite, got NaN or infinite numbers among them.")


def _with_null(features: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """The batch twice, the second time without its text: both halves go through the network together."""
    return torch.cat([features, features]), torch.cat([mask, torch.zeros_like(mask)])


def _put(tokens: Tensor, positions: Tensor, drawn: Tensor) -> Tensor:
    index = positions.view(*positions.shape, *[1] * (tokens.ndim - 2)).expand_as(drawn)
    return tokens.scatter(1, index, drawn.to(tokens.dtype))


def _known_first(permutation: Tensor, unknown: Tensor) -> Tensor:
    """Known positions move to the front of the permutation; the others keep their order."""
    return permutation.gather(1, unknown.gather(1, permutation).to(torch.int8).argsort(dim=1, stable=True))


def _start(model: Fluid, features: Tensor, mask: Tensor, tokens: Tensor | None,
           unknown: Tensor | None) -> tuple[Tensor, Tensor, int]:
    B, N, device = len(features), model.config.seq_len, features.device
    if (tokens is None) != (unknown is None):
        raise ValueError("tokens and unknown belong together: give both to edit an image, or neither to draw one.")
    if tokens is None:
        return model.head.blank(B, N, device), torch.ones(B, N, dtype=torch.bool, device=device), N
    model.check(tokens, features, mask, blanks=True)
    check_type("unknown", unknown, Tensor, "a tensor (B, N)")
    if tokens.is_floating_point() and not torch.isfinite(tokens).all():
        raise ValueError("tokens must be finite, got NaN or infinite numbers among them.")
    if unknown.dtype != torch.bool or tuple(unknown.shape) != (B, N):
        raise ValueError(f"unknown must be bool of shape {(B, N)}, got {unknown.dtype} of shape "
                         f"{tuple(unknown.shape)}.")
    counts = unknown.sum(dim=1)
    if counts.min() != counts.max() or counts.min() == 0:
        raise ValueError(f"every image of a batch must have the same number of unknown tokens, at least 1, "
                         f"got {int(counts.min())} to {int(counts.max())}.")
    return tokens, unknown, int(counts[0])
