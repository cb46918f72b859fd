"""Everything that is measured on a generator's images: SceneEval and the Frechet distance, drawn in chunks.

It is given a function that draws, so it knows neither model nor pipeline. Every chunk of images is looked at once and
what the judge saw is kept beside the run, so that an evaluation that was stopped goes on where it was, and other rules
can be tried later without drawing again.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor
from tqdm.auto import tqdm

from fluidlab.config import check_range
from fluidlab.data.scenes import EmojiScenes
from fluidlab.evaluate.detector import Detection, Detector
from fluidlab.evaluate.frechet import enough_images, extract_features, frechet_at_infinity, frechet_distance
from fluidlab.evaluate.resume import keep_plan, made_by
from fluidlab.evaluate.sceneval import Scores, judge, prompt_list, scores
from fluidlab.whole import write_json, write_tensors

Draw = Callable[[list[str], list[int]], Tensor]  # prompts and seeds to images (B, 3, H, W) in [-1, 1]

CAPTION_SEED = 2    # of the test scenes whose captions are drawn for the Frechet distance
REFERENCE_SEED = 3  # of those that they are compared with


@dataclass(frozen=True)
class Report:
    """What was measured: `frechet` is the distance of so many images, `frechet_infinity` without their number's bias
    and with its standard error (None where the images are too few for it). `made_by` is the command, commit and torch
    version that began it, whoever reads it later."""

    sceneval: Scores
    frechet: float
    frechet_infinity: tuple[float, float] | None
    num_images: int
    made_by: dict[str, str]

    def metrics(self) -> dict[str, float]:
        """Name -> number, as `data/results.csv` keeps them; intervals as two numbers more."""
        found = {"frechet": self.frechet}
        if self.frechet_infinity is not None:
            found |= {"frechet_infinity": self.frechet_infinity[0], "frechet_infinity_error": self.frechet_infinity[1]}
        groups = {"overall": self.sceneval.overall, **self.sceneval.skills, "seen": self.sceneval.seen,
                  "heldout": self.sceneval.heldout,
                  **{f"{skill}_seen": interval for skill, interval in self.sceneval.skills_seen.items()},
                  **{f"{skill}_heldout": interval for skill, interval in self.sceneval.skills_heldout.items()}}
        for name, interval in groups.items():
            if interval is not None:
                found |= {f"sceneval_{name}": interval.value, f"sceneval_{name}_low": interval.low,
                          f"sceneval_{name}_high": interval.high}
        return found


def look(draw: Draw, detector: Detector, prompts: list[str], seeds: list[int], folder: Path, *,
         facts: dict | None = None, chunk: int = 100, label: str = "images",
         progress: bool = True) -> tuple[list[list[Detection]], Tensor]:
    """Draw every prompt with its seed, and keep what the judge sees of it in `folder`, one pair of files a chunk.

    Args:
        facts: JSON of everything else that the images depend on (which model, which settings, which judge). The folder
            of an evaluation with other facts is refused, or its numbers would be taken for these.

    Returns:
        The detections of every image, and their features (n, F).

    Raises:
        ValueError: the folder holds another evaluation, or there is nothing to draw.
    """
    if not prompts or len(prompts) != len(seeds):
        raise ValueError(f"every image needs a prompt and a seed, got {len(prompts)} prompts and {len(seeds)} seeds.")
    keep_plan({"prompts": prompts, "seeds": seeds, "chunk": chunk, **(facts or {})}, folder / "plan.json")
    found, features = [], []
    for start in tqdm(range(0, len(prompts), chunk), desc=label, unit="chunk", disable=not progress):
        seen, vectors = folder / f"{start:06d}.json", folder / f"{start:06d}.safetensors"
        if not seen.exists():  # written last: a chunk with it is whole
            images = draw(prompts[start:start + chunk], seeds[start:start + chunk])
            write_tensors(vectors, {"features": extract_features([images], detector.features).float()})
            write_json(seen, [[asdict(d) for d in objects] for objects in detector.detect(images)])
        found += [[Detection(**{**d, "box": tuple(d["box"])}) for d in objects]
                  for objects in json.loads(seen.read_text(encoding="utf-8"))]
        features.append(load_file(vectors)["features"])
    return found, torch.cat(features)


def evaluate_generator(draw: Draw, detector: Detector, folder: str | Path, *, per_skill: int = 100,
                       images_per_prompt: int = 4, frechet_images: int = 4000, reference_images: int = 10_000,
                       reference: Tensor | None = None, draw_plainly: Draw | None = None, seed: int = 0,
                       facts: dict | None = None, chunk: int = 100, progress: bool = True) -> Report:
    """SceneEval on the fixed prompts, and the Frechet distance to held-out scenes on their own captions.

    Args:
        draw: prompts and seeds to images (B, 3, S, S) in [-1, 1], S a multiple of 64.
        folder: where it is kept; run it again to go on.
        per_skill, images_per_prompt: of SceneEval.  frechet_images, reference_images: of the distance.
        draw_plainly: draws for the distance, if that wants other settings than SceneEval does.
        reference: what `reference_features` gave, for whoever evaluates often; then reference_images is not used.
        seed: of the images; image i has a seed of its own.  facts: see `look`.

    Raises:
        ValueError: numbers out of range, or a folder of another evaluation.
    """
    for name, value, low in (("images_per_prompt", images_per_prompt, 1), ("frechet_images", frechet_images, 2),
                             ("reference_images", reference_images, 2), ("chunk", chunk, 1)):
        check_range(name, value, low, kind=int)
    folder = Path(folder)
    begun = made_by(folder)
    asked = [prompt for prompt in prompt_list(per_skill) for _ in range(images_per_prompt)]
    seeds = [seed * 1_000_003 + i for i in range(len(asked) + frechet_images)]
    found, _ = look(draw, detector, [p["caption"] for p in asked], seeds[:len(asked)], folder / "sceneval",
                    facts=facts, chunk=chunk, label="SceneEval", progress=progress)
    verdicts = [judge(prompt, objects) for prompt, objects in zip(asked, found, strict=True)]

    scenes = EmojiScenes("test", seed=CAPTION_SEED, size=frechet_images)
    captions = [scenes.caption(i) for i in range(frechet_images)]
    _, features = look(draw_plainly or draw, detector, captions, seeds[len(asked):], folder / "frechet", facts=facts,
                       chunk=chunk, label="Frechet", progress=progress)
    if reference is None:
        reference = reference_features(detector, reference_images)
    enough = frechet_images >= enough_images(features.shape[1])
    infinity = frechet_at_infinity(features, reference) if enough else None
    return Report(scores(verdicts), frechet_distance(features, reference), infinity, len(asked) + frechet_images, begun)


def reference_features(detector: Detector, num_images: int = 10_000, batch_size: int = 250,
                       through: Callable[[Tensor], Tensor] = lambda images: images,
                       seed: int = REFERENCE_SEED) -> Tensor:
    """Features (n, F) of held-out scenes; `through` a tokenizer for what no generator on it can get below."""
    scenes = EmojiScenes("test", seed=seed, size=num_images)
    starts = range(0, num_images, batch_size)
    pixels = (scenes.batch(range(s, min(s + batch_size, num_images)))[0].float() / 127.5 - 1 for s in starts)
    return extract_features((through(images) for images in pixels), detector.features)
