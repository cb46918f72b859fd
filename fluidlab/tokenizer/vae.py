"""The continuous tokenizer: an autoencoder to 1/8 size with 4 channels, every 2x2 block of it one token of 16 numbers.

It has the ratios of the Stable Diffusion VAE that Fluid uses (Rombach et al. 2022, section 3.1; Kingma and Welling
2014 for the loss), so 64 pixels give 16 tokens, 256 pixels give 256. It differs in two ways, both for the CPU: the
convolutions run at 1/8 size, never on pixels, and nothing normalises over the image, so a crop encodes as the whole
does and every size that is a multiple of 16 works. What to notice: a token may be any 16 real numbers. Nothing is
rounded to a list of codes, and that is the whole difference to `vq.py`.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fluidlab.config import check_type
from fluidlab.tokenizer.blocks import FromPixels, Grow, Shrink, ToPixels
from fluidlab.tokenizer.chunks import Chunks
from fluidlab.tokenizer.contract import Tokenizer, check_images, check_tokens, image_grid, resolve_grid
from fluidlab.tokenizer.files import load_model, save_model
from fluidlab.tokenizer.patches import pack, unpack
from fluidlab.tokenizer.statistics import denormalise, normalise


@dataclass(frozen=True, kw_only=True)
class VAEConfig:
    """The sizes of a `VAETokenizer`: widths and numbers of residual blocks at 1/8 size and (coarse) at 1/16 size."""

    image_size: int = 64  # pixels, only the default of .grid and .seq_len: any multiple of 16 can be encoded
    latent_channels: int = 4
    width: int = 96
    encoder_depth: int = 1
    decoder_depth: int = 2
    pixel_width: int = 1024  # of the hidden layer behind the pixels
    coarse_width: int = 256
    coarse_depth: int = 3  # in the decoder; the encoder stays light, for it runs on every training image


class VAEDecoder(nn.Module):
    """Raw latents (B, C, h, w) to images (B, 3, 8h, 8w), with a side branch at half the latents' size."""

    def __init__(self, config: VAEConfig):
        super().__init__()
        self.conv = nn.Conv2d(config.latent_channels, config.width, 3, padding=1)
        self.shrink = Shrink(config.width, config.coarse_width, config.coarse_depth)
        self.grow = Grow(config.coarse_width, config.width)
        self.to_pixels = ToPixels(config.width, config.decoder_depth, config.pixel_width)
        nn.init.zeros_(self.grow.conv.weight)  # the branch starts as nothing, like every residual one

    def forward(self, latents: Tensor) -> Tensor:
        """(B, C, h, w) to (B, 3, 8h, 8w), not clamped."""
        x = self.conv(latents.contiguous(memory_format=torch.channels_last))  # (B, width, h, w)
        x = x + self.grow(self.shrink(x))                                    # (B, width, h, w)
        return self.to_pixels(x)                                              # (B, 3, 8h, 8w)


class VAETokenizer(Tokenizer):
    """Images (B, 3, H, W) in [-1, 1] to tokens (B, N, 16) of zero mean and unit variance and back, N = H/16 * W/16.

    The statistics are kept for the 4 latent channels, not for the 16 of a token: the 16 are 4 positions of the same
    4 channels, and the convolutions treat the positions alike, so 16 means would only give one latent two values.
    """

    kind = "continuous"

    def __init__(self, config: VAEConfig | None = None):
        super().__init__()
        self.config = config = config or VAEConfig()
        image_grid(config.image_size)  # refuse a bad default size now
        self.chunks = Chunks()
        self.encoder = FromPixels(config.width, config.encoder_depth)
        self.to_posterior = nn.Conv2d(config.width, 2 * config.latent_channels, 1)
        self.decoder = VAEDecoder(config)
        self.register_buffer("latent_mean", torch.zeros(config.latent_channels))
        self.register_buffer("latent_std", torch.ones(config.latent_channels))

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of tokens of an image of the default size."""
        return image_grid(self.config.image_size)

    @property
    def seq_len(self) -> int:
        """Tokens of an image of the default size."""
        return self.grid[0] * self.grid[1]

    @property
    def token_dim(self) -> int:
        """Channels of a token: 2x2 latents of `latent_channels` each."""
        return 4 * self.config.latent_channels

    def posterior(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance (B, 4, H/8, W/8) of the raw latents, in float32: what `fit` trains on."""
        mean, logvar = self.to_posterior(F.silu(self.encoder(images))).float().chunk(2, dim=1)
        return mean, (logvar - 6.0).clamp(-14.0, 4.0)  # starts near std 0.05, so that the decoder learns at once

    @torch.no_grad()
    def encode(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Images (B, 3, H, W) in [-1, 1], sides multiples of 16, to tokens (B, N, 16) in raster order.

        The posterior's mean, or with a (CPU) `generator` one sample of it. Raises ValueError for other images.
        """
        check_images(images)
        check_type("generator", generator, torch.Generator | None, "a torch.Generator")
        both = self.chunks(lambda x: torch.cat(self.posterior(x), dim=1), images, images[0, 0].numel(),
                           self.latent_mean)
        mean, logvar = both.chunk(2, dim=1)                                                  # (B, 4, H/8, W/8) each
        if generator is not None:
            noise = torch.randn(mean.shape, generator=generator)
            mean = mean + torch.exp(0.5 * logvar) * noise.to(mean)
        return pack(normalise(mean, self.latent_mean, self.latent_std))                      # (B, N, 16)

    @torch.no_grad()
    def decode(self, tokens: Tensor, grid: tuple[int, int] | None = None) -> Tensor:
        """Tokens (B, N, 16) to images (B, 3, H, W) clamped to [-1, 1]; `grid` (rows, columns) if not square."""
        check_tokens(tokens, self.token_dim)
        latents = unpack(tokens.float(), resolve_grid(tokens.shape[1], grid))                # (B, 4, H/8, W/8)
        latents = denormalise(latents, self.latent_mean, self.latent_std)
        pixels = tokens.shape[1] * self.patch_size**2
        return self.chunks(self.decoder, latents, pixels, self.latent_mean).clamp(-1.0, 1.0)  # (B, 3, H, W)

    def save_pretrained(self, folder: str | Path, dtype: torch.dtype = torch.float32) -> None:
        """Write config.json and model.safetensors; `dtype` float16 halves the file, loading gives float32 again."""
        save_model(self, {"kind": "vae", **dataclasses.asdict(self.config)}, folder, dtype)

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> "VAETokenizer":
        """Read what `save_pretrained` wrote, ready for use (evaluation mode, frozen)."""
        return load_model(lambda values: cls(VAEConfig(**values)), "vae", folder)
