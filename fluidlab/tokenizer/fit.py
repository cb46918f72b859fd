"""Train a tokenizer on whatever images it is given: minutes on a CPU core, and never a step lost.

The images come in as a function, so this file knows no data set; `fluidlab fit` wires scenes and photographs to it.
The loss is squared error on pixels, which is what PSNR counts, plus a little absolute error, which keeps thin dark
outlines crisp. There is no perceptual and no adversarial term: both would need a network of their own. What to notice:
the learning rate follows the clock or the steps, whichever the budget was given in, down to zero on a cosine, and the
weights that are kept are a moving average (EMA) of those that are trained. Kernels are trained by Muon (Jordan et al.
2024), which makes the update of a matrix nearly orthogonal; `data/README.md` has what it and AdamW reached in one time.
"""

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from tqdm.auto import tqdm

from fluidlab.tokenizer.files import load_optimizer, optimizer_tensors
from fluidlab.tokenizer.metrics import psnr
from fluidlab.tokenizer.vae import VAEConfig, VAETokenizer
from fluidlab.tokenizer.vq import VQConfig, VQTokenizer
from fluidlab.whole import write_json, write_tensors

TOKENIZERS = {"vae": (VAETokenizer, VAEConfig), "vq": (VQTokenizer, VQConfig)}


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """The recipe of a tokenizer's training."""

    batch_size: int = 32            # few, so that many steps fit into the time; enough to pay for Muon's own work
    lr: float = 5e-3                # of Muon, its updates scaled to AdamW's size; AdamW, for the rest, has half
    warmup_steps: int = 100
    ema_decay: float = 0.998
    l1_weight: float = 0.05
    kl_weight: float = 1e-3         # times KL per pixel value; keeps the posterior's noise at a few per cent
    commitment_weight: float = 0.1  # VQ: how strongly inputs are pulled to their code
    seed: int = 0
    save_every: int = 500           # steps between checkpoints

    def __post_init__(self):
        if self.batch_size < 1 or not 0 < self.lr <= 1 or self.save_every < 1:
            raise ValueError(
                f"Got batch_size={self.batch_size}, lr={self.lr}, save_every={self.save_every}; all must be positive."
            )


def mixes_channels(p: nn.Parameter) -> bool:
    """Whether a parameter is a kernel (O, I, h, w) that Muon can train as a matrix (O, I*h*w)."""
    return p.ndim == 4 and p.shape[1] > 1 and min(p.shape[0], p[0].numel()) >= 16


class Fitting:
    """The state of a training run: model, optimisers, moving average, step, seconds, random stream."""

    def __init__(self, kind: str, model_config: VAEConfig | VQConfig, config: FitConfig,
                 decoder_of: Path | None = None):
        torch.manual_seed(config.seed)  # the initial weights; every later draw comes from self.generator
        self.kind, self.config, self.step, self.seconds = kind, config, 0, 0.0
        self.decoder_only = decoder_of is not None
        if self.decoder_only:  # tokens, and all models that learned from them, stay as they are
            self.model = TOKENIZERS[kind][0].from_pretrained(decoder_of)
            self.model.decoder.requires_grad_(True)
        else:
            self.model = TOKENIZERS[kind][0](model_config)
        self.generator = torch.Generator().manual_seed(config.seed)
        self.ema = {name: value.detach().clone() for name, value in self.model.named_parameters()}
        trained = [p for p in self.model.parameters() if p.requires_grad]
        self.kernels = [p for p in trained if mixes_channels(p)]
        self.matrices = [nn.Parameter(p.detach().flatten(1)) for p in self.kernels]  # the same memory
        others = [p for p in trained if not mixes_channels(p)]
        self.optimizers = {
            "muon": torch.optim.Muon(self.matrices, weight_decay=0.0, ns_steps=3,
                                     adjust_lr_fn="match_rms_adamw"),
            "adam": torch.optim.AdamW(others, betas=(0.9, 0.99), weight_decay=1e-4, fused=True),
        }

    def loss(self, images: Tensor) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """The loss and the reconstructions (B, 3, H, W) of one batch in [-1, 1], and what the codebook learns from."""
        config, model, seen = self.config, self.model, ()
        with torch.autocast("cpu", torch.bfloat16):
            if self.kind == "vae":
                mean, logvar = model.posterior(images)                                     # (B, 4, H/8, W/8) each
                noise = torch.randn(mean.shape, generator=self.generator)
                reconstructions = model.decoder(mean + torch.exp(0.5 * logvar) * noise).float()
                kl = 0.5 * (mean.square() + logvar.exp() - 1.0 - logvar).sum() / images.numel()
                extra = config.kl_weight * kl
            else:
                features = model.features(images).float()                                  # (B, E, H/16, W/16)
                codes, indices, commitment = model.codebook.straight_through(features)
                reconstructions = model.decoder(codes).float()
                extra, seen = config.commitment_weight * commitment, (features.detach(), indices)
        error = reconstructions - images                                                   # float32 from here on
        return error.square().mean() + config.l1_weight * error.abs().mean() + extra, reconstructions, seen

    def train_step(self, images: Tensor, progress: float) -> tuple[float, float]:
        """One step at `progress` 0..1 of the budget; the loss and the batch's PSNR in dB."""
        lr = self.config.lr * min(1.0, (self.step + 1) / self.config.warmup_steps)
        lr *= 0.5 + 0.5 * math.cos(math.pi * min(1.0, progress))
        for name, optimizer in self.optimizers.items():
            for group in optimizer.param_groups:
                group["lr"] = lr if name == "muon" else 0.5 * lr
        loss, reconstructions, seen = self.loss(images)
        if not torch.isfinite(loss):
            raise FloatingPointError(f"The loss is {loss.item()} at step {self.step}: lower lr={self.config.lr}.")
        if seen and not self.decoder_only:
            self.model.codebook.update(*seen, self.generator)
        self.model.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for kernel, matrix in zip(self.kernels, self.matrices, strict=True):
            matrix.grad = kernel.grad.flatten(1)
        for optimizer in self.optimizers.values():
            optimizer.step()
        self.step += 1
        decay = min(self.config.ema_decay, (1 + self.step) / (10 + self.step))  # a short memory while all is new
        torch._foreach_lerp_(list(self.ema.values()), list(self.model.parameters()), 1.0 - decay)
        return loss.item(), psnr(images, reconstructions.detach().clamp(-1, 1)).mean().item()

    def save(self, folder: Path) -> None:
        """Write everything a resumed run needs, as tensors and JSON."""
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        tensors |= {f"ema.{k}": v for k, v in self.ema.items()}
        tensors |= {"generator": self.generator.get_state()}
        if self.kind == "vq":
            tensors |= {"codebook.sums": self.model.codebook.sums, "codebook.age": self.model.codebook.age}
        for name, optimizer in self.optimizers.items():
            tensors |= optimizer_tensors(name, optimizer)
        # The counters travel inside the tensors' file, so that one rename moves the whole state.
        tensors["progress"] = torch.tensor([self.step, self.seconds], dtype=torch.float64)
        write_tensors(folder / "checkpoint.safetensors", tensors)

    def load(self, folder: Path) -> None:
        """Continue from what `save` wrote."""
        if not (folder / "checkpoint.safetensors").is_file():
            raise ValueError(f"Cannot resume, because there is no checkpoint.safetensors in {folder}: start without.")
        tensors = load_file(folder / "checkpoint.safetensors")
        part = lambda prefix: {k[len(prefix):]: v for k, v in tensors.items() if k.startswith(prefix)}  # noqa: E731
        self.model.load_state_dict(part("model."))
        averages = part("ema.")  # sorted by name, but lerp pairs them with the parameters in their own order
        self.ema = {name: averages[name] for name in self.ema}
        self.generator.set_state(tensors["generator"])
        if self.kind == "vq":
            self.model.codebook.sums.copy_(tensors["codebook.sums"])
            self.model.codebook.age.copy_(tensors["codebook.age"])
        for name, optimizer in self.optimizers.items():
            load_optimizer(name, optimizer, tensors)
        self.step, self.seconds = int(tensors["progress"][0]), float(tensors["progress"][1])

    def averaged(self) -> nn.Module:
        """A frozen copy of the tokenizer with the averaged weights."""
        copy = type(self.model)(self.model.config)
        copy.load_state_dict(self.model.state_dict() | self.ema)
        return copy.eval().requires_grad_(False)


@torch.no_grad()
def measure_latents(tokenizer: VAETokenizer, batches: Callable[[int], Tensor], count: int = 32) -> None:
    """Set latent_mean and latent_std (4 channels) from `count` batches of training images in [-1, 1]."""
    means = torch.cat([tokenizer.posterior(batches(i))[0] for i in range(count)])  # (n, 4, H/8, W/8)
    tokenizer.latent_mean.copy_(means.mean(dim=(0, 2, 3)))
    tokenizer.latent_std.copy_(means.std(dim=(0, 2, 3)))


def fit_tokenizer(
    kind: str,
    train_batches: Callable[[int], Tensor],
    out: str | Path,
    *,
    steps: int | None = None,
    minutes: float | None = None,
    model_config: VAEConfig | VQConfig | None = None,
    config: FitConfig | None = None,
    resume: bool = False,
    decoder_of: str | Path | None = None,
    dtype: torch.dtype = torch.float16,
) -> nn.Module:
    """Train a tokenizer and save it into `out` (config.json, model.safetensors, checkpoint.safetensors, fit.json).

    Args:
        kind: "vae" or "vq".
        train_batches: a function of the step, whose value is that step's images, uint8 or float in [-1, 1],
            (batch_size, 3, H, W). The same step must give the same images, or a resumed run is another run.
        out: the folder; saved every `config.save_every` steps, when interrupted (Ctrl-C) and at the end.
        steps, minutes: the budget, exactly one of the two; the learning rate ends with it.
        model_config, config: sizes and recipe, defaults as shipped.
        resume: continue from `out` instead of starting anew.
        decoder_of: folder of a tokenizer (its sizes count, not `model_config`) whose encoder is kept and whose decoder
            goes on learning: the tokens do not change, so caches and models made with them stay valid. Its fit.json
            becomes part of the new one.
        dtype: of the saved weights.

    Returns:
        The tokenizer with averaged weights, frozen. Raises ValueError for an unknown kind or budget.
    """
    if kind not in TOKENIZERS:
        raise ValueError(f"The tokenizer kind is {kind!r}, but must be one of {sorted(TOKENIZERS)}.")
    budget = minutes if steps is None else steps
    if (steps is None) == (minutes is None) or not 0 < budget < math.inf:
        raise ValueError(f"Got steps={steps} and minutes={minutes}, but exactly one must be given, above 0.")
    out, config = Path(out), config or FitConfig()
    fitting = Fitting(kind, model_config or TOKENIZERS[kind][1](), config, decoder_of and Path(decoder_of))
    if resume:
        fitting.load(out)
    images_of = lambda step: to_unit(train_batches(step))  # noqa: E731
    try:
        _run(fitting, images_of, out, steps, minutes)
    finally:  # an interrupt ends here too, and must not lose the run
        fitting.save(out)
        tokenizer = fitting.averaged()
        if kind == "vae" and decoder_of is None:
            measure_latents(tokenizer, images_of)
        tokenizer.save_pretrained(out, dtype)
        facts = {"kind": kind, "steps": fitting.step, "seconds": round(fitting.seconds, 1), **asdict(config)}
        if decoder_of is not None and (Path(decoder_of) / "fit.json").is_file():
            facts["decoder_of"] = json.loads((Path(decoder_of) / "fit.json").read_text(encoding="utf-8"))
        write_json(out / "fit.json", facts)
    return tokenizer


def _run(fitting: Fitting, images_of: Callable[[int], Tensor], out: Path, steps: int | None, minutes: float | None):
    """Train until the budget is spent, with a progress bar and checkpoints."""
    total, log = steps or round(60 * minutes), (out / "log.jsonl")
    out.mkdir(parents=True, exist_ok=True)
    initial, unit = (fitting.step, "step") if steps else (round(fitting.seconds), "s")
    with tqdm(total=total, initial=initial, unit=unit) as bar:
        while (done := fitting.step if steps else fitting.seconds) < total:
            start = time.perf_counter()
            images = images_of(fitting.step)
            loss, quality = fitting.train_step(images, done / total)
            fitting.seconds += time.perf_counter() - start
            if fitting.step % 50 == 0:
                line = {"step": fitting.step, "seconds": round(fitting.seconds, 1), "loss": loss, "psnr": quality}
                with log.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(line) + "\n")
                speed = len(images) * fitting.step / fitting.seconds
                bar.set_postfix(loss=f"{loss:.4f}", psnr=f"{quality:.2f}", images_per_s=f"{speed:.0f}",
                                step=fitting.step)
            bar.update((fitting.step if steps else min(total, int(fitting.seconds))) - bar.n)
            if fitting.step % fitting.config.save_every == 0:
                fitting.save(out)


def to_unit(images: Tensor) -> Tensor:
    """Bytes 0..255 to floats in [-1, 1]; floats pass."""
    return images.float() / 127.5 - 1.0 if images.dtype == torch.uint8 else images
