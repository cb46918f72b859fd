"""The order player: scrub through the making of an image, step by step, one picture for each variant.

`record` (of `recording.py`) keeps every state of a generation; `frame` turns a state into a picture, `attention_frame`
darkens it where one token does not look, and `OrderPlayer` puts a slider, a play button and number boxes around them.
Only the last knows widgets. What to notice: a patch that is not known yet is hatched, so that nobody takes its filling
for the model's work.
"""

from collections.abc import Callable

import ipywidgets
import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from fluidlab.viz.browser import ClickPicture, Player
from fluidlab.viz.recording import Recording, record
from fluidlab.viz.show import figure_html, image_grid, to_array
from fluidlab.viz.turns import wanted
from fluidlab.viz.widgets import Explorer, NumberSlider, Picture, column, textbox

__all__ = ["OrderPlayer", "Recording", "attention_frame", "film_strip", "frame", "mark", "record", "side_by_side"]
GAP, LINE = 16, 18                           # pixels between frames, and of the line below each
NONE = -1                                    # the position that stands for "no token chosen"
NEW, HATCH, UNKNOWN = "#D55E00", "#8a8a8a", "#c8c8c8"


def frame(recording: Recording, step: int, scale: int = 4) -> np.ndarray:
    """One state as a picture: unknown patches hatched, those of the last step outlined.

    Args:
        step: 0 .. num_steps; larger ones show the end.  scale: whole enlargement factor.

    Returns:
        numpy uint8 (scale H, scale W, 3).
    """
    state = recording.at(step)
    return mark(recording.pixels[state], recording.unknown[state], recording.new[state], scale)


def look_step(recording: Recording, step: int, position: int) -> int:
    """In which pass to see a position look, 1 to T: the one that drew it, or the next while it is unknown."""
    drawn = int(recording.new[:, position].int().argmax())
    return min(drawn, recording.at(step) + 1)


def attention_frame(recording: Recording, step: int, position: int, scale: int = 4) -> np.ndarray:
    """The state that a position looked at, dark where it did not look; the position itself outlined.

    Args:
        step, scale: as for `frame`.  position: 0 .. N-1.

    Returns:
        numpy uint8 (scale H, scale W, 3).
    """
    seen = look_step(recording, step, position)
    shares = recording.look(seen, position).positions                                         # (N,)
    picture = Image.fromarray(mark(recording.pixels[seen - 1], recording.unknown[seen - 1], None, scale))
    side = int(len(shares) ** 0.5)
    light = Image.fromarray((shares / shares.max().clamp(min=1e-9)).view(side, side).numpy())
    light = np.asarray(light.resize(picture.size, Image.Resampling.NEAREST))[..., None]       # (scale H, scale W, 1)
    shaded = Image.fromarray((np.asarray(picture) * (0.15 + 0.85 * light)).astype(np.uint8))
    patch = picture.width // side
    x, y = position % side * patch, position // side * patch
    ImageDraw.Draw(shaded).rectangle([x, y, x + patch - 1, y + patch - 1], outline=NEW, width=max(2, scale))
    return np.asarray(shaded)


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


def describe_look(recording: Recording, step: int, position: int) -> str:
    """In words: where a position looks, the strongest three words and positions first."""
    seen = look_step(recording, step, position)
    look = recording.look(seen, position)
    words = sorted(look.words.items(), key=lambda item: -item[1])[:3]
    places = look.positions.topk(min(3, len(look.positions)))
    told = [f"{word} {share:.0%}" for word, share in words]
    told += [f"position {n} {share:.0%}" for n, share in zip(places.indices.tolist(), places.values.tolist(),
                                                             strict=True) if share > 0]
    when = f"drawn in step {seen}" if recording.new[seen, position] else "still unknown"
    return f"{recording.title}: position {position}, {when}, looks at {', '.join(told)}"


def side_by_side(recordings: list[Recording], step: int, position: int = NONE) -> str:
    """All recordings after the same number of steps, as HTML with alternative text.

    Args:
        position: a second row shows where it looks; -1 for none.
    """
    frames = [frame(recording, step) for recording in recordings]
    titles = [f"{r.title}: {int(r.unknown[r.at(step)].sum())} unknown" for r in recordings]
    told = ". ".join(describe(recording, step) for recording in recordings)
    caption = f'"{recordings[0].prompt}" after step {step}: hatched is unknown, outlined is new.'
    if position != NONE:
        looks = ". ".join(describe_look(recording, step, position) for recording in recordings)
        frames += [attention_frame(recording, step, position) for recording in recordings]
        titles += [f"where position {position} looks" for _ in recordings]
        told, caption = f"{told}. Below, the attention of one token. {looks}", f"{caption} Below: {looks}."
    grid = image_grid(frames, titles=titles, columns=len(recordings), scale=1, gap=GAP)
    return figure_html(grid, alt=f"After step {step}. {told}. Unknown patches are hatched, new ones outlined.",
                       caption=caption)


def position_at(recordings: list[Recording], rows: int, spot: tuple[float, float]) -> int | None:
    """Which token of `side_by_side`'s picture lies at a spot.

    Args:
        rows: of frames, 1 or 2.  spot: (x, y) from 0 to 1.

    Returns:
        Its position, or None between frames and on the lines of text.
    """
    height, width = (4 * side for side in recordings[0].pixels.shape[-2:])
    columns = int(recordings[0].unknown.shape[1] ** 0.5)
    x = spot[0] * (len(recordings) * (width + GAP) - GAP) % (width + GAP)
    y = spot[1] * (rows * (height + LINE + GAP) - GAP) % (height + LINE + GAP)
    if x >= width or y >= height:
        return None
    return int(y / height * columns) * columns + int(x / width * columns)


class OrderPlayer:
    """Recordings of the same prompt side by side, with a step to choose, to type or to play, and a token to click.

    Args:
        draw: (prompt, seed) -> the recordings; called at once, and again when the "draw" button is pressed.
        prompt, seed: of the first pictures.

    Attributes:
        recordings: what is shown.  step, position: `NumberSlider`s; position -1 shows no attention.  explorer: draws
        a step.  maker: draws a prompt.  prompt, seed, button: the maker's.  widget: what to `display`.
    """

    def __init__(self, draw: Callable[[str, int], list[Recording]], prompt: str, seed: int = 0):
        self._draw, self.recordings = draw, draw(prompt, seed)
        last, (N, *_) = max(r.num_steps for r in self.recordings), self.recordings[0].unknown.shape[1:]
        self.prompt, self.seed = textbox("prompt", prompt), NumberSlider("seed", seed, 0, max(seed, 999), 1)
        self.step = NumberSlider("step", last // 3, 0, last, 1)
        self.position = NumberSlider("show the attention of position (-1: none)", NONE, NONE, N - 1, 1)
        picture = Picture(ClickPicture())
        self.explorer = Explorer({"step": self.step, "position": self.position}, self._show, picture=picture)
        self.maker = Explorer({"prompt": self.prompt, "seed": self.seed}, self._make, button="draw", picture=picture)
        self.button = self.maker.button
        picture.widget.observe(self._clicked, "spot")
        play = Player(value=0, min=0, max=last, interval=600)
        ipywidgets.jslink((play, "value"), (self.step.slider, "value"))         # the browser plays, also while we draw
        self.widget = column(self.maker.widget, play, self.step.widget, self.position.widget, picture.widget)
        self.explorer.refresh()

    def _show(self, step: int, position: int) -> str:
        return side_by_side(self.recordings, step, position)

    def _make(self, prompt: str, seed: int) -> str:
        recordings = self._draw(prompt, seed)
        if wanted():
            self.recordings = recordings
        return self._show(self.step.value, self.position.value)

    def _clicked(self, change) -> None:
        rows = 1 if self.position.value == NONE else 2
        position = position_at(self.recordings, rows, change["new"])
        if position is not None:
            self.position.value = position
