"""The order player: scrub through the making of an image, step by step, one picture for each variant.

`record` watches `generate` through `on_step` and keeps every intermediate state; `frame` turns a state into a picture;
`OrderPlayer` puts a slider, a Play button and a number box around them. Only the last knows ipywidgets.

What to notice: a decoder needs a token at every position, also where none is known yet. There it is given the token of
blank paper, and the patch is hatched so that nobody takes the filling for the model's work. As the decoder mixes
neighbours, a known patch still changes a little when the one beside it becomes known.
"""

from collections.abc import Callable
from dataclasses import dataclass

import ipywidgets
import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from fluidlab.sample.generate import generate
from fluidlab.viz.show import figure_html, image_grid, to_array
from fluidlab.viz.widgets import Explorer, NumberSlider, textbox

PAPER = 0.8                                  # brightness of blank paper in [-1, 1], about that of a scene's background
NEW, HATCH, UNKNOWN = "#D55E00", "#8a8a8a", "#c8c8c8"


@dataclass(frozen=True)
class Recording:
    """All states of one generation, from nothing known to everything.

    Args:
        title: what stands above its pictures.  pixels: (T+1, 3, H, W) in [-1, 1], decoded after 0 .. T steps.
        unknown: (T+1, N) bool.  new: (T+1, N) bool, filled in the last step; none in state 0.
    """

    title: str
    pixels: Tensor
    unknown: Tensor
    new: Tensor

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
    """
    features, mask = pipe.text_encoder([prompt])
    tokens, unknown = [], [torch.ones(pipe.model.config.seq_len, dtype=torch.bool)]

    def keep(step):
        tokens.append(step.tokens[0].clone())
        unknown.append(step.unknown[0].clone())
    generate(pipe.model, features, mask, generator=[torch.Generator().manual_seed(seed)], on_step=keep, **options)
    unknown = torch.stack(unknown)                                                        # (T+1, N)
    tokens = torch.stack([tokens[0], *tokens])                                            # (T+1, N) or (T+1, N, C)
    pixels = pipe.tokenizer.decode(_with_paper(pipe.tokenizer, tokens, unknown))          # (T+1, 3, H, W)
    new = torch.cat([torch.zeros_like(unknown[:1]), unknown[:-1] & ~unknown[1:]])         # (T+1, N)
    return Recording(title, pixels, unknown, new)


def _with_paper(tokenizer, tokens: Tensor, unknown: Tensor) -> Tensor:
    """The tokens of blank paper wherever none is known."""
    side = int(tokens.shape[1] ** 0.5) * tokenizer.patch_size
    paper = tokenizer.encode(torch.full((1, 3, side, side), PAPER))                       # (1, N) or (1, N, C)
    chosen = unknown.view(*unknown.shape, *[1] * (tokens.ndim - 2))
    return torch.where(chosen, paper, tokens)


def frame(recording: Recording, step: int, scale: int = 4) -> np.ndarray:
    """One state as a picture: unknown patches hatched, those of the last step outlined.

    Args:
        step: 0 .. num_steps; larger ones show the end.  scale: whole enlargement factor.

    Returns:
        numpy uint8 (scale H, scale W, 3).
    """
    state = recording.at(step)
    return mark(recording.pixels[state], recording.unknown[state], recording.new[state], scale)


def mark(image: Tensor, unknown: Tensor, new: Tensor | None = None, scale: int = 4) -> np.ndarray:
    """Hatch the unknown patches of an image and outline the new ones.

    Args:
        image: (3, H, W), uint8 or float in [-1, 1].  unknown, new: (N,) bool over a square grid of patches.

    Returns:
        numpy uint8 (scale H, scale W, 3).
    """
    pixels = to_array(image.clamp(-1, 1) if image.is_floating_point() else image)
    height, width = (scale * side for side in pixels.shape[:2])
    picture = Image.fromarray(pixels).resize((width, height), Image.Resampling.NEAREST)
    draw, columns = ImageDraw.Draw(picture), int(len(unknown) ** 0.5)
    patch = width // columns
    hatched = _hatched(patch)
    for n in torch.nonzero(unknown).flatten().tolist():
        picture.paste(hatched, (n % columns * patch, n // columns * patch))
    for n in torch.nonzero(new).flatten().tolist() if new is not None else []:
        x, y = n % columns * patch, n // columns * patch
        draw.rectangle([x, y, x + patch - 1, y + patch - 1], outline=NEW, width=max(2, scale))
    return np.asarray(picture)


def _hatched(side: int) -> Image.Image:
    """A grey square with diagonal lines."""
    square = Image.new("RGB", (side, side), UNKNOWN)
    draw = ImageDraw.Draw(square)
    for offset in range(-side, side, max(4, side // 6)):
        draw.line([(offset, side), (offset + side, 0)], fill=HATCH, width=max(1, side // 32))
    draw.rectangle([0, 0, side - 1, side - 1], outline="white")
    return square


def describe(recording: Recording, step: int) -> str:
    """One state in words: how many tokens are unknown, where the last ones came."""
    state = recording.at(step)
    left, N = int(recording.unknown[state].sum()), recording.unknown.shape[1]
    new = torch.nonzero(recording.new[state]).flatten().tolist()
    where = f"; new at position{'s' if len(new) > 1 else ''} {', '.join(map(str, new))}" if new else ""
    return f"{recording.title}: {left} of {N} tokens unknown{where}"


def film_strip(recording: Recording, steps: list[int] | None = None,
               scale: int = 2) -> tuple[list[np.ndarray], list[str]]:
    """Frames and their titles for `image_grid`.

    Args:
        steps: which states, 0 .. num_steps; None for all.
    """
    steps = list(range(recording.num_steps + 1)) if steps is None else steps
    titles = [f"step {step}: {int(recording.unknown[recording.at(step)].sum())} left" for step in steps]
    return [frame(recording, step, scale) for step in steps], titles


def side_by_side(recordings: list[Recording], step: int) -> str:
    """All recordings after the same number of steps, as HTML with alternative text."""
    frames = [frame(recording, step) for recording in recordings]
    titles = [f"{r.title}: {int(r.unknown[r.at(step)].sum())} unknown" for r in recordings]
    told = ". ".join(describe(recording, step) for recording in recordings)
    return figure_html(image_grid(frames, titles=titles, scale=1, gap=16),
                       alt=f"After step {step}. {told}. Unknown patches are hatched, new ones outlined.",
                       caption=f"After step {step}: hatched is unknown, outlined is new.")


class OrderPlayer:
    """Recordings of the same prompt side by side, with a step to choose, to type or to play.

    Args:
        draw: (prompt, seed) -> the recordings; called at once, and again when the "draw" button is pressed.
        prompt, seed: of the first pictures.

    Attributes:
        recordings: what is shown.  step: a `NumberSlider`.  explorer: draws a step.  prompt, seed, button: what to
        draw.  widget: what to `display`.
    """

    def __init__(self, draw: Callable[[str, int], list[Recording]], prompt: str, seed: int = 0):
        self._draw, self.recordings = draw, draw(prompt, seed)
        last = max(recording.num_steps for recording in self.recordings)
        self.prompt, self.seed = textbox("prompt", prompt), NumberSlider("seed", seed, 0, max(seed, 999), 1)
        self.step = NumberSlider("step", last // 3, 0, last, 1)
        self.explorer = Explorer({"step": self.step}, lambda step: side_by_side(self.recordings, step))
        self.button = ipywidgets.Button(description="draw", tooltip="draw this prompt with this seed")
        self.button.on_click(lambda _: self.draw())
        play = ipywidgets.Play(value=0, min=0, max=last, interval=600)
        ipywidgets.jslink((play, "value"), (self.step.slider, "value"))         # the browser plays, also while we draw
        self.widget = ipywidgets.VBox([ipywidgets.HBox([self.prompt, self.button]), self.seed.widget, play,
                                       self.explorer.widget])
        self.explorer.refresh()

    def draw(self) -> None:
        """Record the prompt in its box with its seed; a mistake is shown in the picture's place."""
        self.explorer.picture.say(f"Drawing {self.prompt.value!r} ...")
        try:
            self.recordings = self._draw(self.prompt.value, self.seed.value)
        except Exception as error:              # in a callback nobody else would see it
            return self.explorer.picture.fail(error)
        self.explorer.refresh()
