"""Every random draw of the model comes from here: a CPU generator, or one per image, and is then moved.

A list of generators (sampling, training) gives each image its own stream, so that an image is the same in any batch,
at any place in it and on any device or process. A single generator (validation) draws for the whole batch at once.
"""

import torch
from torch import Tensor

Streams = torch.Generator | list[torch.Generator] | None


def _draw(function, shape: tuple, generator: Streams, device, **options) -> Tensor:
    if isinstance(generator, list):
        assert len(generator) == shape[0], "one stream per image"
        rows = [function(shape[1:], generator=g, **options) for g in generator]
        return torch.stack(rows).to(device)
    return function(shape, generator=generator, **options).to(device)


def image_streams(seed: int, step: int, places: range) -> list[torch.Generator]:
    """One generator for each image of a training step, from its place in the global batch.

    An image's masks, times and noise therefore do not depend on how many processes or micro-batches share the step.
    """
    return [torch.Generator().manual_seed(_mixed((seed << 64) + (step << 32) + place)) for place in places]


def _mixed(number: int) -> int:
    """64 bits in which neighbouring numbers have nothing in common (the finaliser of SplitMix64)."""
    number = (number ^ (number >> 64) * 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
    number = ((number ^ (number >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
    number = ((number ^ (number >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
    return number ^ (number >> 31)


def normal(shape: tuple, generator: Streams, device) -> Tensor:
    """Standard normal numbers, float32, on `device`."""
    return _draw(torch.randn, shape, generator, device)


def uniform(shape: tuple, generator: Streams, device) -> Tensor:
    """Numbers from [0, 1), float32, on `device`."""
    return _draw(torch.rand, shape, generator, device)


def streams(generator: Streams, batch: int) -> list[torch.Generator]:
    """One generator per image: the given list, or new ones seeded one after the other from the given generator.

    Raises:
        ValueError: a list of another length than `batch`, or something that is no CPU generator.
    """
    check_streams(generator, batch)
    if isinstance(generator, list | tuple):
        return list(generator)
    seeds = [int(torch.randint(2**62, (1,), generator=generator)) for _ in range(batch)]
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def check_streams(generator: Streams, batch: int) -> None:
    """Raise `ValueError` unless this is a generator, a list of one per image, or None."""
    if isinstance(generator, list | tuple):
        if len(generator) != batch or not all(isinstance(g, torch.Generator) for g in generator):
            raise ValueError(f"generator must be one torch.Generator or a list of one per image, got a list of "
                             f"{len(generator)} for {batch} images.")
    elif generator is not None and not isinstance(generator, torch.Generator):
        raise ValueError(f"generator must be a torch.Generator or a list of them, got {type(generator).__name__}.")
