"""Image <-> tokens: one continuous tokenizer, one discrete, of equal token counts, and how to get a trained one."""

import json
from pathlib import Path

from fluidlab.config import data_dir
from fluidlab.tokenizer.vae import VAEConfig, VAETokenizer
from fluidlab.tokenizer.vq import VQConfig, VQTokenizer

__all__ = ["SHIPPED", "VAEConfig", "VAETokenizer", "VQConfig", "VQTokenizer", "load_tokenizer"]

SHIPPED = ("scenes-vae", "scenes-vq")
KINDS = {"vae": VAETokenizer, "vq": VQTokenizer}


def load_tokenizer(name: str | Path):
    """A trained tokenizer, frozen and ready for use, on the CPU and in float32.

    Args:
        name: "scenes-vae" or "scenes-vq" (shipped); or a folder with config.json and weights, written by
            `save_pretrained` or `fluidlab fit`, or holding a diffusers AutoencoderKL or VQModel.

    Raises:
        ValueError: nothing of that name, or files that are none of these; the sentence says what to do.
    """
    folder = data_dir() / str(name) if str(name) in SHIPPED else Path(name)
    config = folder / "config.json"
    if not config.is_file():
        raise ValueError(
            f"The tokenizer {str(name)!r} cannot be loaded, because {config} does not exist: give one of "
            f"{', '.join(SHIPPED)} or a folder that `fluidlab fit` or `save_pretrained` wrote."
        )
    values = json.loads(config.read_text(encoding="utf-8"))
    if "_class_name" in values:  # diffusers writes its class into every configuration
        from fluidlab.tokenizer.pretrained import load_diffusers  # seconds to import: only when one is loaded
        return load_diffusers(folder, values["_class_name"])
    if values.get("kind") not in KINDS:
        raise ValueError(
            f"The tokenizer {str(name)!r} cannot be loaded, because {config} gives its kind as "
            f"{values.get('kind')!r} and not as one of {', '.join(KINDS)}: is it another model's folder?"
        )
    return KINDS[values["kind"]].from_pretrained(folder)
