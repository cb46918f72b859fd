"""One generation kept with all its states, and what each of its tokens looked at.

What to notice: a decoder needs a token at every position, also where none is known yet. There it is given the token of
blank paper. As the decoder mixes neighbours, a known patch still changes a little when the one beside it becomes known.
Attention is not kept but computed again, for the one step that somebody asks about.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fluidlab.sample.generate import generate
from fluidlab.viz.plots_text import record_attention, text_labels
from fluidlab.viz.turns import wanted

PAPER = 0.8     # brightness of blank paper in [-1, 1], about that of a scene's background


@dataclass(frozen=True)
class Look:
    """What a position looks at in one pass: words (S+1) by name, the null token first, and positions (N,).

    Shares of its attention, mean over blocks and heads; the words' sum to 1, and so do the positions', but for what
    goes to a start token.
    """

    words: dict[str, float]
    positions: Tensor


@dataclass(frozen=True)
class Recording:
    """All states of one generation, from nothing known to everything.

    Args:
        title: what stands above its pictures.  pixels: (T+1, 3, H, W) in [-1, 1], decoded after 0 .. T steps.
        unknown: (T+1, N) bool.  new: (T+1, N) bool, filled in the last step; none in state 0.
        prompt: what was drawn.  look: (step from 1 to T, position) -> `Look`.
    """

    title: str
    pixels: Tensor
    unknown: Tensor
    new: Tensor
    prompt: str = ""
    look: Callable[[int, int], Look] | None = None

    @property
    def num_steps(self) -> int:
        return len(self.pixels) - 1

    def at(self, step: int) -> int:
        """The state after `step` steps; a generation that ended earlier stays at its end."""
        return min(step, self.num_steps)


@torch.no_grad()
def record(pipe, prompt: str, title: str, seed: int = 0, **options) -> Recording:
    """Draw one image and keep what stood there after every step.

    Args:
        pipe: a `FluidPipeline`.  prompt: one text.  title: of the recording.  options: of `generate`.

    Returns:
        `Recording`; one that ends early, if an explorer that asked for it does not want it any more.
    """
    features, mask = pipe.text_encoder([prompt])
    tokens, unknown = [], [torch.ones(pipe.model.config.seq_len, dtype=torch.bool)]

    def keep(step):
        tokens.append(step.tokens[0].clone())
        unknown.append(step.unknown[0].clone())
        return wanted()
    generate(pipe.model, features, mask, generator=[torch.Generator().manual_seed(seed)], on_step=keep, **options)
    unknown = torch.stack(unknown)                                                        # (T+1, N)
    tokens = torch.stack([tokens[0], *tokens])                                            # (T+1, N) or (T+1, N, C)
    pixels = pipe.tokenizer.decode(_with_paper(pipe.tokenizer, tokens, unknown))          # (T+1, 3, H, W)
    new = torch.cat([torch.zeros_like(unknown[:1]), unknown[:-1] & ~unknown[1:]])         # (T+1, N)
    return Recording(title, pixels, unknown, new, prompt, _looker(pipe, prompt, features, mask, tokens, unknown))


def _looker(pipe, prompt: str, features: Tensor, mask: Tensor, tokens: Tensor, unknown: Tensor):
    """`Recording.look`: the pass that made a step is done once more, and its attention watched."""
    model = pipe.model

    @torch.no_grad()
    def look(step: int, position: int) -> Look:
        text = model.aligner(features, mask)
        before = slice(step - 1, step)
        with record_attention(model) as words, record_attention(model, "self_attention") as places:
            model.hidden(tokens[before], unknown[before], *text)
        words, places = (torch.cat([block[0] for block in kept]).mean(dim=(0, 1))[position] for kept in (words, places))
        if model.order.causal:                  # whose inputs stand one further to the right, behind the start token
            places = torch.cat([places[1:], torch.zeros(1)])
        return Look(_by_name(text_labels(pipe, prompt), words), places)                       # (S+1,), (N,)
    return look


def _by_name(labels: list[str], weights: Tensor) -> dict[str, float]:
    """Shares by label; those of a word that occurs twice are added."""
    shares: dict[str, float] = {}
    for label, weight in zip(labels, weights.tolist(), strict=True):
        shares[label] = shares.get(label, 0.0) + weight
    return shares


def _with_paper(tokenizer, tokens: Tensor, unknown: Tensor) -> Tensor:
    """The tokens of blank paper wherever none is known."""
    side = int(tokens.shape[1] ** 0.5) * tokenizer.patch_size
    paper = tokenizer.encode(torch.full((1, 3, side, side), PAPER))                       # (1, N) or (1, N, C)
    chosen = unknown.view(*unknown.shape, *[1] * (tokens.ndim - 2))
    return torch.where(chosen, paper, tokens)
