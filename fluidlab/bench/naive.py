"""Sampling as the formulas say it, with nothing spared: what the fast path must equal, and what it is compared with.

Each switch of `Techniques` turns one technique on, so that a benchmark can show what each is worth. With all of them
off, every step runs the whole sequence through the network twice (with the text and without), reads the text anew in
every block, scores all positions, and walks the head's steps for both answers one after the other.
"""

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from fluidlab.layers import KVCache, take
from fluidlab.model.fluid import Fluid
from fluidlab.model.guidance import guide
from fluidlab.model.noise import streams


@dataclass(frozen=True)
class Techniques:
    """What is spared. All of them together are `fluidlab.sample.generate`.

    Args:
        one_batch: the answers with and without the text are computed together.
        asked_only: the last block, the logits and the head compute only the positions of this step.
        text_once: the text's keys and values are computed once for an image.
        cache: raster order keeps the keys and values of what is known.
    """

    one_batch: bool = False
    asked_only: bool = False
    text_once: bool = False
    cache: bool = False

    @classmethod
    def ladder(cls, names: tuple[str, ...]) -> list["Techniques"]:
        """From none to all of the named ones, one more each time."""
        return [cls(**{name: name in names[:n] for name in cls.names()}) for n in range(len(names) + 1)]

    @classmethod
    def names(cls) -> tuple[str, ...]:
        return tuple(field.name for field in fields(cls))


@torch.no_grad()
def generate_plainly(model: Fluid, features: Tensor, mask: Tensor, *, guidance_scale: float, temperature: float = 1.0,
                     num_inference_steps: int | None = None, num_denoising_steps: int = 100, solver: str | None = None,
                     generator=None, techniques: Techniques = Techniques()) -> Tensor:
    """The tokens that `generate` draws with the same settings; arguments as there, guidance always computed."""
    B, N = len(features), model.config.seq_len
    generator, order = streams(generator, B), model.order
    tokens, unknown = model.head.blank(B, N), torch.ones(B, N, dtype=torch.bool)
    permutation = order.permutation(B, N, generator)
    read = _Reader(model, features, mask, techniques)
    done = 0
    for size in order.chunk_sizes(N, num_inference_steps):
        positions = permutation[:, done:done + size]
        done += size
        z, z_null = read(tokens, unknown, positions)
        drawn = _draw(model.head, z, z_null, positions, guidance_scale, temperature, num_denoising_steps, solver,
                      generator, techniques)
        index = positions if drawn.ndim == 2 else positions[..., None].expand_as(drawn)
        tokens, unknown = tokens.scatter(1, index, drawn), unknown.scatter(1, positions, False)
    return tokens


class _Reader:
    """z with the text and z without it, at all positions or at those asked for."""

    def __init__(self, model: Fluid, features: Tensor, mask: Tensor, techniques: Techniques):
        self.model, self.techniques = model, techniques
        texts = [model.aligner(features, mask), model.aligner(features, torch.zeros_like(mask))]
        if techniques.one_batch:
            texts = [tuple(torch.cat(both) for both in zip(*texts, strict=True))]
        self.texts = [(model.backbone.read(text) if techniques.text_once else text, mask) for text, mask in texts]
        self.caches = [[KVCache(model.config.seq_len) for _ in model.backbone.blocks] if self._cached else None
                       for _ in texts]

    @property
    def _cached(self) -> bool:
        return self.techniques.cache and self.model.order.causal

    def __call__(self, tokens: Tensor, unknown: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        copies = 2 if self.techniques.one_batch else 1
        tokens, unknown, asked = (torch.cat([t] * copies) for t in (tokens, unknown, positions))
        found = [self._one(tokens, unknown, asked, *text, caches)
                 for text, caches in zip(self.texts, self.caches, strict=True)]
        return found[0].chunk(2) if copies == 2 else tuple(found)

    def _one(self, tokens, unknown, asked, text, mask, caches) -> Tensor:
        if caches is not None:
            seen = caches[0].filled + asked.shape[1]
            return self.model.hidden(tokens[:, :seen], unknown[:, :seen], text, mask, caches)
        if not self.techniques.asked_only:
            return self.model.hidden(tokens, unknown, text, mask)
        if self.model.order.causal:
            return take(self.model.hidden(tokens, unknown, text, mask), asked)
        return self.model.hidden(tokens, unknown, text, mask, rows=asked)


def _draw(head, z, z_null, positions, scale, temperature, num_denoising_steps, solver, generator, techniques) -> Tensor:
    """Tokens (B, K) or (B, K, C) at the positions, from z at these or at all positions."""
    everywhere = z.shape[1] != positions.shape[1]
    if head.token_kind == "discrete":
        logits = guide(head.logits(z), head.logits(z_null), scale)
        return head.draw(take(logits, positions) if everywhere else logits, temperature, generator)
    if everywhere:
        z, z_null = take(z, positions), take(z_null, positions)
    if techniques.one_batch:
        return head.sample(z, z_null, scale, temperature, generator, num_denoising_steps, solver)

    def predict(x: Tensor, t: float) -> Tensor:
        times = torch.full(x.shape[:-1], t)
        return guide(head.denoiser(x, times, z), head.denoiser(x, times, z_null), scale)
    shape = (*positions.shape, head.token_dim)
    return head.process.sample(predict, shape, num_denoising_steps, temperature, generator, solver=solver)
