"""The judge of SceneEval: a small network that says which objects an image shows, in which colour, and where.

One look at the image, one answer for every 8 pixels in each direction: does the middle of an object lie nearest to
here, of which class and colour is it, and how large (Redmon et al. 2016, section 2, is the first of this kind). It was
trained on true scenes by `fluidlab fit detector` and has never seen a generated one. What to notice: it can be wrong,
so `fluidlab evaluate judge` prints how often it is right on true scenes and how often other captions fool it.
"""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from fluidlab.config import data_dir
from fluidlab.tokenizer.blocks import Shrink, res_blocks
from fluidlab.whole import write_json, write_tensors

SIDE = 64      # pixels that the judge looks at; larger images are averaged down
STRIDE = 8     # pixels between two answers


@dataclass(frozen=True, kw_only=True)
class DetectorConfig:
    """Names that the detector knows, and its sizes: widths at 1/4 and (coarse) at 1/8 size, residual blocks each."""

    classes: tuple[str, ...]
    colors: tuple[str, ...]
    width: int = 64
    depth: int = 1
    coarse_width: int = 160
    coarse_depth: int = 3


@dataclass(frozen=True)
class Detection:
    """One object that was found: box [x0, y0, x1, y1] in pixels of the image that was given, score from 0 to 1."""

    name: str
    color: str
    box: tuple[float, float, float, float]
    score: float


class Detector(nn.Module):
    """Images (B, 3, S, S) in [-1, 1], S a multiple of 64, to lists of `Detection`."""

    def __init__(self, config: DetectorConfig):
        super().__init__()
        self.config = config
        self.stem = nn.Conv2d(3 * 16, config.width, 3, padding=1)
        self.fine = res_blocks(config.width, config.depth)
        self.shrink = Shrink(config.width, config.coarse_width, 0)
        self.coarse = res_blocks(config.coarse_width, config.coarse_depth)
        self.answers = nn.Conv2d(config.coarse_width, 1 + 4 + len(config.classes) + len(config.colors), 1)
        nn.init.constant_(self.answers.bias[:1], -4.0)  # most places are the middle of nothing

    def trunk(self, images: Tensor) -> Tensor:
        """Images (B, 3, 64, 64) to features (B, coarse_width, 8, 8)."""
        x = F.pixel_unshuffle(images, 4).contiguous(memory_format=torch.channels_last)  # (B, 48, 16, 16)
        x = self.shrink(F.silu(self.fine(self.stem(x))))                                # (B, coarse, 8, 8)
        return F.silu(self.coarse(x))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Images (B, 3, 64, 64) to four maps of answers, channels last.

        Presence (B, 8, 8) as logits; boxes (B, 8, 8, 4) in 64ths of the side: from the middle of the place to the left,
        upper, right and lower edge; logits of the classes (B, 8, 8, L) and of the colours (B, 8, 8, M).
        """
        answers = self.answers(self.trunk(images)).float().permute(0, 2, 3, 1)          # (B, 8, 8, 5 + L + M)
        presence, boxes, names, colors = answers.split(
            [1, 4, len(self.config.classes), len(self.config.colors)], dim=-1)
        return presence[..., 0], boxes, names, colors

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """What the Frechet distance looks at: the trunk's features (B, coarse_width), averaged over the image."""
        return self.trunk(self._look(images)[0]).float().mean(dim=(2, 3))

    @torch.no_grad()
    def detect(self, images: Tensor, threshold: float = 0.5) -> list[list[Detection]]:
        """The objects of each image, the surest first.

        Args:
            images: (B, 3, S, S) in [-1, 1], S = 64, 128, 192 ...
            threshold: how sure the judge must be that there is an object, 0 to 1.

        Raises:
            ValueError: images of another size or range.
        """
        pixels, scale = self._look(images)
        presence, boxes, names, colors = self(pixels)
        score = presence.sigmoid()                                                      # (B, 8, 8)
        peak = presence == F.max_pool2d(presence[:, None], 3, stride=1, padding=1)[:, 0]  # one answer an object
        found: list[list[Detection]] = [[] for _ in images]
        for b, row, column in (peak & (score > threshold)).nonzero().tolist():
            left, up, right, down = boxes[b, row, column].tolist()
            x, y = column * STRIDE, row * STRIDE
            box = tuple(scale * value for value in (x - SIDE * left, y - SIDE * up, x + SIDE * right, y + SIDE * down))
            found[b].append(Detection(self.config.classes[int(names[b, row, column].argmax())],
                                      self.config.colors[int(colors[b, row, column].argmax())], box,
                                      float(score[b, row, column])))
        return [sorted(objects, key=lambda found: -found.score) for objects in found]

    def _look(self, images: Tensor) -> tuple[Tensor, int]:
        """The images at 64 pixels, and how many times larger they were."""
        side = images.shape[-1] if images.ndim == 4 else 0
        if images.ndim != 4 or images.shape[1] != 3 or images.shape[2] != side or side % SIDE or not side:
            raise ValueError(f"the judge takes images (B, 3, S, S) with S a multiple of {SIDE}, "
                             f"got {tuple(images.shape)}.")
        if len(images) and not (images.min() >= -1.001 and images.max() <= 1.001):  # also refuses nan
            raise ValueError(f"the judge takes images in [-1, 1], got {images.min():.3f} to {images.max():.3f}.")
        return F.avg_pool2d(images.float(), side // SIDE), side // SIDE

    def save_pretrained(self, folder: str | Path) -> None:
        """Write config.json and model.safetensors in half precision."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_tensors(folder / "model.safetensors", {name: value.half() for name, value in self.state_dict().items()})
        write_json(folder / "config.json", {"kind": "detector", **dataclasses.asdict(self.config)})

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> "Detector":
        """Read what `save_pretrained` wrote, frozen. Raises ValueError where the folder holds something else."""
        folder = Path(folder)
        if not (folder / "config.json").is_file():
            raise ValueError(f"{folder} holds no detector: config.json is missing; `fluidlab fit detector` makes one.")
        values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if values.pop("kind", None) != "detector":
            raise ValueError(f"{folder} holds something other than a detector.")
        names = {key: tuple(values.pop(key)) for key in ("classes", "colors")}
        model = cls(DetectorConfig(**names, **values))
        weights = {k: v.float() for k, v in load_file(folder / "model.safetensors").items()}
        if {k: v.shape for k, v in weights.items()} != {k: v.shape for k, v in model.state_dict().items()}:
            raise ValueError(f"{folder} holds {len(weights)} tensors that do not fit its config.json, which asks for "
                             f"{len(model.state_dict())}.")
        model.load_state_dict(weights)
        return model.eval().requires_grad_(False)


def load_detector(name: str | Path = "scenes-detector") -> Detector:
    """The shipped detector, or one of your own by its folder."""
    shipped = data_dir() / str(name)
    return Detector.from_pretrained(shipped if shipped.is_dir() else name)


def targets_of(scenes: list[list[dict]], config: DetectorConfig) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What the detector should answer for scenes of 64 pixels, as maps like those of `Detector.forward`.

    Args:
        scenes: the "objects" of each: dictionaries with class, color (or None) and box.

    Returns:
        presence (B, 8, 8) of 0 and 1, boxes (B, 8, 8, 4), classes and colours (B, 8, 8) long. -1 = no answer asked:
        for places without an object, and for the colour of things in their natural one.
    """
    n = SIDE // STRIDE
    presence, boxes = torch.zeros(len(scenes), n, n), torch.zeros(len(scenes), n, n, 4)
    names, colors = (torch.full((len(scenes), n, n), -1) for _ in range(2))
    for b, objects in enumerate(scenes):
        for thing in objects:
            x0, y0, x1, y1 = thing["box"]
            column, row = (min(n - 1, round((low + high) / 2 / STRIDE)) for low, high in ((x0, x1), (y0, y1)))
            x, y = column * STRIDE, row * STRIDE
            presence[b, row, column] = 1.0
            boxes[b, row, column] = torch.tensor([x - x0, y - y0, x1 - x, y1 - y]) / SIDE
            names[b, row, column] = config.classes.index(thing["class"])
            if thing["color"] is not None:
                colors[b, row, column] = config.colors.index(thing["color"])
    return presence, boxes, names, colors


def detector_loss(detector: Detector, images: Tensor, targets: tuple[Tensor, Tensor, Tensor, Tensor]) -> Tensor:
    """Cross-entropy of presence, class and colour, and ten times the absolute error of the edges; a scalar.

    Presence is asked of 64 places and true of two, so its mean is weighted by 32; a place of an object weighs no more
    than one without, or the score would not be a probability.
    """
    presence, boxes, names, colors = detector(images)
    there, edges, which, painted = targets
    objects, asked = there > 0, painted >= 0
    loss = 32.0 * F.binary_cross_entropy_with_logits(presence, there)
    loss = loss + F.cross_entropy(names[objects], which[objects])
    loss = loss + 10.0 * (boxes[objects] - edges[objects]).abs().mean()
    return loss + F.cross_entropy(colors[asked], painted[asked]) if asked.any() else loss
