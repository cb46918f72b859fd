"""The welcome notebook's pictures and its prompt box, from button to picture."""

import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from fluidlab.data.scenes import EmojiScenes
from fluidlab.viz.plots_welcome import filling_steps, scene_boxes, two_by_two
from fluidlab.viz.prompt_box import NUM_IMAGES, PromptBox, draw_prompt
from fluidlab.viz.show import figure_html
from fluidlab.viz.turns import wanted


def fake_pipeline(calls):
    """What a pipeline looks like from outside: pictures from the seed, a warning for a word it does not know."""
    def draw(prompt, *, seed, num_images_per_prompt, **options):
        calls.append((prompt, seed, options))
        if "zebroid" in prompt:
            warnings.warn("The text encoder was never trained on 'zebroid' <here>.", stacklevel=1)
        if prompt == "bad":
            raise ValueError("guidance_scale must be from 0 to 100, got 101.")
        generator = torch.Generator().manual_seed(seed)
        return SimpleNamespace(pixels=torch.rand(num_images_per_prompt, 3, 16, 16, generator=generator))
    return draw


@pytest.fixture
def box():
    calls = []
    box = PromptBox({"raster-softmax": fake_pipeline(calls), "random-diffusion": fake_pipeline(calls)}, "a cat",
                    guidance_scale=3.0)
    box.calls = calls
    return box


def press(box, **values):
    for name, value in values.items():
        box.explorer.controls[name].value = value
    box.explorer.button.click()
    return box.explorer.picture.widget.value


def test_only_the_button_draws(box):
    box.explorer.controls["prompt"].value = "a dog"
    assert box.calls == []
    assert "random-diffusion" in press(box) and box.calls == [("a dog", 0, {"guidance_scale": 3.0, "on_step": wanted})]


def test_prompt_variant_and_seed_change_the_picture(box):
    first = press(box)
    for change in ({"prompt": "a dog"}, {"variant": "raster-softmax"}, {"seed": 7}):
        assert press(box, **change) != first
    assert f"seeds 7 to {7 + NUM_IMAGES - 1}" in press(box, seed=7)


def test_unknown_words_are_told_below_the_picture(box):
    shown = press(box, prompt="a zebroid")
    assert "data:image/" in shown and "&#x27;zebroid&#x27; &lt;here&gt;" in shown


def test_a_mistake_stands_in_place_of_the_picture(box):
    shown = press(box, prompt="bad")
    assert 'role="alert"' in shown and "got 101." in shown and "data:image" not in shown


def test_no_text_is_named():
    assert "no text" in draw_prompt(fake_pipeline([]), "random-diffusion", "  ", 0)


def test_a_box_without_pipelines_is_refused():
    with pytest.raises(ValueError, match="0 pipelines"):
        PromptBox({})


def test_the_orders_are_drawn_as_they_are_walked():
    assert np.array_equal(filling_steps("raster"), np.arange(1, 17).reshape(4, 4))
    random = filling_steps("random", seed=3)
    counts = np.bincount(random.ravel())[1:]
    assert counts.sum() == 16 and len(counts) == 6 and (np.diff(counts) >= 0).all()
    assert not np.array_equal(random, filling_steps("random", seed=4))      # 16! orders: equal once in 2e13


def test_both_figures_become_pictures():
    scenes = EmojiScenes("train")
    for figure in (two_by_two(), scene_boxes([scenes[0], scenes[1]])):
        assert "data:image/" in figure_html(figure, alt="a figure")
