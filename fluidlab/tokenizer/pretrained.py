"""diffusers' own autoencoders behind the same two methods: AutoencoderKL (continuous) and VQModel (discrete).

Fluid's real tokenizers are of these two classes. Hidden here: VQModel's `encode` returns the features before
quantisation, its quantizer returns the indices of a batch in one flat row, and its `decode` quantises again unless it
is told not to, and then either takes codes or looks them up, as its configuration says. One more thing stands in no
configuration of a model: aMUSEd's VQModel sees pixels in [0, 1] where all others see [-1, 1]; its pipeline knows.
"""

from dataclasses import asdict
from pathlib import Path

import torch
from diffusers import AutoencoderKL, VQModel
from torch import Tensor, nn

from fluidlab.hub import read_json, reading
from fluidlab.hub.snapshot import PIPELINE
from fluidlab.tokenizer.chunks import Chunks
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
from fluidlab.tokenizer.statistics import Statistics, denormalise, kept_statistics, normalise
from fluidlab.whole import write_json

OURS = "fluidlab.json"                     # beside diffusers' config.json: what of ours a saved tokenizer depends on
SIGNED, UNSIGNED = (-1.0, 1.0), (0.0, 1.0)
UNSIGNED_PIPELINES = ("AmusedPipeline",)   # whose image processor does not normalise


def _check_config(name: str, config, factor: int) -> None:
    found = 2 ** (len(config.block_out_channels) - 1)
    if found != factor:
        raise ValueError(f"This {name} shrinks images by {found}, but a token of 16x16 pixels needs one by {factor}.")
    if (config.in_channels, config.out_channels) != (3, 3):
        raise ValueError(f"This {name} takes {config.in_channels} and gives {config.out_channels} channels, but "
                         f"images have 3.")


class DiffusersVAE(Tokenizer):
    """An AutoencoderKL that shrinks by 8, its latents packed 2x2: tokens (B, N, 4 * latent_channels).

    Latents are brought to unit variance: by `statistics` if given, else as the model's own configuration says. There
    `latents_mean` and `latents_std` go before `shift_factor` and `scaling_factor`, and without the latter, which in a
    model with both is the variance that its diffusion model wants and not the one that the latents have.

    Args:
        model: of diffusers.  image_size: side in pixels, the default of .grid and .seq_len; any multiple of 16 can be
            encoded.  statistics: measured ones.  pixel_range: what the model calls black and white.
        chunks: images at once, and the precision.
    """

    kind = "continuous"

    def __init__(self, model: AutoencoderKL, image_size: int = 256, *, statistics: Statistics | None = None,
                 pixel_range: tuple[float, float] = SIGNED, chunks: Chunks | None = None):
        super().__init__()
        c = model.config
        _check_config("AutoencoderKL", c, 8)
        self.model, self.grid = model.eval().requires_grad_(False), image_grid(image_size)
        self.seq_len, self.token_dim = self.grid[0] * self.grid[1], 4 * c.latent_channels
        self.pixel_range, self.chunks = pixel_range, chunks or Chunks()
        statistics = statistics or configured_statistics(c)
        if len(statistics.mean) != c.latent_channels:
            raise ValueError(f"There are statistics of {len(statistics.mean)} channels, but this AutoencoderKL has "
                             f"{c.latent_channels}.")
        # All three are part of the fingerprint, because with others the tokens would be others.
        self.register_buffer("latent_mean", torch.tensor(statistics.mean))
        self.register_buffer("latent_std", torch.tensor(statistics.std))
        self.register_buffer("pixel_bounds", torch.tensor(pixel_range))

    @torch.no_grad()
    def encode(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Images (B, 3, H, W) in [-1, 1], of any device, to tokens (B, N, C) float32 on the same device.

        The posterior's mean, or with a (CPU) `generator` one sample of it.
        """
        check_images(images)
        both = self.chunks(lambda x: self.model.encode(x).latent_dist.parameters, _to(self.pixel_range, images),
                           images[0, 0].numel(), self._weight)                                 # (B, 2c, H/8, W/8)
        mean, logvar = both.chunk(2, dim=1)                                                    # (B, c, H/8, W/8) each
        if generator is not None:
            noise = torch.randn(mean.shape, generator=generator).to(mean)
            mean = mean + torch.exp(0.5 * logvar.clamp(-30.0, 20.0)) * noise                   # as diffusers clamps it
        return pack(normalise(mean, self.latent_mean, self.latent_std))                        # (B, N, C)

    @torch.no_grad()
    def decode(self, tokens: Tensor, grid: tuple[int, int] | None = None) -> Tensor:
        """Tokens (B, N, C), of any device, to images (B, 3, H, W) float32 clamped to [-1, 1]."""
        check_tokens(tokens, self.token_dim)
        latents = unpack(tokens.float(), resolve_grid(tokens.shape[1], grid))                  # (B, c, H/8, W/8)
        latents = denormalise(latents, self.latent_mean, self.latent_std)
        images = self.chunks(lambda z: self.model.decode(z).sample, latents, tokens.shape[1] * PATCH_SIZE**2,
                             self._weight)                                                     # (B, 3, H, W)
        return _from(self.pixel_range, images).clamp(-1.0, 1.0)

    @property
    def _weight(self) -> Tensor:
        return self.model.decoder.conv_in.weight

    def save_pretrained(self, folder: str | Path) -> None:
        """Write what `load_tokenizer(folder)` reads, in diffusers' own layout, and the scale of the tokens beside."""
        self.model.save_pretrained(folder)
        scale = Statistics(mean=self.latent_mean.tolist(), std=self.latent_std.tolist(), source="as saved")
        write_json(Path(folder) / OURS, {"pixel_range": list(self.pixel_range), "statistics": asdict(scale)})


class DiffusersVQ(Tokenizer):
    """A VQModel that shrinks by 16: tokens (B, N), one code each.

    Args:
        model: of diffusers.  image_size, pixel_range, chunks: as of DiffusersVAE.
    """

    kind = "discrete"

    def __init__(self, model: VQModel, image_size: int = 256, *, pixel_range: tuple[float, float] = SIGNED,
                 chunks: Chunks | None = None):
        super().__init__()
        _check_config("VQModel", model.config, PATCH_SIZE)
        self.model, self.grid = model.eval().requires_grad_(False), image_grid(image_size)
        self.seq_len, self.codebook_size = self.grid[0] * self.grid[1], model.config.num_vq_embeddings
        self.pixel_range, self.chunks = pixel_range, chunks or Chunks()
        self.register_buffer("pixel_bounds", torch.tensor(pixel_range))    # part of the fingerprint

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [-1, 1], of any device, to tokens (B, N) int64 on the same device."""
        check_images(images)
        return self.chunks(lambda x: self.model.encode(x).latents, _to(self.pixel_range, images),
                           images[0, 0].numel(), self._weight, after=self._nearest)            # (B, N)

    def _nearest(self, latents: Tensor) -> Tensor:
        """Latents (b, E, h, w) to the codes (b, N) at the smallest distance."""
        indices = self.model.quantize(latents.to(self._weight.dtype))[2][2]                    # (b*N,)
        return indices.reshape(len(latents), -1)

    @torch.no_grad()
    def decode(self, tokens: Tensor, grid: tuple[int, int] | None = None) -> Tensor:
        """Tokens (B, N), of any device, to images (B, 3, H, W) float32 clamped to [-1, 1]."""
        check_codes(tokens, self.codebook_size)
        grid = resolve_grid(tokens.shape[1], grid)
        images = self.chunks(lambda t: self._from_codes(t, grid), tokens, tokens.shape[1] * PATCH_SIZE**2,
                             self._weight)                                                     # (B, 3, H, W)
        return _from(self.pixel_range, images).clamp(-1.0, 1.0)

    def _from_codes(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """Tokens (b, N) to raw images (b, 3, H, W)."""
        shape = (len(tokens), *grid, self.model.quantize.vq_embed_dim)
        if self.model.config.lookup_from_codebook:             # then `decode` itself turns codes' numbers into codes
            return self.model.decode(tokens.flatten(), force_not_quantize=True, shape=shape).sample
        codes = self.model.quantize.get_codebook_entry(tokens.flatten(), shape)                # (b, E, h, w)
        return self.model.decode(codes, force_not_quantize=True).sample

    @property
    def _weight(self) -> Tensor:
        return self.model.quantize.embedding.weight

    def save_pretrained(self, folder: str | Path) -> None:
        """Write what `load_tokenizer(folder)` reads, in diffusers' own layout."""
        self.model.save_pretrained(folder)
        write_json(Path(folder) / OURS, {"pixel_range": list(self.pixel_range)})


CLASSES = {"AutoencoderKL": AutoencoderKL, "VQModel": VQModel}


def load_diffusers(folder: Path, class_name: str, *, image_size: int | None = None, statistics: bool = True,
                   pixel_range: tuple[float, float] | None = None, chunks: Chunks | None = None) -> nn.Module:
    """The tokenizer in a folder that diffusers wrote; only safetensors are read, from the disk alone.

    Args:
        statistics: use those that were saved with it or measured by `fluidlab stats`; False for its configuration's.
        pixel_range: None for what was saved with it, or what the pipeline around it is known for, or (-1, 1).
    """
    if class_name not in CLASSES:
        raise ValueError(f"{folder} holds a diffusers {class_name}, but only {', '.join(CLASSES)} can be a tokenizer.")
    with reading(class_name, folder):
        model = CLASSES[class_name].from_pretrained(folder, use_safetensors=True, local_files_only=True,
                                                    torch_dtype=torch.float32, low_cpu_mem_usage=False)
    ours = read_json(folder / OURS) if (folder / OURS).is_file() else {}
    pixel_range = pixel_range or tuple(ours.get("pixel_range", _pixel_range(folder)))
    size = 256 if image_size is None else image_size
    if class_name == "VQModel":
        return DiffusersVQ(model, size, pixel_range=pixel_range, chunks=chunks)
    measured = None
    if statistics:
        measured = Statistics(**ours["statistics"]) if "statistics" in ours else kept_statistics(model, pixel_range)
    return DiffusersVAE(model, size, statistics=measured, pixel_range=pixel_range, chunks=chunks)


def configured_statistics(config) -> Statistics:
    """The scale that an AutoencoderKL's own configuration gives its latents."""
    channels = config.latent_channels
    mean = config.latents_mean or [config.shift_factor or 0.0] * channels
    return Statistics(mean=mean, std=config.latents_std or [1.0 / config.scaling_factor] * channels,
                      source="configuration")


def _pixel_range(folder: Path) -> tuple[float, float]:
    """What black and white are to a model, by the pipeline whose part it is."""
    pipeline = folder.parent / PIPELINE
    if not pipeline.is_file():
        return SIGNED
    return UNSIGNED if read_json(pipeline).get("_class_name") in UNSIGNED_PIPELINES else SIGNED


def _to(pixel_range: tuple[float, float], images: Tensor) -> Tensor:
    """From [-1, 1] to what the model calls black and white."""
    low, high = pixel_range
    return images if pixel_range == SIGNED else (images + 1) * ((high - low) / 2) + low


def _from(pixel_range: tuple[float, float], images: Tensor) -> Tensor:
    """The way back."""
    low, high = pixel_range
    return images if pixel_range == SIGNED else (images - low) * (2 / (high - low)) - 1
