"""diffusers' own autoencoders behind the same two methods: AutoencoderKL (continuous) and VQModel (discrete).

Fluid's real tokenizers are of these two classes. Three habits of VQModel are hidden here: its `encode` returns the
features before quantisation, its quantizer returns the indices of a batch in one flat row, and `decode` quantises
again unless it is told not to.
"""

from pathlib import Path

import torch
from diffusers import AutoencoderKL, VQModel
from torch import Tensor, nn

from fluidlab.tokenizer.contract import (
    PATCH_SIZE,
    Tokenizer,
    check_codes,
    check_images,
    check_tokens,
    image_grid,
    resolve_grid,
)
from fluidlab.tokenizer.patches import pack, unpack


def _check_scale(name: str, config, factor: int) -> None:
    found = 2 ** (len(config.block_out_channels) - 1)
    if found != factor:
        raise ValueError(f"This {name} shrinks images by {found}, but a token of 16x16 pixels needs one by {factor}.")


class DiffusersVAE(Tokenizer):
    """An AutoencoderKL that shrinks by 8, its latents packed 2x2: tokens (B, N, 4 * latent_channels).

    Latents are scaled as the model's own configuration says (`latents_mean` and `latents_std` where it has them, else
    `shift_factor` and `scaling_factor`), which is close to unit variance on the images it was made for.
    """

    kind = "continuous"

    def __init__(self, model: AutoencoderKL, image_size: int = 256):
        super().__init__()
        _check_scale("AutoencoderKL", model.config, 8)
        self.model, self.grid = model.eval().requires_grad_(False), image_grid(image_size)
        self.seq_len, self.token_dim = self.grid[0] * self.grid[1], 4 * model.config.latent_channels
        c = model.config
        mean = c.latents_mean or [c.shift_factor or 0.0] * c.latent_channels
        std = c.latents_std or [1.0 / c.scaling_factor] * c.latent_channels
        self.register_buffer("latent_mean", torch.tensor(mean), persistent=False)
        self.register_buffer("latent_std", torch.tensor(std), persistent=False)

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [-1, 1] to tokens (B, N, C): the posterior's mean."""
        check_images(images)
        latents = self.model.encode(images).latent_dist.mean                                      # (B, c, H/8, W/8)
        return pack((latents - self.latent_mean[:, None, None]) / self.latent_std[:, None, None])  # (B, N, C)

    @torch.no_grad()
    def decode(self, tokens: Tensor, grid: tuple[int, int] | None = None) -> Tensor:
        """Tokens (B, N, C) to images (B, 3, H, W) clamped to [-1, 1]."""
        check_tokens(tokens, self.token_dim)
        latents = unpack(tokens, resolve_grid(tokens.shape[1], grid))                              # (B, c, H/8, W/8)
        latents = latents * self.latent_std[:, None, None] + self.latent_mean[:, None, None]
        return self.model.decode(latents).sample.clamp(-1.0, 1.0)                                  # (B, 3, H, W)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write what `load_tokenizer(folder)` reads, in diffusers' own layout."""
        self.model.save_pretrained(folder)


class DiffusersVQ(Tokenizer):
    """A VQModel that shrinks by 16: tokens (B, N), one code each."""

    kind = "discrete"

    def __init__(self, model: VQModel, image_size: int = 256):
        super().__init__()
        _check_scale("VQModel", model.config, PATCH_SIZE)
        self.model, self.grid = model.eval().requires_grad_(False), image_grid(image_size)
        self.seq_len, self.codebook_size = self.grid[0] * self.grid[1], model.config.num_vq_embeddings

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [-1, 1] to tokens (B, N) int64."""
        check_images(images)
        indices = self.model.quantize(self.model.encode(images).latents)[2][2]  # (B*N,)
        return indices.reshape(len(images), -1)                                 # (B, N)

    @torch.no_grad()
    def decode(self, tokens: Tensor, grid: tuple[int, int] | None = None) -> Tensor:
        """Tokens (B, N) to images (B, 3, H, W) clamped to [-1, 1]."""
        check_codes(tokens, self.codebook_size)
        shape = (len(tokens), *resolve_grid(tokens.shape[1], grid), self.model.quantize.vq_embed_dim)
        codes = self.model.quantize.get_codebook_entry(tokens.flatten(), shape)  # (B, E, h, w)
        images = self.model.decode(codes, force_not_quantize=True).sample        # (B, 3, H, W)
        return images.clamp(-1.0, 1.0)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write what `load_tokenizer(folder)` reads, in diffusers' own layout."""
        self.model.save_pretrained(folder)


CLASSES = {"AutoencoderKL": (AutoencoderKL, DiffusersVAE), "VQModel": (VQModel, DiffusersVQ)}


def load_diffusers(folder: Path, class_name: str) -> nn.Module:
    """The tokenizer in a folder that diffusers wrote; only safetensors are read, from the disk alone."""
    if class_name not in CLASSES:
        raise ValueError(f"{folder} holds a diffusers {class_name}, but only {', '.join(CLASSES)} can be a tokenizer.")
    model_class, wrapper = CLASSES[class_name]
    return wrapper(model_class.from_pretrained(folder, use_safetensors=True, local_files_only=True))
