"""Every choice a run can make, in three frozen dataclasses, and where the shipped files live.

This file knows no layer, no data set and no device. A configuration is checked the moment it is made, so that a
mistake is named before the first step and not after the first hour. All three travel as plain JSON.
"""

import dataclasses
import math
import os
from dataclasses import dataclass
from pathlib import Path

ORDER_NAMES = ("raster", "random")
TOKEN_KINDS = {"softmax": "discrete", "diffusion": "continuous", "flow": "continuous"}      # head -> what a token is

LARGEST = 2**24          # of any number in a ModelConfig: far above every model, far below what torch cannot count

SOLVER_NAMES = ("ancestral", "dpm++", "ddim", "heun", "euler")


def data_dir() -> Path:
    """The folder of the files that the course ships.

    Returns:
        `$FLUIDLAB_DATA` if it is set, else `data/` beside the package (a clone), else `fluidlab/_data` (a wheel).
    """
    if os.environ.get("FLUIDLAB_DATA"):
        return Path(os.environ["FLUIDLAB_DATA"])
    package = Path(__file__).resolve().parent
    clone = package.parent / "data"
    return clone if (clone / "README.md").exists() else package / "_data"


def cache_dir() -> Path:
    """The folder for what was measured on this machine and is worth keeping: `$FLUIDLAB_CACHE`, else one in the home.

    Returns:
        a path that need not exist yet; nothing in it is needed, and all of it may be removed.
    """
    if os.environ.get("FLUIDLAB_CACHE"):
        return Path(os.environ["FLUIDLAB_CACHE"])
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "fluidlab"


def check_choice(name: str, value, allowed) -> None:
    """Raise `ValueError` unless `value` is one of `allowed`."""
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(map(str, allowed))}, got {short(value)}.")


def check_type(name: str, value, kind: type | tuple[type, ...], what: str) -> None:
    """Raise `ValueError` unless `value` is of the kind, which is `what` in words."""
    if not isinstance(value, kind):
        raise ValueError(f"{name} must be {what}, got {short(value)}.")


def short(value, longest: int = 80) -> str:
    """What was given, as a sentence can hold it: the beginning of what is long, the type of what has several lines."""
    if isinstance(value, int) and value.bit_length() > 1000:            # Python refuses to write very long numbers
        return f"a number of {value.bit_length()} bits"
    shown = repr(value)
    if len(shown) <= longest and "\n" not in shown:
        return shown
    plain = isinstance(value, str | bytes | int | float | list | tuple | dict)
    return shown[:longest] + "..." if plain else f"a {type(value).__name__}"


def check_range(name: str, value, low, high=math.inf, kind=(int, float)) -> None:
    """Raise `ValueError` unless `value` is a number of the given kind with low <= value <= high."""
    if isinstance(value, bool) or not isinstance(value, kind) or not low <= value <= high:
        what = "a whole number" if kind is int else "a number"
        span = f"at least {low}" if high == math.inf else f"from {low} to {high}"
        raise ValueError(f"{name} must be {what} {span}, got {short(value)}.")


class _Travels:
    """JSON there and back; unknown keys are named, not ignored."""

    def to_dict(self) -> dict:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict):
        check_type(cls.__name__, values, dict, "made of a dictionary")
        names = {f.name for f in dataclasses.fields(cls)}
        unknown = sorted(map(str, set(values) - names))
        if unknown:
            raise ValueError(f"{cls.__name__} has no {', '.join(unknown)}; it knows {', '.join(sorted(names))}.")
        return cls(**values)

    def replace(self, **changes):
        return type(self).from_dict({**self.to_dict(), **changes})


@dataclass(frozen=True, kw_only=True)
class ModelConfig(_Travels):
    """What a Fluid model is. The two axes first: any order goes with any head.

    Args:
        order: "raster" (causal, next token) or "random" (bidirectional, masked tokens).
        head: "softmax" (discrete tokens), "diffusion" or "flow" (continuous tokens).
        width, depth, num_heads: of the backbone's Transformer blocks; num_heads divides width.
        aligner_depth: Transformer blocks between the frozen text encoder and the backbone (the paper: 6).
        head_depth, head_width: layers of a continuous head's MLP (the paper: 6, as wide as the backbone: None).
        seq_len: image tokens N, a square number: 16 at 64 pixels, 256 at 256 pixels.
        text_dim: channels E of the text encoder's features.
        codebook_size: V, what a discrete token can be.  token_dim: C, channels of a continuous token.
        num_train_timesteps: noise levels that the diffusion head is trained on.
        head_repeats: noise draws per token in one training step (MAR draws 4; the expensive z is shared).
    """

    order: str = "random"
    head: str = "diffusion"
    width: int = 192
    depth: int = 4
    num_heads: int = 4
    mlp_ratio: int = 4
    aligner_depth: int = 6
    head_depth: int = 6
    head_width: int | None = None
    seq_len: int = 16
    text_dim: int = 128
    codebook_size: int = 4096
    token_dim: int = 16
    num_train_timesteps: int = 1000
    head_repeats: int = 1

    def __post_init__(self):
        check_choice("order", self.order, ORDER_NAMES)
        check_choice("head", self.head, tuple(TOKEN_KINDS))
        for name in ("width", "depth", "num_heads", "mlp_ratio", "aligner_depth", "head_depth", "seq_len", "text_dim",
                     "codebook_size", "token_dim", "num_train_timesteps", "head_repeats"):
            low = {"width": 4, "codebook_size": 2, "num_train_timesteps": 2, "aligner_depth": 0}.get(name, 1)
            check_range(name, getattr(self, name), low, kind=int)
            if getattr(self, name) > LARGEST:
                raise ValueError(f"{name} must be at most {LARGEST}, got {short(getattr(self, name))}.")
        if self.head_width is not None:
            check_range("head_width", self.head_width, 4, kind=int)
        if self.width % self.num_heads:
            raise ValueError(f"width must be a multiple of num_heads, got width {self.width} and "
                             f"num_heads {self.num_heads}.")
        if self.width % 4:
            raise ValueError(f"width must be a multiple of 4 for 2-D sine-cosine positions, got {self.width}.")
        if math.isqrt(self.seq_len) ** 2 != self.seq_len:
            raise ValueError(f"seq_len must be a square number (16 tokens are a 4x4 grid), got {self.seq_len}.")

    @property
    def token_kind(self) -> str:
        return TOKEN_KINDS[self.head]

    @property
    def grid(self) -> tuple[int, int]:
        side = math.isqrt(self.seq_len)
        return side, side


@dataclass(frozen=True, kw_only=True)
class TrainConfig(_Travels):
    """How a model is trained. The defaults are the toy's; the paper's scale has its own in `presets.py`.

    Args:
        steps, batch_size: optimizer steps, and images in each over all devices.
        lr, warmup_steps, schedule: peak rate, linear warm-up, then "constant" or "cosine" (to `final_lr` x lr).
        betas, weight_decay: AdamW's; matrices decay, vectors and embeddings do not.
        clip: largest norm of the whole gradient.
        ema_decay: of the weights' running mean, warmed up as min(ema_decay, (1 + n) / (10 + n)).
        text_dropout: probability that an image is trained without its text, so that guidance has a null.
        precision: "float32" or "bf16" (autocast; the diffusion arithmetic stays float32). Never fp16.
        micro_batch: images that a device computes at once, their gradients added up; 0 = its whole share of the batch.
        checkpointing: recompute the backbone's blocks in the backward pass, which takes time and spares memory.
        compile: each Transformer block by torch.compile.
        shards: devices that share one copy of the state; 0 = all (FSDP), fewer = several copies (HSDP).
        keep: checkpoints to keep, the newest ones; the one with the best validation loss stays besides.
        log_every, validate_every, save_every: steps between two of each; 0 = never.
        seed: of everything random; the batch and noise of step n depend on (seed, n) alone.
    """

    steps: int = 1000
    batch_size: int = 128
    lr: float = 1e-3
    warmup_steps: int = 100
    schedule: str = "cosine"
    final_lr: float = 0.05
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.02
    clip: float = 1.0
    ema_decay: float = 0.9999
    text_dropout: float = 0.1
    precision: str = "float32"
    micro_batch: int = 0
    checkpointing: bool = False
    compile: bool = False
    shards: int = 0
    keep: int = 2
    log_every: int = 50
    validate_every: int = 500
    validate_images: int = 2048
    save_every: int = 500
    seed: int = 0

    def __post_init__(self):
        check_type("betas", self.betas, (list, tuple), "two numbers")
        object.__setattr__(self, "betas", tuple(self.betas))                # JSON has lists
        for name in ("steps", "batch_size", "validate_images", "keep"):
            check_range(name, getattr(self, name), 1, kind=int)
        for name in ("checkpointing", "compile"):
            check_choice(name, getattr(self, name), (False, True))
        for name in ("warmup_steps", "log_every", "validate_every", "save_every", "micro_batch", "shards"):
            check_range(name, getattr(self, name), 0, kind=int)
        check_range("seed", self.seed, 0, 2**63 - 1, kind=int)
        if self.micro_batch and self.batch_size % self.micro_batch:
            raise ValueError(f"batch_size must be a multiple of micro_batch, got {self.batch_size} and "
                             f"{self.micro_batch}.")
        if isinstance(self.lr, bool) or not (isinstance(self.lr, int | float) and 0 < self.lr < math.inf):
            raise ValueError(f"lr must be a positive finite number, got {short(self.lr)}.")
        for name in ("final_lr", "text_dropout", "ema_decay"):
            check_range(name, getattr(self, name), 0, 1)
        check_range("clip", self.clip, 1e-12)
        check_range("weight_decay", self.weight_decay, 0, 1)
        check_choice("schedule", self.schedule, ("constant", "cosine"))
        check_choice("precision", self.precision, ("float32", "bf16"))
        if len(self.betas) != 2 or not all(isinstance(b, int | float) and 0 <= b < 1 for b in self.betas):
            raise ValueError(f"betas must be two numbers from 0 to below 1, got {short(self.betas)}.")


@dataclass(frozen=True, kw_only=True)
class SampleConfig(_Travels):
    """How an image is drawn.

    Args:
        guidance_scale: 1.0 is off; above 1 the text pulls harder.
        guidance_schedule: "constant", or "linear" (MAR): from 1 up to the scale as tokens become known.
        temperature: of the softmax, or of the noise that a continuous head injects; 0 is deterministic
            (a diffusion head: given its initial noise).
        num_inference_steps: passes over the sequence; None = one per token, at most 64 (the paper's number).
        num_denoising_steps: steps inside a continuous head (the paper: 100). Two numbers: for the first tokens and for
            the last, falling evenly as tokens become known (arXiv 2505.20297), since late tokens have less to decide.
        solver: of a continuous head; None = its own. Diffusion: "ancestral", "dpm++" (as good in fewer steps), "ddim";
            flow: "heun", "euler".
    """

    guidance_scale: float = 3.0
    guidance_schedule: str = "constant"
    temperature: float = 1.0
    num_inference_steps: int | None = None
    num_denoising_steps: int | tuple[int, int] = 25
    solver: str | None = None

    def __post_init__(self):
        check_range("guidance_scale", self.guidance_scale, 0, 100)
        check_choice("guidance_schedule", self.guidance_schedule, ("constant", "linear"))
        check_range("temperature", self.temperature, 0, 10)
        if self.num_inference_steps is not None:
            check_range("num_inference_steps", self.num_inference_steps, 1, kind=int)
        if isinstance(self.num_denoising_steps, list | tuple):                  # JSON has lists
            object.__setattr__(self, "num_denoising_steps", tuple(self.num_denoising_steps))
            if len(self.num_denoising_steps) != 2:
                raise ValueError(f"num_denoising_steps must be a number, or 2 for the first and the last tokens, "
                                 f"got {len(self.num_denoising_steps)}.")
        for number in self.denoising_steps():
            check_range("num_denoising_steps", number, 1, 1000, kind=int)
        check_choice("solver", self.solver, (None, *SOLVER_NAMES))

    def denoising_steps(self) -> tuple[int, ...]:
        """The two numbers of denoising steps, or the one."""
        several = isinstance(self.num_denoising_steps, tuple)
        return self.num_denoising_steps if several else (self.num_denoising_steps,)

    def denoising_steps_at(self, known: float) -> int:
        """Denoising steps when a fraction `known` of the tokens is known before they begin."""
        first, last = self.denoising_steps()[0], self.denoising_steps()[-1]
        return round(first + (last - first) * known)
