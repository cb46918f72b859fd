"""Mean and standard deviation of a VAE's latents, measured over images and kept for the next time.

A diffusion head learns best on tokens of unit variance. A published VAE brings one number for all channels, measured
by its makers on a batch of their images; `fluidlab stats` measures every channel over yours. What it finds lies in the
user's cache under a fingerprint of the encoder, never beside the weights, whose folder may be read-only or shared.
"""

import hashlib
import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from fluidlab.config import cache_dir
from fluidlab.tokenizer.contract import resolve_grid
from fluidlab.tokenizer.patches import unpack
from fluidlab.whole import whole_file


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """Per channel of the raw latents, C numbers each, over `images` images of `image_size` pixels of `source`."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    images: int = 0
    image_size: int = 0
    source: str = ""

    def __post_init__(self):
        for name in ("mean", "std"):
            object.__setattr__(self, name, tuple(map(float, getattr(self, name))))        # JSON has lists
        finite = all(map(math.isfinite, (*self.mean, *self.std)))
        if len(self.mean) != len(self.std) or not self.mean or not finite or min(self.std) <= 0:
            raise ValueError(f"statistics are as many means as standard deviations, all finite and the latter "
                             f"positive, got mean {self.mean} and std {self.std}.")


def normalise(latents: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Raw latents (B, C, h, w) to unit variance, with means and deviations (C,) of any device."""
    return (latents - mean.to(latents)[:, None, None]) / std.to(latents)[:, None, None]


def denormalise(latents: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """The way back."""
    return latents * std.to(latents)[:, None, None] + mean.to(latents)[:, None, None]


def measure_statistics(tokenizer, batches: Iterable[Tensor], source: str = "") -> Statistics:
    """Measure a continuous tokenizer's raw latents, whatever it normalises them with now.

    Args:
        tokenizer: with `encode`, `latent_mean` and `latent_std`.
        batches: of images (B, 3, H, W) in [-1, 1].  source: what images these are.

    Raises:
        ValueError: the tokenizer is discrete, there are no images, or a channel never changes.
    """
    if tokenizer.kind != "continuous":
        raise ValueError(f"Only a continuous tokenizer has latents to measure, and this one is {tokenizer.kind}: its "
                         f"tokens are codes.")
    count, total, squares, images, side = 0, 0.0, 0.0, 0, 0
    for batch in batches:
        grid = (batch.shape[-2] // tokenizer.patch_size, batch.shape[-1] // tokenizer.patch_size)
        tokens = tokenizer.encode(batch)
        latents = unpack(tokens.cpu(), resolve_grid(tokens.shape[1], grid)).double()            # (B, C, h, w)
        latents = denormalise(latents, tokenizer.latent_mean, tokenizer.latent_std)
        count += latents[:, 0].numel()
        total = total + latents.sum(dim=(0, 2, 3))                                              # (C,)
        squares = squares + latents.square().sum(dim=(0, 2, 3))                                 # (C,)
        images, side = images + len(batch), batch.shape[-1]
    if not images:
        raise ValueError("Statistics need at least one image, got none.")
    mean = total / count
    return Statistics(mean=mean.tolist(), std=(squares / count - mean.square()).clamp(min=0).sqrt().tolist(),
                      images=images, image_size=side, source=source)


def encoder_fingerprint(model: nn.Module, pixel_range: tuple[float, float]) -> str:
    """SHA-256 over what makes latents: the weights but those of the decoder, and what black and white are to it."""
    digest = hashlib.sha256(json.dumps([float(level) for level in pixel_range]).encode())
    for name, tensor in sorted(model.state_dict().items()):
        if "decoder" not in name.split(".") and not name.startswith("post_quant_conv"):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def statistics_file(model: nn.Module, pixel_range: tuple[float, float]) -> Path:
    """Where the statistics of an autoencoder are kept."""
    return cache_dir() / "statistics" / f"{encoder_fingerprint(model, pixel_range)[:32]}.json"


def keep_statistics(statistics: Statistics, model: nn.Module, pixel_range: tuple[float, float]) -> Path:
    """Keep statistics of an autoencoder for the next `load_tokenizer`, in one atomic step."""
    path = statistics_file(model, pixel_range)
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as beside:
        beside.write_text(json.dumps(asdict(statistics), indent=2) + "\n", encoding="utf-8")
    return path


def kept_statistics(model: nn.Module, pixel_range: tuple[float, float]) -> Statistics | None:
    """The statistics that were kept of an autoencoder, or None.

    Raises:
        ValueError: a file of them is broken.
    """
    if not (cache_dir() / "statistics").is_dir():                     # nothing to look for: spare the fingerprint
        return None
    path = statistics_file(model, pixel_range)
    return read_statistics(path) if path.is_file() else None


def read_statistics(path: Path) -> Statistics:
    """Statistics from a JSON file; `ValueError` with its name if they are none."""
    try:
        return Statistics(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} cannot be read as statistics of latents ({error}): remove it, or run "
                         f"`fluidlab stats` again.") from error
