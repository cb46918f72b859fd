"""Image <-> tokens: one continuous tokenizer, one discrete, of equal token counts, and how to get a trained one."""

import dataclasses
from pathlib import Path

import torch

from fluidlab.device import usable_device
from fluidlab.hub import Wanted, find_model, read_json
from fluidlab.tokenizer.chunks import Chunks
from fluidlab.tokenizer.contract import image_grid
from fluidlab.tokenizer.vae import VAEConfig, VAETokenizer
from fluidlab.tokenizer.vq import VQConfig, VQTokenizer

__all__ = ["SHIPPED", "VAEConfig", "VAETokenizer", "VQConfig", "VQTokenizer", "load_tokenizer"]

SHIPPED = ("scenes-vae", "scenes-vq")
KINDS = {"vae": VAETokenizer, "vq": VQTokenizer}
WANTED = Wanted(what="tokenizer", shipped=SHIPPED, classes=("AutoencoderKL", "VQModel"))


def load_tokenizer(name: str | Path, *, subfolder: str | None = None, revision: str | None = None,
                   image_size: int | None = None, device: str | torch.device = "cpu",
                   dtype: torch.dtype = torch.float32, max_batch: int | None = None, statistics: bool = True,
                   pixel_range: tuple[float, float] | None = None, cache_dir: str | Path | None = None):
    """A trained tokenizer, frozen and ready for use.

    Args:
        name: "scenes-vae" or "scenes-vq" (shipped); a folder with config.json and safetensors, written by
            `save_pretrained` or `fluidlab fit`, or holding a diffusers AutoencoderKL or VQModel; or a Hugging Face
            address of such, "owner/name" or "owner/name/sub/folder", with "@revision" behind it if it is to stay what
            it is. The local cache is looked into before the hub.
        subfolder, revision: instead of in the name. In a pipeline's repository its autoencoder is found by itself.
        image_size: side in pixels of the images that .grid and .seq_len speak of; None for the tokenizer's own, 256
            for diffusers' classes. Any multiple of 16 can be encoded.
        device: of the weights; images and tokens of any device are taken, and answered on theirs.
        dtype: to compute in, torch.float32 or torch.bfloat16 (autocast); answers are float32.
        max_batch: images at once in the network; None for 8 of 256x256 pixels, and as many more as they are smaller.
        statistics: of an AutoencoderKL, use the mean and deviation that were saved with it or that `fluidlab stats`
            measured on this machine; False for the scale of its configuration.
        pixel_range: what a diffusers model calls black and white, if it is not what it is known for.
        cache_dir: another cache than Hugging Face's own.

    Raises:
        ValueError: nothing of that name, it cannot be fetched, or it is of another class; the sentence says what to do.
    """
    device, chunks = usable_device(device), Chunks(dtype, max_batch)
    if image_size is not None:
        image_grid(image_size)
    folder = find_model(name, WANTED, subfolder=subfolder, revision=revision, cache_dir=cache_dir)
    values = read_json(folder / "config.json")
    if "_class_name" in values:  # diffusers writes its class into every configuration
        from fluidlab.tokenizer.pretrained import load_diffusers  # seconds to import: only when one is loaded
        return load_diffusers(folder, values["_class_name"], image_size=image_size, statistics=statistics,
                              pixel_range=pixel_range, chunks=chunks).to(device)
    if values.get("kind") not in KINDS:
        other = values.get("model_type") or values.get("architectures")
        raise ValueError(
            f"The tokenizer {str(name)!r} cannot be loaded, because {folder / 'config.json'} gives its kind as "
            f"{values.get('kind')!r} and not as one of {', '.join(KINDS)}"
            f"{f' (it is of a {other})' if other else ''}: is it another model's folder?"
        )
    tokenizer = KINDS[values["kind"]].from_pretrained(folder)
    if image_size is not None:
        tokenizer.config = dataclasses.replace(tokenizer.config, image_size=image_size)
    tokenizer.chunks = chunks
    return tokenizer.to(device)
