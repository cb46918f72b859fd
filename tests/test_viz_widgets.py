"""Explorers from event to effect, without a browser."""

import asyncio

import ipywidgets
import pytest

from fluidlab.viz.widgets import Explorer, NumberSlider, Picture, checkbox, choice, textbox


def test_slider_and_box_follow_each_other_and_stay_in_range():
    number = NumberSlider("guidance scale", 3.0, 1.0, 10.0, 0.5)
    number.slider.value = 4.5
    assert number.box.value == number.value == 4.5
    number.box.value = 99.0
    assert number.slider.value == number.value == 10.0
    number.value = 0.0
    assert number.slider.value == 1.0


def test_whole_numbers_stay_whole():
    assert isinstance(NumberSlider("steps", 4, 1, 16).box, ipywidgets.BoundedIntText)
    assert isinstance(NumberSlider("scale", 4, 1, 16, 0.5).box, ipywidgets.BoundedFloatText)


def test_the_box_carries_the_whole_name():
    number = NumberSlider("a name that is longer than ten letters", 1, 0, 2)
    assert number.box.description == number.label
    for widget in (number.box, choice("picture", ["a"]), checkbox("error map"), textbox("prompt")):
        assert widget.style.description_width == "initial"


@pytest.mark.parametrize("value, low, high, step", [(5, 6, 7, 1), (1, 2, 0, 1), (1, 0, 2, 0)])
def test_impossible_ranges_are_refused_with_the_numbers(value, low, high, step):
    with pytest.raises(ValueError, match=f"value {value}, range {low} to {high} and step {step}"):
        NumberSlider("steps", value, low, high, step)


def test_one_change_is_one_call():
    number, seen = NumberSlider("steps", 4, 1, 16), []
    number.observe(seen.append)
    number.slider.value = 7
    number.box.value = 8
    assert seen == [7, 8]


def make(draws, **options):
    def draw(scale, colour):
        draws.append((scale, colour))
        if scale == 5:
            raise ValueError("scale is 5;\nallowed is <4>.")
        return f"<p>{scale} {colour}</p>"

    controls = {"scale": NumberSlider("scale", 1, 0, 9), "colour": choice("colour", ["red", "blue"])}
    return Explorer(controls, draw, **options)


def test_a_changed_control_changes_the_picture():
    explorer = make([])
    explorer.controls["scale"].slider.value = 3
    assert explorer.picture.widget.value == "<p>3 red</p>"
    explorer.controls["colour"].value = "blue"
    assert explorer.picture.widget.value == "<p>3 blue</p>"
    assert explorer.picture.widget in explorer.widget.children


def test_an_error_is_one_sentence_in_place_of_the_picture_and_goes_away():
    explorer = make([])
    explorer.controls["scale"].value = 5
    shown = explorer.picture.widget.value
    assert "scale is 5; allowed is &lt;4&gt;." in shown and 'role="alert"' in shown
    explorer.controls["scale"].value = 6
    assert explorer.picture.widget.value == "<p>6 red</p>"


def test_other_errors_name_their_type():
    picture = Picture()
    picture.fail(RuntimeError("no memory"))
    assert "RuntimeError: no memory" in picture.widget.value
    picture.say("a < b")
    assert "a &lt; b" in picture.widget.value


def test_with_a_button_only_a_press_draws():
    draws = []
    explorer = make(draws, button="Draw")
    explorer.controls["scale"].value = 3
    assert draws == []
    explorer.button.click()
    assert draws == [(3, "red")] and explorer.picture.widget.value == "<p>3 red</p>"


def test_in_a_running_loop_a_burst_is_drawn_once_with_the_latest_value():
    draws = []

    async def drag():
        explorer = make(draws, delay=0.0)
        for value in range(2, 9):
            explorer.controls["scale"].slider.value = value
        assert draws == []
        await asyncio.sleep(0.01)
        return explorer

    explorer = asyncio.run(drag())
    assert draws == [(8, "red")] and explorer.picture.widget.value == "<p>8 red</p>"


def test_refresh_draws_at_once_and_cancels_what_was_asked_for():
    draws = []

    async def drag():
        explorer = make(draws, delay=0.0)
        explorer.controls["scale"].value = 2
        explorer.refresh()
        await asyncio.sleep(0.01)

    asyncio.run(drag())
    assert draws == [(2, "red")]
