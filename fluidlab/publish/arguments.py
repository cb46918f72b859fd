"""What the caller of a pipeline may say: parts that belong together, numbers of images, seeds, margins."""

import torch

from fluidlab.config import ModelConfig, check_range
from fluidlab.model.noise import Streams

MOST_IMAGES = 4096                # of one prompt in one call; a list of more would fill the memory unseen


def check_fit(config: ModelConfig, tokenizer, text_encoder) -> None:
    """Raise `ValueError` unless tokenizer and text encoder are what a model of this configuration was built for."""
    for name, part, mark in (("tokenizer", tokenizer, "kind"), ("text_encoder", text_encoder, "dim")):
        if not hasattr(part, mark):
            raise ValueError(f"{name} must be what load_{name} gives, got a {type(part).__name__}.")
    if tokenizer.kind != config.token_kind:
        raise ValueError(f"head {config.head!r} needs a {config.token_kind} tokenizer, got a {tokenizer.kind} one.")
    size = "codebook_size" if tokenizer.kind == "discrete" else "token_dim"
    if getattr(tokenizer, size) != getattr(config, size):
        raise ValueError(f"the model was built for {size} {getattr(config, size)}, "
                         f"the tokenizer has {getattr(tokenizer, size)}.")
    if text_encoder.dim != config.text_dim:
        raise ValueError(f"the model was built for text_dim {config.text_dim}, "
                         f"the text encoder has {text_encoder.dim}.")


def in_tokens(patch: int, **margins: int) -> tuple[int, ...]:
    """Margins in pixels as numbers of tokens; `ValueError` where they are no multiples of one."""
    for name, margin in margins.items():
        check_range(name, margin, 0, kind=int)
        if margin % patch:
            raise ValueError(f"{name} must be a multiple of {patch} pixels, got {margin}.")
    return tuple(margin // patch for margin in margins.values())


def counted(num_images_per_prompt: int) -> int:
    """The number, if it is one from 1 to MOST_IMAGES."""
    check_range("num_images_per_prompt", num_images_per_prompt, 1, MOST_IMAGES, kind=int)
    return num_images_per_prompt


def generators(seed: int | list[int] | None, generator: Streams, batch: int) -> Streams:
    """A generator for each image from one seed (which counts up) or one each; without a seed, what was given."""
    if seed is None:
        return generator
    if generator is not None:
        raise ValueError("give either a seed or a generator, got both.")
    seeds = list(seed) if isinstance(seed, list | tuple | range) else [seed]
    for number in seeds:
        check_range("seed", number, 0, 2**63 - 1 - batch, kind=int)
    seeds = seeds if isinstance(seed, list | tuple | range) else [seed + i for i in range(batch)]
    if len(seeds) != batch:
        raise ValueError(f"seed must be one number or one per image, got {len(seeds)} for {batch} images.")
    return [torch.Generator().manual_seed(s) for s in seeds]
