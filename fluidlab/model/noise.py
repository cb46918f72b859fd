"""Every random draw of the model comes from here: a CPU generator, or one per image, and is then moved.

A list of generators (sampling) gives each image its own stream, so that an image is the same in any batch, at any
place in it and on any device. A single generator (training, validation) draws for the whole batch at once.
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
    if isinstance(generator, list | tuple):
        if len(generator) != batch or not all(isinstance(g, torch.Generator) for g in generator):
            raise ValueError(f"generator must be one torch.Generator or a list of one per image, got a list of "
                             f"{len(generator)} for {batch} images.")
        return list(generator)
    if generator is not None and not isinstance(generator, torch.Generator):
        raise ValueError(f"generator must be a torch.Generator or a list of them, got {type(generator).__name__}.")
    seeds = [int(torch.randint(2**62, (1,), generator=generator)) for _ in range(batch)]
    return [torch.Generator().manual_seed(seed) for seed in seeds]
