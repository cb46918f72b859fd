"""Prompt -> text features -> tokens -> image: the one place where all rooms meet."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from fluidlab.config import check_range, data_dir
from fluidlab.model.files import load_model, save_model, write_json
from fluidlab.model.fluid import Fluid
from fluidlab.sample.edit import inpaint, paste, token_mask
from fluidlab.sample.generate import generate
from fluidlab.text.encoder import load_text_encoder
from fluidlab.tokenizer import load_tokenizer


@dataclass(frozen=True)
class FluidOutput:
    """images: PIL pictures. tokens: (B, N) or (B, N, C). pixels: (B, 3, H, W) float in [-1, 1]."""

    images: list[Image.Image]
    tokens: Tensor
    pixels: Tensor


class FluidPipeline:
    """A model with the tokenizer and the text encoder that it was trained on.

    Args:
        model: a `Fluid`.  tokenizer: of the kind of the model's head.  text_encoder: with the model's text_dim.

    Raises:
        ValueError: parts that do not belong together.
    """

    def __init__(self, model: Fluid, tokenizer, text_encoder):
        self.model, self.tokenizer, self.text_encoder = model, tokenizer, text_encoder
        config = model.config
        if tokenizer.kind != config.token_kind:
            raise ValueError(f"head {config.head!r} needs a {config.token_kind} tokenizer, got a {tokenizer.kind} one.")
        size = "codebook_size" if tokenizer.kind == "discrete" else "token_dim"
        if getattr(tokenizer, size) != getattr(config, size):
            raise ValueError(f"the model was built for {size} {getattr(config, size)}, "
                             f"the tokenizer has {getattr(tokenizer, size)}.")
        if text_encoder.dim != config.text_dim:
            raise ValueError(f"the model was built for text_dim {config.text_dim}, "
                             f"the text encoder has {text_encoder.dim}.")

    @classmethod
    def from_pretrained(cls, name: str | Path) -> "FluidPipeline":
        """A pipeline by shipped name ("random-diffusion-mini") or folder.

        Raises:
            ValueError: neither exists; the sentence lists what is shipped.
        """
        folder = Path(name) if Path(name).is_dir() else data_dir() / str(name)
        if not (folder / "pipeline.json").is_file():
            shipped = sorted(p.parent.name for p in data_dir().glob("*/pipeline.json"))
            raise ValueError(f"{str(name)!r} is neither a folder with a pipeline.json nor a shipped model; "
                             f"shipped are: {', '.join(shipped) or 'none'}.")
        parts = json.loads((folder / "pipeline.json").read_text(encoding="utf-8"))

        def find(part: str) -> str:
            inside = folder / parts[part]
            return str(inside) if inside.is_dir() else parts[part]
        return cls(load_model(folder), load_tokenizer(find("tokenizer")), load_text_encoder(find("text_encoder")))

    def save_pretrained(self, folder: str | Path, dtype: torch.dtype = torch.float32) -> Path:
        """Write everything that is needed to draw again: model, tokenizer and text encoder, safetensors and JSON."""
        folder = save_model(self.model, folder, dtype=dtype)
        self.tokenizer.save_pretrained(folder / "tokenizer")
        self.text_encoder.save_pretrained(folder / "text_encoder")
        write_json(folder / "pipeline.json", {"tokenizer": "tokenizer", "text_encoder": "text_encoder"})
        return folder

    def __call__(self, prompt: str | list[str], *, seed: int | list[int] | None = None, generator=None,
                 num_images_per_prompt: int = 1, **options) -> FluidOutput:
        """Draw images.

        Args:
            prompt: one text or a list. An empty text means "no text".
            seed: image i uses seed + i; or one seed per image. The same seed draws the same image in any batch.
            generator: instead of a seed, as in `generate`.
            num_images_per_prompt: each prompt that many times, with seeds of their own.
            options: guidance_scale, guidance_schedule, temperature, num_inference_steps, num_denoising_steps,
                on_step, use_cache: of `generate`.
        """
        check_range("num_images_per_prompt", num_images_per_prompt, 1, kind=int)
        prompts = [p for p in ([prompt] if isinstance(prompt, str) else list(prompt))
                   for _ in range(num_images_per_prompt)]
        features, mask = self.text_encoder(prompts)                                     # (B, S, E), (B, S)
        tokens = generate(self.model, features, mask, generator=_generators(seed, generator, len(prompts)), **options)
        return self._output(tokens)

    def inpaint(self, image: Tensor, pixel_mask: Tensor, prompt: str, *, seed: int | None = None, ring: int = 1,
                keep_pixels: bool = True, **options) -> FluidOutput:
        """Draw a part of a picture anew.

        Args:
            image: (3, H, W) float in [-1, 1].  pixel_mask: (H, W) bool, True = may change.
            prompt: of the whole picture.  ring: tokens that the mask grows by.
            keep_pixels: paste the original over every pixel outside the mask.
        """
        tokens = self.tokenizer.encode(image[None])
        unknown = token_mask(pixel_mask, self.tokenizer.patch_size, ring)
        features, mask = self.text_encoder([prompt])
        tokens = inpaint(self.model, tokens, unknown, features, mask, generator=_generators(seed, None, 1), **options)
        output = self._output(tokens)
        return self._images(tokens, paste(image[None], output.pixels, pixel_mask)) if keep_pixels else output

    def _output(self, tokens: Tensor) -> FluidOutput:
        with torch.no_grad():
            return self._images(tokens, self.tokenizer.decode(tokens))

    @staticmethod
    def _images(tokens: Tensor, pixels: Tensor) -> FluidOutput:
        arrays = ((pixels.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()
        return FluidOutput([Image.fromarray(a) for a in arrays], tokens, pixels)


def _generators(seed, generator, batch: int):
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
