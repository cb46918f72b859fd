"""The prompt box of the first notebook: type a prompt, choose a variant, press the button.

`draw_prompt` is a plain function of values; `PromptBox` only connects it to controls. What to notice: what the text
encoder warns of (a word that it has never read, a prompt that is too long) stands below the picture, where the reader
looks, and not in a log.
"""

import html

from fluidlab.viz.show import figure_html, image_grid
from fluidlab.viz.studio import heard
from fluidlab.viz.turns import wanted
from fluidlab.viz.widgets import Explorer, NumberSlider, choice, textbox

NUM_IMAGES = 4      # with seeds of their own, since one picture tells little about a model
SCALE = 3           # enlargement: a 64-pixel scene is 192 pixels wide


def draw_prompt(pipeline, name: str, prompt: str, seed: int, **options) -> str:
    """Draws a prompt a few times and says what the text encoder warned of.

    Args:
        pipeline: a `FluidPipeline`.  name: how the variant is called in the alt text.
        prompt: the text; empty means "no text".
        seed: of the first picture; the others use the numbers behind it.
        options: of the pipeline, such as guidance_scale.

    Returns:
        HTML of the pictures in a row, and below them each warning.
    """
    output, notes = heard(lambda: pipeline(prompt, seed=seed, num_images_per_prompt=NUM_IMAGES, on_step=wanted,
                                            **options))
    said = repr(prompt) if prompt.strip() else "no text"
    figure = figure_html(image_grid(output.pixels, scale=SCALE), alt=f"{NUM_IMAGES} pictures by {name} for {said}.",
                         caption=f"{name}, {said}, seeds {seed} to {seed + NUM_IMAGES - 1}")
    return figure + "".join(f'<p role="status">{html.escape(note)}</p>' for note in notes)


class PromptBox:
    """A line for the prompt, a list of variants, a seed and a button.

    Args:
        pipelines: name -> `FluidPipeline`; the last is chosen at first.
        prompt: what stands in the line at first.
        options: of every drawing, such as guidance_scale.

    Attributes:
        explorer: the `Explorer`; `explorer.widget` is what to display.

    Raises:
        ValueError: if there is no pipeline.
    """

    def __init__(self, pipelines: dict, prompt: str = "a photo of a cat", **options):
        if not pipelines:
            raise ValueError("The prompt box was given 0 pipelines; it needs at least 1.")
        self.pipelines, self.options = pipelines, options
        self.explorer = Explorer({
            "prompt": textbox("prompt", prompt),
            "variant": choice("variant", list(pipelines), list(pipelines)[-1]),
            "seed": NumberSlider("seed", 0, 0, 999),
        }, self.draw, button="Draw", work=lambda variant, **other: (variant, NUM_IMAGES))

    @property
    def widget(self):
        """What to display."""
        return self.explorer.widget

    def draw(self, prompt: str, variant: str, seed: int) -> str:
        """The HTML for one state of the controls."""
        return draw_prompt(self.pipelines[variant], variant, prompt, seed, **self.options)
