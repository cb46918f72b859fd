"""Mean and covariance of the features of any number of images, of which never more than a batch is kept.

The state is one number, one vector and one matrix in float64 (34 MB for 2048 features), so 30,000 images need no more
memory than 30, and what is saved on the way is what is saved at the end: a finished state is the statistics of a data
set, an unfinished one goes on. What to notice: two sums are merged by the rule of Chan, Golub and LeVeque (1983), whose
differences are taken from the means, because the plain sum of squares loses the digits that a distance is made of.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from tqdm.auto import tqdm

from fluidlab.config import check_range
from fluidlab.evaluate.frechet import Gaussian, extract_features
from fluidlab.evaluate.resume import keep_plan
from fluidlab.whole import write_tensors

SAVE_EVERY = 1000  # images


@dataclass(frozen=True)
class Moments:
    """Of `count` feature vectors: mean (F,), and the sum of the outer products of their deviations (F, F), float64."""

    count: int
    mean: Tensor
    scatter: Tensor

    @classmethod
    def of(cls, features: Tensor) -> "Moments":
        """Of features (B, F); `ValueError` where a number is not finite."""
        values = features.double().cpu()
        if not torch.isfinite(values).all():
            raise ValueError(f"{int((~torch.isfinite(values)).any(1).sum())} of {len(values)} feature vectors hold "
                             f"numbers that are not finite.")
        mean = values.mean(0)                                                                   # (F,)
        spread = values - mean                                                                  # (B, F)
        return cls(len(values), mean, spread.T @ spread)

    def __add__(self, other: "Moments") -> "Moments":
        """Of both sets together; `ValueError` if they have different numbers of features."""
        if len(self.mean) != len(other.mean):
            raise ValueError(f"both sets need the same features, got {len(self.mean)} and {len(other.mean)} numbers an "
                             f"image.")
        total, apart = self.count + other.count, other.mean - self.mean                         # (F,)
        scatter = self.scatter + other.scatter + torch.outer(apart, apart) * (self.count * other.count / total)
        return Moments(total, self.mean + apart * (other.count / total), scatter)

    def gaussian(self) -> Gaussian:
        """Mean and unbiased covariance; `ValueError` of fewer than two vectors."""
        if self.count < 2:
            raise ValueError(f"a covariance needs at least 2 feature vectors, got {self.count}.")
        return Gaussian(self.mean.numpy(), (self.scatter / (self.count - 1)).numpy(), self.count)

    def save(self, path: Path) -> None:
        """One safetensors file, in one atomic step: the number can never be of another moment than the sums."""
        write_tensors(path, {"count": torch.tensor(self.count), "mean": self.mean, "scatter": self.scatter})

    @classmethod
    def load(cls, path: Path) -> "Moments":
        """What `save` wrote; `ValueError` if the file is something else."""
        try:
            kept = load_file(path)
            moments = cls(int(kept["count"]), kept["mean"], kept["scatter"])
        except (SafetensorError, KeyError) as error:
            raise ValueError(f"{path} holds no statistics ({error}); remove it and measure again.") from error
        shape = (len(moments.mean),) * 2
        if moments.scatter.shape != shape or {moments.mean.dtype, moments.scatter.dtype} != {torch.float64}:
            raise ValueError(f"{path} must hold {shape[0]} means and {shape} sums in float64, got "
                             f"{tuple(moments.scatter.shape)} in {moments.scatter.dtype}.")
        return moments


def stream_statistics(images: Callable[[int, int], Tensor], num_images: int, extractor: Callable[[Tensor], Tensor],
                      stem: str | Path, facts: dict, *, batch_size: int = 64, save_every: int = SAVE_EVERY,
                      label: str = "images", progress: bool = True) -> Gaussian:
    """The Gaussian of the features of many images, kept in `stem`.safetensors, with `stem`.json to say what they are.

    Finished statistics are read, unfinished ones go on behind the last image that was saved; both give what one run
    gives, bit by bit when the batches are as large.

    Args:
        images: first and last (excluded) number to what the extractor takes, one row an image.
        num_images: at least 2.
        extractor: images to features (B, F), with a `fingerprint` that says which extractor it is.
        facts: JSON of everything that the images depend on.
        save_every: images between two saves; an interruption saves too.

    Raises:
        ValueError: the files are of other images or another extractor, or a number is out of range.
    """
    check_range("num_images", num_images, 2, kind=int)
    for name, value in (("batch_size", batch_size), ("save_every", save_every)):
        check_range(name, value, 1, kind=int)
    state = Path(f"{stem}.safetensors")
    keep_plan({**facts, "num_images": num_images, "extractor": extractor.fingerprint}, Path(f"{stem}.json"))
    moments = Moments.load(state) if state.exists() else None
    saved = done = moments.count if moments else 0
    with tqdm(total=num_images, initial=done, desc=label, unit="image", disable=not progress) as bar:
        try:
            while done < num_images:
                stop = min(done + batch_size, num_images)
                new = Moments.of(extract_features([images(done, stop)], extractor))
                moments = moments + new if moments else new
                bar.update(stop - done)
                done = stop
                if done - saved >= save_every:
                    moments.save(state)
                    saved = done
        finally:
            if moments is not None and moments.count > saved:
                moments.save(state)
    return moments.gaussian()


def load_statistics(path: str | Path, fingerprint: str) -> Gaussian:
    """Statistics that `stream_statistics` finished, for whoever has the file and not the images.

    Args:
        path: the safetensors file; its JSON file stands beside it.
        fingerprint: of the extractor that they are compared by.

    Raises:
        ValueError: a file is missing, the statistics are not finished or are of another extractor.
    """
    path = Path(path)
    said = path.with_suffix(".json")
    for needed in (path, said):
        if not needed.is_file():
            raise ValueError(f"statistics are two files, {path.name} and {said.name}, but {needed} is missing.")
    facts, moments = json.loads(said.read_text(encoding="utf-8")), Moments.load(path)
    if facts.get("extractor") != fingerprint:
        raise ValueError(f"{path} was measured with another extractor: fingerprint {str(facts.get('extractor'))[:12]}, "
                         f"not {fingerprint[:12]}.")
    if moments.count != facts.get("num_images"):
        raise ValueError(f"{path} holds {moments.count} of {facts.get('num_images')} images; run the command again "
                         f"that began it.")
    return moments.gaussian()


def to_bytes(pixels: Tensor) -> Tensor:
    """Images (B, 3, H, W) in [-1, 1] to uint8, as a PNG file would hold them."""
    return ((pixels.clamp(-1, 1) + 1) * 127.5).round().byte()
