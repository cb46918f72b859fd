"""The studio: type a prompt, move guidance and temperature, and the picture answers; and the same as a printed sheet.

Knows pipelines and draws nothing by itself. What to notice: the seed stays while the dials move, so what changes in
the picture is the dial's doing and not chance. Warnings of the text encoder (a word never seen in training) stand
below the picture instead of scrolling away, and a mistake stands in its place. Every step of a drawing asks whether
its picture is still `wanted`, so that a newer value or the cancel button ends it.
"""

import warnings
from collections.abc import Mapping

from PIL import Image

from fluidlab.pipeline import FluidPipeline
from fluidlab.viz.plots import contact_sheet
from fluidlab.viz.show import figure_html, image_grid
from fluidlab.viz.turns import wanted
from fluidlab.viz.widgets import Explorer, NumberSlider, checkbox, choice, textbox

GUIDANCE, TEMPERATURE = (0.0, 12.0), (0.0, 2.0)     # where the sliders end
ONE_EACH = "one per token"
NUM_IMAGES = 4                          # neighbouring seeds: one picture alone says little about a distribution
STEPS = [(ONE_EACH, None), *((str(n), n) for n in (1, 2, 4, 8, 16))]


def heard(call):
    """Run `call()` and keep what it warns of: (its answer, the warnings' sentences without repetition)."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        answer = call()
    return answer, list(dict.fromkeys(str(w.message) for w in caught if issubclass(w.category, UserWarning)))


class Studio:
    """Pictures from settings, as HTML.

    Args:
        pipelines: variant's name -> `FluidPipeline`, for example "random-diffusion".
        num_images: pictures per answer, of neighbouring seeds.

    Raises:
        ValueError: no pipeline at all.
    """

    def __init__(self, pipelines: Mapping[str, FluidPipeline], num_images: int = NUM_IMAGES):
        if not pipelines:
            raise ValueError("The studio was given 0 pipelines; it needs at least 1.")
        self.pipelines, self.num_images = pipelines, num_images

    def draw(self, prompt: str, variant: str, seed: int, guidance_scale: float, temperature: float,
             num_inference_steps: int | None, num_denoising_steps: int, sheet: bool = False) -> str:
        """The answer to one setting of all controls: a row of pictures with what was asked below it.

        Args:
            sheet: instead of neighbouring seeds, one seed with guidance and temperature around the chosen values.

        Raises:
            ValueError: a value that the pipeline refuses, or a variant that is not here.
        """
        if variant not in self.pipelines:
            raise ValueError(f"variant must be one of {', '.join(self.pipelines)}, got {variant!r}.")
        pipe, steps = self.pipelines[variant], {"num_inference_steps": num_inference_steps,
                                                "num_denoising_steps": num_denoising_steps, "on_step": wanted}
        if sheet:
            rows, columns = around(guidance_scale, *GUIDANCE), around(temperature, *TEMPERATURE)
            picture, notes = heard(lambda: dial_sheet(pipe, prompt, rows, columns, seed=seed, scale=2, **steps))
            shown, last = f"{len(rows) * len(columns)} pictures of one seed", seed
        else:
            output, notes = heard(lambda: pipe(prompt, seed=seed, num_images_per_prompt=self.num_images,
                                               guidance_scale=guidance_scale, temperature=temperature, **steps))
            picture = image_grid(output.pixels, scale=3 if self.num_images <= 4 else None)
            shown, last = f"{self.num_images} pictures", seed + self.num_images - 1
        said = (f"{variant}, guidance {guidance_scale:g}, temperature {temperature:g}{' and around' if sheet else ''}, "
                f"seed {seed}" + (f" to {last}" if last > seed else ""))
        return figure_html(picture, alt=f"{shown} drawn for the prompt {prompt!r} by {said}.",
                           caption=". ".join([said, *(note.rstrip(".") for note in notes)]) + ".")

    def work(self, variant: str, num_inference_steps: int | None, num_denoising_steps: int, sheet: bool,
             **other) -> tuple[str, float]:
        """How much a draw has to do: passes through the head, which differ from variant to variant."""
        pipe = self.pipelines[variant]
        inner = num_denoising_steps if pipe.tokenizer.kind == "continuous" else 1
        return variant, (num_inference_steps or pipe.model.config.seq_len) * inner * (9 if sheet else self.num_images)

    def explorer(self, prompt: str, variant: str | None = None, *, seed: int = 0, guidance_scale: float = 3.0,
                 temperature: float = 1.0, num_denoising_steps: int = 25) -> Explorer:
        """The controls and the first picture; `display(studio.explorer("a cat").widget)`.

        Guidance runs from 0 to 12, temperature from 0 to 2, denoising steps from 1 to 100; "contact sheet" draws one
        seed with nine pairs of the two. A discrete head has no use for denoising steps, and raster order takes one step
        per token: other numbers are refused in place.
        """
        controls = {
            "prompt": textbox("prompt", prompt),
            "variant": choice("variant", list(self.pipelines), variant or next(iter(self.pipelines))),
            "seed": NumberSlider("seed", seed, 0, 999, 1),
            "guidance_scale": NumberSlider("guidance scale", float(guidance_scale), *GUIDANCE, 0.1),
            "temperature": NumberSlider("temperature", float(temperature), *TEMPERATURE, 0.05),
            "num_inference_steps": choice("steps over the sequence", STEPS),
            "num_denoising_steps": NumberSlider("denoising steps", num_denoising_steps, 1, 100, 1),
            "sheet": checkbox("contact sheet: guidance by temperature"),
        }
        explorer = Explorer(controls, self.draw, work=self.work)
        explorer.refresh()
        return explorer


def around(value: float, low: float, high: float) -> list[float]:
    """A value between its neighbours, each half way to an end of the range; fewer than three at an end."""
    return sorted({round((low + value) / 2, 2), value, round((value + high) / 2, 2)})


def dial_sheet(pipe: FluidPipeline, prompt: str, guidance_scales: list[float], temperatures: list[float], *,
               seed: int = 0, scale: int | None = None, **options) -> Image.Image:
    """A contact sheet of one prompt and one seed: guidance from row to row, temperature from column to column.

    Args:
        options: of the pipeline, such as `num_denoising_steps`.
    """
    pixels = [pipe(prompt, seed=seed, guidance_scale=g, temperature=t, **options).pixels[0]
              for g in guidance_scales for t in temperatures]
    return contact_sheet(pixels, [f"guidance {g:g}" for g in guidance_scales],
                         [f"temperature {t:g}" for t in temperatures], scale=scale)
