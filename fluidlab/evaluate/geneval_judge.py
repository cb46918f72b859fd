"""GenEval's judge: Mask2Former finds the objects of a picture, CLIP says which colour each of them has.

Both are transformers' own classes, by hub id or folder. The published evaluator used mmdetection's Mask2Former and
OpenCLIP, which no present-day machine installs; the networks are the same (Swin-S on MS-COCO, CLIP ViT-L/14), and
what stands between network and answer is done here as it was done there. What to notice: transformers' own reading of
instances is not used, because it rounds every mask to 384 pixels first.
"""

import functools
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor

from fluidlab.config import check_choice
from fluidlab.evaluate.geneval_prompts import CLASSES, COLORS
from fluidlab.evaluate.geneval_rules import PUBLISHED, Found
from fluidlab.evaluate.resume import digest_of_weights
from fluidlab.hub import Wanted, find_model, has_tokenizer, reading

DETECTOR = "facebook/mask2former-swin-small-coco-instance"
CLIP = "openai/clip-vit-large-patch14"
DETECTORS = Wanted(what="detector", classes=("Mask2FormerForUniversalSegmentation",))
CLIPS = Wanted(what="CLIP", classes=("CLIPModel",), is_whole=has_tokenizer)
SHORTEST, LONGEST = 800, 1333      # pixels a side that the detector looks at, as in its training's evaluation
INSTANCES = 100                    # pairs of query and class that are looked at, the surest
BACKGROUND = "#999999"             # grey, around an object whose colour is asked
COLOR_TEXTS = ("a photo of a {color} {name}", "a photo of a {color}-colored {name}", "a photo of a {color} object")
ENDS = {0: "person", 79: "toothbrush"}      # MS-COCO's first and last class; between them detectors spell differently


def load_part(part: type, folder: Path, **options):
    """A model or tokenizer of transformers out of a folder; never anything pickled, and nothing is fetched.

    Raises:
        ValueError: a file is broken.
    """
    with reading(part.__name__, folder):
        return part.from_pretrained(folder, local_files_only=True, **options)


def open_picture(path: str | Path) -> Image.Image:
    """A file as an upright RGB picture; `ValueError` if it is none."""
    try:
        with Image.open(path) as image:
            return ImageOps.exif_transpose(image).convert("RGB")
    except Exception as error:                       # what decoders raise varies; not all of it is an OSError
        raise ValueError(f"{path} cannot be read as a picture ({error}); remove it and draw it again.") from error


class Judge:
    """Finds objects and tells their colours.

    Args:
        detector: a Mask2FormerForUniversalSegmentation for MS-COCO's 80 classes.
        clip, tokenizer: a CLIPModel and its CLIPTokenizer.
        device: of both.  precision: "float32" or "bf16" (autocast; what is compared with thresholds is float32).
        shortest, longest: sides in pixels that a picture is resized to for the detector.

    Raises:
        ValueError: a detector of other classes, or another precision.
    """

    def __init__(self, detector, clip, tokenizer, *, device: str | torch.device = "cpu", precision: str = "float32",
                 shortest: int = SHORTEST, longest: int = LONGEST):
        check_choice("precision", precision, ("float32", "bf16"))
        labels = detector.config.id2label
        if len(labels) != len(CLASSES) or any(labels[i] != name for i, name in ENDS.items()):
            raise ValueError(f"the detector must know MS-COCO's {len(CLASSES)} classes, from person to toothbrush, got "
                             f"{len(labels)} from {labels[0]} to {labels[len(labels) - 1]}.")
        self.device, self.precision = torch.device(device), precision
        self.detector, self.clip = (model.to(self.device).eval().requires_grad_(False) for model in (detector, clip))
        self.tokenizer = tokenizer
        self.prepare = _processor("Mask2Former", size={"shortest_edge": shortest, "longest_edge": longest})
        side = clip.config.vision_config.image_size
        self.prepare_crop = _processor("CLIP", size={"shortest_edge": side}, crop_size={"height": side, "width": side})
        self.shortest, self.longest = shortest, longest
        self.color_features = functools.cache(self._color_features)

    @classmethod
    def from_pretrained(cls, detector: str = DETECTOR, clip: str = CLIP, **options) -> "Judge":
        """A judge by hub ids or folders; `options` as of the class. `ValueError` if one of them cannot be loaded."""
        from transformers import CLIPModel, CLIPTokenizer, Mask2FormerForUniversalSegmentation
        weights = {"use_safetensors": True, "dtype": torch.float32}
        detector, clip = find_model(detector, DETECTORS), find_model(clip, CLIPS)
        return cls(load_part(Mask2FormerForUniversalSegmentation, detector, **weights),
                   load_part(CLIPModel, clip, **weights), load_part(CLIPTokenizer, clip), **options)

    def facts(self) -> dict:
        """All that its answers depend on, for a plan."""
        return {"detector": digest_of_weights(self.detector), "clip": digest_of_weights(self.clip),
                "precision": self.precision, "shortest": self.shortest, "longest": self.longest}

    def autocast(self):
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")

    @torch.no_grad()
    def find(self, image: Image.Image, floor: float = PUBLISHED.threshold) -> list[Found]:
        """The objects of an RGB picture of which the detector is surer than `floor`, the surest first."""
        pixels = torch.as_tensor(np.asarray(self.prepare(image, return_tensors="np")["pixel_values"]))
        with self.autocast():
            seen = self.detector(pixels.to(self.device))                                # (1, 3, h, w)
        return read_instances(seen.class_queries_logits[0].float(), seen.masks_queries_logits[0].float(),
                              tuple(pixels.shape[-2:]), image.size[::-1], floor)

    @torch.no_grad()
    def colors(self, image: Image.Image, name: str, things: list[Found]) -> list[str]:
        """The likeliest of GenEval's ten colours of each object, all of class `name`, as CLIP sees it alone on grey."""
        crops = [cut_out(image, thing) for thing in things]
        pixels = torch.as_tensor(np.asarray(self.prepare_crop(crops, return_tensors="np")["pixel_values"]))
        with self.autocast():
            pooled = self.clip.vision_model(pixels.to(self.device)).pooler_output       # (n, width)
            seen = F.normalize(self.clip.visual_projection(pooled).float(), dim=-1)     # (n, E)
        likest = (seen @ self.color_features(name).T).argmax(1)                         # (n,)
        return [COLORS[i] for i in likest.tolist()]

    def _color_features(self, name: str) -> Tensor:
        """One direction (colours, E) for each colour of a class: the mean over the wordings."""
        texts = [text.format(color=color, name=name) for color in COLORS for text in COLOR_TEXTS]
        tokens = self.tokenizer(texts, padding=True, return_tensors="pt").to(self.device)
        with self.autocast():
            pooled = self.clip.text_model(**tokens).pooler_output                       # (colours * wordings, width)
            said = F.normalize(self.clip.text_projection(pooled).float(), dim=-1)       # (colours * wordings, E)
        return F.normalize(said.view(len(COLORS), len(COLOR_TEXTS), -1).mean(1), dim=-1)


def _processor(name: str, **options):
    """transformers' image processor on Pillow, which resizes as the published evaluator did.

    Where torchvision is installed, the plain name is another one that resizes tensors; before version 5 there was only
    the one on Pillow, under the plain name.
    """
    import transformers
    made = getattr(transformers, f"{name}ImageProcessorPil", None) or getattr(transformers, f"{name}ImageProcessor")
    return made(**options)


def read_instances(class_logits: Tensor, mask_logits: Tensor, seen_size: tuple[int, int], size: tuple[int, int],
                   floor: float) -> list[Found]:
    """What Mask2Former's queries found in one picture.

    An object is as sure as its class times the mean of its mask inside the mask. Masks grow to the size that the
    network saw and from there to the picture's, as in mmdetection; only those that can pass the floor are grown.

    Args:
        class_logits: (Q, classes + 1), "no object" last.  mask_logits: (Q, h, w).
        seen_size, size: height and width of what the network saw and of the picture.
        floor: objects that are less sure are left out.
    """
    sure, index = class_logits.softmax(-1)[:, :-1].flatten().sort(descending=True)      # (Q * classes,)
    sure, index = sure[:INSTANCES], index[:INSTANCES]
    sure, index = sure[sure > floor], index[sure > floor]
    if not len(index):
        return []
    queries, labels = index // (class_logits.shape[1] - 1), index % (class_logits.shape[1] - 1)
    masks = mask_logits[queries][None]                                                  # (1, n, h, w)
    for target in (seen_size, size):
        masks = F.interpolate(masks, target, mode="bilinear", align_corners=False)      # (1, n, H, W)
    inside = masks[0] > 0
    area = inside.flatten(1).sum(1)
    scores = sure * (masks[0].sigmoid() * inside).flatten(1).sum(1) / (area + 1e-6)     # (n,)
    found = [Found(CLASSES[int(label)], float(score), box_of(mask), mask)
             for label, score, mask in zip(labels, scores, inside.cpu().numpy(), strict=True) if score > floor]
    return sorted(found, key=lambda thing: -thing.score)


def box_of(mask: np.ndarray) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of a mask (H, W) that is not empty; the last two are the first pixel outside."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def cut_out(image: Image.Image, thing: Found) -> Image.Image:
    """An object alone: its box out of the picture, grey wherever its mask is not."""
    if thing.mask is not None:
        image = Image.composite(image, Image.new("RGB", image.size, BACKGROUND), Image.fromarray(thing.mask))
    return image.crop(tuple(round(edge) for edge in thing.box))
