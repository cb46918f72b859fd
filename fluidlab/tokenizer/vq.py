"""The discrete tokenizer: every 16x16 pixels become the number of one code of a codebook.

It plays the part of the VQGAN that Fluid uses (Esser et al. 2021) without its adversarial and perceptual losses: the
course compares what the two kinds of token can keep, measured in squared error for both. Encoder and decoder are made
of the same blocks as those of `vae.py`. What to notice: between `encode` and `decode` stands one integer a token, at
most log2(V) bits, and whatever hue or offset the codes do not know is gone for good.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fluidlab.config import check_range
from fluidlab.tokenizer.blocks import FromPixels, Grow, Shrink, ToPixels, mix_blocks
from fluidlab.tokenizer.chunks import Chunks
from fluidlab.tokenizer.contract import Tokenizer, check_codes, check_images, image_grid, resolve_grid
from fluidlab.tokenizer.files import load_model, save_model
from fluidlab.tokenizer.quantizer import Codebook


@dataclass(frozen=True, kw_only=True)
class VQConfig:
    """The sizes of a `VQTokenizer`: its codebook, and widths and residual blocks at 1/8 and (coarse) at 1/16 size."""

    image_size: int = 64  # pixels, only the default of .grid and .seq_len: any multiple of 16 can be encoded
    codebook_size: int = 4096
    code_dim: int = 16
    width: int = 96
    encoder_depth: int = 1
    decoder_depth: int = 2
    pixel_width: int = 1024  # of the hidden layer behind the pixels
    coarse_width: int = 256
    coarse_encoder_depth: int = 2
    coarse_decoder_depth: int = 3


class VQDecoder(nn.Module):
    """Codes (B, E, h, w) to images (B, 3, 16h, 16w)."""

    def __init__(self, config: VQConfig):
        super().__init__()
        self.conv = nn.Conv2d(config.code_dim, config.coarse_width, 3, padding=1)
        self.blocks = mix_blocks(config.coarse_width, config.coarse_decoder_depth)
        self.grow = Grow(config.coarse_width, config.width)
        self.to_pixels = ToPixels(config.width, config.decoder_depth, config.pixel_width)

    def forward(self, codes: Tensor) -> Tensor:
        """(B, E, h, w) to (B, 3, 16h, 16w), not clamped."""
        x = self.conv(codes.contiguous(memory_format=torch.channels_last))  # (B, coarse, h, w)
        return self.to_pixels(self.grow(self.blocks(x)))                  # (B, 3, 16h, 16w)


class VQTokenizer(Tokenizer):
    """Images (B, 3, H, W) in [-1, 1] to tokens (B, N) in 0..codebook_size-1 and back, N = H/16 * W/16."""

    kind = "discrete"

    def __init__(self, config: VQConfig | None = None):
        super().__init__()
        self.config = config = config or VQConfig()
        image_grid(config.image_size)  # refuse a bad default size now
        check_range("codebook_size", config.codebook_size, 2, kind=int)
        self.chunks = Chunks()
        self.encoder = FromPixels(config.width, config.encoder_depth)
        self.shrink = Shrink(config.width, config.coarse_width, config.coarse_encoder_depth)
        self.to_code = nn.Conv2d(config.coarse_width, config.code_dim, 1)
        self.codebook = Codebook(config.codebook_size, config.code_dim)
        self.decoder = VQDecoder(config)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of tokens of an image of the default size."""
        return image_grid(self.config.image_size)

    @property
    def seq_len(self) -> int:
        """Tokens of an image of the default size."""
        return self.grid[0] * self.grid[1]

    @property
    def codebook_size(self) -> int:
        """How many codes there are: tokens lie in 0..codebook_size-1."""
        return self.config.codebook_size

    def features(self, images: Tensor) -> Tensor:
        """What the codebook is asked about, (B, E, H/16, W/16), before quantisation."""
        return self.to_code(F.silu(self.shrink(self.encoder(images))))

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [-1, 1], sides multiples of 16, to tokens (B, N) int64 in raster order.

        Raises ValueError for other images.
        """
        check_images(images)
        return self.chunks(self.features, images, images[0, 0].numel(), self.codebook.codes, after=self.codebook)

    @torch.no_grad()
    def decode(self, tokens: Tensor, grid: tuple[int, int] | None = None) -> Tensor:
        """Tokens (B, N) to images (B, 3, H, W) clamped to [-1, 1]; `grid` (rows, columns) if not square."""
        check_codes(tokens, self.codebook_size)
        grid, pixels = resolve_grid(tokens.shape[1], grid), tokens.shape[1] * self.patch_size**2
        images = self.chunks(lambda t: self.decoder(self.codebook.lookup(t, grid)), tokens, pixels, self.codebook.codes)
        return images.clamp(-1.0, 1.0)                                             # (B, 3, 16h, 16w)

    def save_pretrained(self, folder: str | Path, dtype: torch.dtype = torch.float32) -> None:
        """Write config.json and model.safetensors; `dtype` float16 halves the file, loading gives float32 again."""
        save_model(self, {"kind": "vq", **dataclasses.asdict(self.config)}, folder, dtype)

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> "VQTokenizer":
        """Read what `save_pretrained` wrote, ready for use (evaluation mode, frozen)."""
        return load_model(lambda values: cls(VQConfig(**values)), "vq", folder)
