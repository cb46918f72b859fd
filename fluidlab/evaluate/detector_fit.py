"""Train SceneEval's judge on true scenes, blurred and noisy ones among them.

A judge must know every colour of every class, also those compositions that a generator never trains on, so it learns
from the test split of another seed than the one that is used for its exam. It sees no generated image: if it learned
what a model's mistakes look like, it would be a judge of that model only.
"""

import json
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F
from tqdm.auto import tqdm

from fluidlab.data.scenes import EmojiScenes
from fluidlab.evaluate.detector import Detector, DetectorConfig, detector_loss, targets_of
from fluidlab.tokenizer.files import load_optimizer, optimizer_tensors
from fluidlab.whole import write_json, write_tensors

TRAIN_SEED = 1  # of the scenes it learns from; the exam and the prompts are of seed 0


@dataclass(frozen=True, kw_only=True)
class DetectorRecipe:
    """How the judge is trained."""

    steps: int = 12_000
    batch_size: int = 32
    lr: float = 2e-3
    warmup_steps: int = 200
    weight_decay: float = 0.02
    ema_decay: float = 0.998
    noise: float = 0.15      # largest standard deviation of the noise that an image gets, in [-1, 1]
    blur_share: float = 0.5  # of the images, mixed with a 3x3 average of themselves
    seed: int = 0
    save_every: int = 500

    def __post_init__(self):
        if min(self.steps, self.batch_size, self.save_every) < 1 or not 0 < self.lr <= 1:
            raise ValueError(f"Got steps={self.steps}, batch_size={self.batch_size}, save_every={self.save_every}, "
                             f"lr={self.lr}; all must be positive.")


def spoil(images: Tensor, recipe: DetectorRecipe, generator: torch.Generator) -> Tensor:
    """Images (B, 3, 64, 64) as a tokenizer might return them: some blurred, all a little noisy, clamped to [-1, 1]."""
    blur, mix, noise = torch.rand(3, len(images), 1, 1, 1, generator=generator)           # 3 x (B, 1, 1, 1)
    soft = F.avg_pool2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    images = images.lerp(soft, torch.where(blur < recipe.blur_share, mix, 0.0))
    return (images + recipe.noise * noise * torch.randn(images.shape, generator=generator)).clamp(-1, 1)


def fit_detector(out: str | Path, recipe: DetectorRecipe | None = None, *, resume: bool = False,
                 config: DetectorConfig | None = None, progress: bool = True) -> Detector:
    """Train the judge and save it into `out`; what is stopped can be resumed, to the same weights.

    Args:
        out: folder for config.json, model.safetensors, fit.json and, until the end, checkpoint.safetensors; a folder
            with a checkpoint is refused without `resume`.
        recipe, config: defaults as shipped.

    Raises:
        ValueError: resume without a checkpoint, with another recipe, or the reverse: a checkpoint without resume.
        FloatingPointError: the loss is not finite.
    """
    recipe, out = recipe or DetectorRecipe(), Path(out)
    scenes = EmojiScenes("test", seed=TRAIN_SEED, size=2**40)
    torch.manual_seed(recipe.seed)
    model = Detector(config or DetectorConfig(classes=scenes.classes, colors=scenes.colors))
    averaged = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay, fused=True)
    if not resume and (out / "checkpoint.safetensors").is_file():
        raise ValueError(f"{out} holds a training that was stopped: continue it with resume, or name another folder.")
    done, before = _load(out, model, averaged, optimizer, recipe) if resume else (0, 0.0)
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "recipe.json", asdict(recipe))
    start = time.perf_counter() - before
    with tqdm(total=recipe.steps, initial=done, unit="step", disable=not progress) as bar:
        try:
            while done < recipe.steps:
                loss = _step(model, averaged, optimizer, scenes, recipe, done)
                done += 1
                bar.update()
                if done % 50 == 0:
                    bar.set_postfix(loss=f"{loss:.4f}")
                if done % recipe.save_every == 0:
                    _save(out, model, averaged, optimizer, done, time.perf_counter() - start)
        finally:
            _save(out, model, averaged, optimizer, done, time.perf_counter() - start)
    model.load_state_dict(averaged)
    model.eval().requires_grad_(False).save_pretrained(out)
    seconds = round(time.perf_counter() - start, 1)
    write_json(out / "fit.json", {"steps": done, "images": done * recipe.batch_size, "seconds": seconds,
                                  **asdict(recipe)})
    for name in ("checkpoint.safetensors", "recipe.json"):
        (out / name).unlink()
    return model


def _step(model: Detector, averaged: dict, optimizer, scenes: EmojiScenes, recipe: DetectorRecipe, step: int) -> float:
    """One step; everything random in it follows from (seed, step)."""
    generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + step)
    batch = [scenes[step * recipe.batch_size + i] for i in range(recipe.batch_size)]
    images = torch.stack([scene["image"] for scene in batch]).float() / 127.5 - 1         # (B, 3, 64, 64)
    targets = targets_of([scene["objects"] for scene in batch], model.config)
    lr = recipe.lr * min(1.0, (step + 1) / recipe.warmup_steps) * (0.5 + 0.5 * math.cos(math.pi * step / recipe.steps))
    for group in optimizer.param_groups:
        group["lr"] = lr
    with torch.autocast("cpu", torch.bfloat16):
        loss = detector_loss(model, spoil(images, recipe, generator), targets)
    if not torch.isfinite(loss):
        raise FloatingPointError(f"The loss is {loss.item()} at step {step}: lower lr={recipe.lr}.")
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    decay = min(recipe.ema_decay, (1 + step) / (10 + step))
    torch._foreach_lerp_(list(averaged.values()), [p.detach() for p in model.parameters()], 1.0 - decay)
    return loss.item()


def _save(out: Path, model: Detector, averaged: dict, optimizer, done: int, seconds: float) -> None:
    tensors = {f"model.{k}": v for k, v in model.state_dict().items()} | {f"ema.{k}": v for k, v in averaged.items()}
    tensors |= optimizer_tensors("adam", optimizer)
    tensors["progress"] = torch.tensor([done, seconds], dtype=torch.float64)
    write_tensors(out / "checkpoint.safetensors", tensors)


def _load(out: Path, model: Detector, averaged: dict, optimizer, recipe: DetectorRecipe) -> tuple[int, float]:
    if not (out / "checkpoint.safetensors").is_file():
        raise ValueError(f"Cannot resume, because there is no checkpoint.safetensors in {out}: start without.")
    kept = json.loads((out / "recipe.json").read_text(encoding="utf-8"))
    for key, value in asdict(recipe).items():
        if kept[key] != value:
            raise ValueError(f"{out} was started with {key} {kept[key]}, now it is {value}: ask for the same.")
    tensors = load_file(out / "checkpoint.safetensors")
    part = lambda prefix: {k[len(prefix):]: v for k, v in tensors.items() if k.startswith(prefix)}  # noqa: E731
    model.load_state_dict(part("model."))
    averaged.update({name: part("ema.")[name] for name in averaged})
    load_optimizer("adam", optimizer, tensors)
    return int(tensors["progress"][0]), float(tensors["progress"][1])
