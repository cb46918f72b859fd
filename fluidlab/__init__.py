"""fluidlab: rebuild Fluid (arXiv 2410.13863), the text-to-image Transformer with continuous tokens in random order."""

from typing import TYPE_CHECKING

from fluidlab.cli.launch import launch
from fluidlab.config import ModelConfig, SampleConfig, TrainConfig
from fluidlab.data.captions_open import open_captions
from fluidlab.data.scenes import EmojiScenes
from fluidlab.data.token_cache import TokenCache, write_cache
from fluidlab.evaluate.loss import validation_loss, validator
from fluidlab.model.fluid import Fluid
from fluidlab.model.heads import HEADS
from fluidlab.model.orders import ORDERS
from fluidlab.presets import SIZES, preset
from fluidlab.sample.edit import inpaint, token_mask
from fluidlab.sample.generate import Step, generate
from fluidlab.text.encoder import load_text_encoder
from fluidlab.tokenizer import load_tokenizer
from fluidlab.train.loop import train
from fluidlab.train.trainer import Trainer

if TYPE_CHECKING:
    from fluidlab.pipeline import FluidPipeline

__version__ = "0.1.0"

__all__ = [
    "HEADS", "ORDERS", "SIZES", "EmojiScenes", "Fluid", "FluidPipeline", "ModelConfig", "SampleConfig", "Step",
    "TokenCache", "TrainConfig", "Trainer", "generate", "inpaint", "launch", "load_text_encoder", "load_tokenizer",
    "open_captions", "preset", "token_mask", "train", "validation_loss", "validator", "write_cache",
]


def __getattr__(name: str):
    """`FluidPipeline` when it is first asked for: it brings diffusers and transformers, which take seconds."""
    if name == "FluidPipeline":
        from fluidlab.pipeline import FluidPipeline
        globals()[name] = FluidPipeline
        return FluidPipeline
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
