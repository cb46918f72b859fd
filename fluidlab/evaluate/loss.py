"""Validation loss with fixed masks, times and noise: otherwise the curve is mostly the variance of those draws.

One number sums up questions of very different difficulty: a token with nothing known around it, and one with all the
others in view. `loss_when_known` asks them one by one. What to notice: for raster order "k are known" is also "this is
place k of the picture", for random order it is any place.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from fluidlab.config import check_range, short
from fluidlab.model.fluid import Fluid


@torch.no_grad()
def validation_loss(model: Fluid, data, num_images: int = 2048, *, batch_size: int = 256, seed: int = 0,
                    world=None) -> float:
    """Mean loss per predicted token over the first `num_images` of a cache, the same at every call.

    Args:
        data: a `TokenCache` or anything with `gather(indices)` and a length.
        seed: of masks, times and noise; batch b draws from a generator of its own.
        world: of `fluidlab.train.parallel`, whose processes share the batches; all of them must call this.

    Returns:
        Cross-entropy in nats, or squared error per channel of the noise or velocity.

    Raises:
        ValueError: more images than the data holds, or none.
    """
    total, read = torch.zeros(2, dtype=torch.float64), Tensor.cpu if world is None else world.copy
    for batch, generator, counts in _batches(model, data, num_images, batch_size, seed, world):
        loss, is_target = (read(t).double() for t in model.token_losses(*batch, generator))
        total += counts * torch.stack([(loss * is_target).sum(), is_target.sum()])
    if world is not None:
        total = world.sum(total)
    return float(total[0] / total[1])


@torch.no_grad()
def loss_when_known(model: Fluid, data, known: int, num_images: int = 256, *, repeats: int = 4, batch_size: int = 256,
                    seed: int = 0) -> float:
    """Mean loss of a token when `known` others are known; raster: those before it, random: any.

    In random order this is the loss at the mask ratio 1 - known / N. Hidden tokens, times and noise are fixed.

    Args:
        known: from 0 to N - 1.
        repeats: draws of time and noise for each token, since one alone is noisy.  data, seed: see `validation_loss`.

    Returns:
        Nats, or squared error per channel.

    Raises:
        ValueError: known, repeats or num_images out of range.
    """
    N = model.config.seq_len
    check_range("known", known, 0, N - 1, kind=int)
    check_range("repeats", repeats, 1, kind=int)
    total, count = 0.0, 0.0
    for (tokens, features, mask), generator, _ in _batches(model, data, num_images, batch_size, seed):
        place = model.order.permutation(len(tokens), N, generator).argsort(dim=1).to(tokens.device)  # (B, N)
        hidden = place >= known                                                                      # (B, N)
        asked = place == known if model.order.causal else hidden
        z = model.hidden(tokens, hidden, *model.aligner(features, mask))                             # (B, N, D)
        for _ in range(repeats):
            total += float((model.head.loss(z, tokens, generator).double() * asked).sum())
            count += float(asked.sum())
    return total / count


def nats_to_bits(nats: float) -> float:
    """A cross-entropy in bits: a token that costs so many is as surprising as so many coin tosses."""
    return nats / math.log(2.0)


class EncodedScenes:
    """The first scenes of a source as tokens and text features, in memory: what `validation_loss` takes as data.

    Args:
        scenes: an `EmojiScenes`.  tokenizer, text_encoder: frozen ones, as a pipeline holds them.
        num_images: how many, at most all.

    Raises:
        ValueError: more scenes than there are, or none.
    """

    def __init__(self, scenes, tokenizer, text_encoder, num_images: int, *, batch_size: int = 256):
        check_range("num_images", num_images, 1, len(scenes), kind=int)
        tokens, captions = [], []
        for start in range(0, num_images, batch_size):
            pixels, texts = scenes.batch(range(start, min(start + batch_size, num_images)))
            tokens.append(tokenizer.encode(pixels.float() / 127.5 - 1))
            captions += texts
        self.tokens = torch.cat(tokens)                    # (num_images, N[, C])
        self.features, self.mask = text_encoder(captions)  # (num_images, L, text_dim), (num_images, L)

    def __len__(self) -> int:
        return len(self.tokens)

    def gather(self, indices) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens, features and mask of some scenes, as `TokenCache.gather` gives them."""
        rows = torch.as_tensor(list(indices))
        return self.tokens[rows], self.features[rows], self.mask[rows]


def validator(data, num_images: int = 2048, **options) -> Callable[..., float]:
    """The callable that a `Trainer` takes: model, and world where there is one -> validation loss on fixed images."""
    return lambda model, world=None: validation_loss(model, data, num_images, world=world, **options)


def _batches(model: Fluid, data, num_images: int, batch_size: int, seed: int, world=None):
    """This process's batches on the model's device, each with a generator of its own, and 1 if it counts.

    A sharded model computes in all processes or in none, so one that has run out of batches repeats the last, as 0.
    """
    if not hasattr(data, "gather"):
        raise ValueError(f"data must have .gather(indices) and a length, as a TokenCache has, got {short(data)}.")
    if not 1 <= num_images <= len(data):
        raise ValueError(f"num_images must be from 1 to {len(data)}, got {num_images}.")
    check_range("batch_size", batch_size, 1, kind=int)
    device, starts = next(model.parameters()).device, range(0, num_images, batch_size)
    rank, size, place = (0, 1, lambda t: t.to(device)) if world is None else (world.rank, world.size, world.place)
    for number in range(rank, math.ceil(len(starts) / size) * size, size):
        counts = number < len(starts)
        start = starts[number if counts else -1]
        batch = data.gather(range(start, min(start + batch_size, num_images)))
        generator = torch.Generator().manual_seed(seed * 1_000_003 + start)
        yield tuple(place(t) for t in batch), generator, int(counts)
