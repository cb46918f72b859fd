"""The studio from event to effect: a moved dial changes the picture, and what goes wrong is said in place."""

import re
import warnings

import pytest
import torch
from helpers import variant

from fluidlab.pipeline import FluidPipeline
from fluidlab.tokenizer.vae import VAEConfig, VAETokenizer
from fluidlab.viz.studio import Studio, around, dial_sheet, heard

SMALL = VAEConfig(width=32, coarse_width=32, encoder_depth=1, decoder_depth=1, coarse_depth=1)


class Letters:
    """A text encoder for tests: one fixed random vector per letter; warns of the letter z."""

    dim = 128

    def __call__(self, prompts):
        longest = max(map(len, prompts))
        table = torch.randn(128, self.dim, generator=torch.Generator().manual_seed(0))
        ids = torch.tensor([[ord(c) for c in p.ljust(longest)] for p in prompts])
        if any("z" in p for p in prompts):
            warnings.warn("The letter 'z' was never seen.", stacklevel=2)
        return table[ids], torch.arange(longest) < torch.tensor([[len(p)] for p in prompts])


def pipeline(order):
    torch.manual_seed(0)
    return FluidPipeline(variant(order, "diffusion"), VAETokenizer(SMALL).eval(), Letters())


@pytest.fixture(scope="module")
def studio():
    return Studio({"random-diffusion": pipeline("random"), "raster-diffusion": pipeline("raster")}, num_images=2)


def picture(text):
    return re.search(r'src="data:image/png;base64,([^"]+)"', text).group(1)


def explorer(studio):
    made = studio.explorer("a cat", num_denoising_steps=2)
    made.delay = 0
    return made


@pytest.mark.parametrize("dial, value", [("guidance_scale", 8.0), ("temperature", 0.25), ("seed", 3),
                                         ("num_denoising_steps", 5)])
def test_a_moved_slider_draws_another_picture_and_moving_back_the_same(studio, dial, value):
    made = explorer(studio)
    first = made.picture.widget.value
    before = made.controls[dial].value
    made.controls[dial].slider.value = value
    assert picture(made.picture.widget.value) != picture(first)
    made.controls[dial].box.value = before
    assert made.picture.widget.value == first


@pytest.mark.parametrize("dial, value", [("prompt", "two dogs"), ("variant", "raster-diffusion"),
                                         ("num_inference_steps", 4), ("sheet", True)])
def test_other_controls_draw_another_picture_too(studio, dial, value):
    made = explorer(studio)
    first = picture(made.picture.widget.value)
    made.controls[dial].value = value
    assert picture(made.picture.widget.value) != first


def test_settings_stand_in_the_alternative_text_and_out_of_range_is_the_nearest_end(studio):
    made = explorer(studio)
    made.controls["guidance_scale"].box.value = 99
    assert made.controls["guidance_scale"].slider.value == 12
    text = made.picture.widget.value
    assert "a cat" in text and "guidance 12, temperature 1, seed 0 to 1" in text and 'alt="2 pictures drawn' in text


def test_a_refused_number_of_steps_is_said_in_place_and_the_next_picture_comes(studio):
    made = explorer(studio)
    made.controls["variant"].value = "raster-diffusion"
    made.controls["num_inference_steps"].value = 4
    assert 'role="alert"' in made.picture.widget.value
    assert "raster order takes one step for each of its 16 tokens" in made.picture.widget.value
    made.controls["num_inference_steps"].value = None
    assert picture(made.picture.widget.value)


def test_warnings_stand_below_the_picture(studio):
    made = explorer(studio)
    assert "never seen" not in made.picture.widget.value
    made.controls["prompt"].value = "a zebra"
    assert "The letter &#x27;z&#x27; was never seen." in made.picture.widget.value


def test_heard_keeps_each_warning_once():
    def call():
        warnings.warn("again", stacklevel=1)
        warnings.warn("again", stacklevel=1)
        return 7
    assert heard(call) == (7, ["again"])


def test_an_unknown_variant_and_an_empty_studio_are_refused(studio):
    with pytest.raises(ValueError, match="one of random-diffusion, raster-diffusion, got 'spiral'"):
        studio.draw("a cat", "spiral", 0, 3.0, 1.0, None, 2)
    with pytest.raises(ValueError, match="given 0 pipelines"):
        Studio({})


def test_a_sheet_has_guidance_in_rows_and_temperature_in_columns():
    pipe, asked = pipeline("random"), []

    def recorded(prompt, **options):
        asked.append((options["guidance_scale"], options["temperature"], options["seed"]))
        return pipe(prompt, **options)
    sheet = dial_sheet(recorded, "a cat", [1, 3], [0, 0.5, 1], seed=5, scale=1, num_denoising_steps=2)
    assert asked == [(g, t, 5) for g in (1, 3) for t in (0, 0.5, 1)]
    assert sheet.height > 2 * 70 - 6 and sheet.width > 3 * 70 - 6


def test_the_contact_sheet_is_drawn_around_the_sliders(studio):
    made = explorer(studio)
    made.controls["guidance_scale"].value = 12.0
    made.controls["sheet"].value = True
    assert "6 pictures of one seed" in made.picture.widget.value                      # 2 guidances, 3 temperatures
    assert around(3.0, 0.0, 12.0) == [1.5, 3.0, 7.5] and around(0.0, 0.0, 2.0) == [0.0, 1.0]


def test_the_work_of_a_draw_grows_with_its_steps(studio):
    few = studio.work("raster-diffusion", None, 5, False)
    assert few == ("raster-diffusion", 16 * 5 * 2)
    assert studio.work("random-diffusion", 4, 50, True) == ("random-diffusion", 4 * 50 * 9)


def test_cancel_ends_the_sampling_itself(studio, monkeypatch):
    made, steps, pipe = explorer(studio), [], studio.pipelines["random-diffusion"]
    sample = pipe.model.head.sample

    def counted(*args, **options):
        steps.append(0)
        if len(steps) == 3:
            made.cancel.click()
        return sample(*args, **options)
    monkeypatch.setattr(pipe.model.head, "sample", counted)
    made.controls["seed"].value = 9
    assert len(steps) == 3 and "Cancelled" in made.picture.widget.value
