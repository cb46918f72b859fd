"""Images a second of what stands around the model: scenes, tokenizers, the text encoder, the judge and the distance."""

from collections.abc import Iterator

import torch

from fluidlab.bench.clock import measured, seconds_of
from fluidlab.bench.rows import Row
from fluidlab.data.scenes import EmojiScenes
from fluidlab.evaluate.detector import load_detector
from fluidlab.evaluate.frechet import frechet_distance
from fluidlab.text.encoder import load_text_encoder
from fluidlab.tokenizer import load_tokenizer


@torch.no_grad()
def part_rows(batch: int, peak: float, repeats: int) -> Iterator[Row]:
    """A line each, at 64 x 64 pixels."""
    scenes = EmojiScenes("test", seed=5)
    pixels, captions = scenes.batch(range(batch))
    images = pixels / 127.5 - 1
    detector, text = load_detector("scenes-detector"), load_text_encoder("scenes-t5")
    calls = {"scenes drawn": lambda: scenes.batch(range(batch)), "captions read": lambda: text(captions)}
    for name in ("scenes-vae", "scenes-vq"):
        tokenizer = load_tokenizer(name)
        tokens = tokenizer.encode(images)
        calls |= {f"{name}, encode": lambda t=tokenizer: t.encode(images),
                  f"{name}, decode": lambda t=tokenizer, tokens=tokens: t.decode(tokens)}
    features = torch.randn(max(batch, 512), detector.features(images[:1]).shape[-1],
                           generator=torch.Generator().manual_seed(0))
    calls |= {"judged": lambda: detector.detect(images), "features for the distance": lambda: detector.features(images)}
    for name, (taken, flops) in measured(calls, repeats).items():
        yield Row("parts", name, batch, 16, batch / taken, 1.0, flops / taken / peak)
    taken = seconds_of({"distance": lambda: frechet_distance(features, features.flip(0) + 0.1)}, repeats)["distance"]
    yield Row("parts", "Frechet distance of features", len(features), 16, len(features) / taken, 1.0)
