"""Explorers from event to effect, without a browser."""

import asyncio
import importlib
import sys
import threading

import ipywidgets
import pytest

from fluidlab.viz import browser, turns
from fluidlab.viz.turns import Pace, wanted
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


class Timer:
    """A `threading.Timer` that goes off when the test says so."""

    made = []

    def __init__(self, delay, call, arguments):
        self.fire, self.cancelled = lambda: call(*arguments), False
        self.made.append(self)

    def start(self):
        self.daemon_when_started = self.daemon

    def cancel(self):
        self.cancelled = True


@pytest.fixture
def timers(monkeypatch):
    monkeypatch.setattr(Timer, "made", [])
    return Timer.made


def in_a_loop(explorer, act):
    """Do something where an event loop runs, as in a kernel, with timers that wait for the test."""
    explorer.turns._timer = Timer

    async def run():
        act()
    asyncio.run(run())


def test_in_a_running_loop_a_burst_is_drawn_once_with_the_latest_value(timers):
    draws = []
    explorer = make(draws)

    def drag():
        for value in range(2, 9):
            explorer.controls["scale"].slider.value = value
    in_a_loop(explorer, drag)
    assert draws == [] and [timer.cancelled for timer in timers] == [True] * 6 + [False]
    assert all(timer.daemon_when_started for timer in timers)
    for timer in timers:                        # even one that was cancelled too late draws nothing
        timer.fire()
    assert draws == [(8, "red")] and explorer.picture.widget.value == "<p>8 red</p>"


def test_refresh_draws_at_once_and_cancels_what_was_asked_for(timers):
    draws = []
    explorer = make(draws)

    def change():
        explorer.controls["scale"].value = 2
        explorer.refresh()
    in_a_loop(explorer, change)
    timers[0].fire()
    assert draws == [(2, "red")] and timers[0].cancelled


def slow(on_the_way):
    """An explorer whose draw looks up half way; `on_the_way(explorer)` is what happens then."""
    def draw(scale):
        if scale == 5:
            on_the_way(explorer)
        return f"<p>{scale} {'whole' if wanted() else 'broken off'}</p>"
    explorer = Explorer({"scale": NumberSlider("scale", 1, 0, 9)}, draw)
    return explorer


def test_a_cancelled_draw_is_told_and_shows_nothing():
    seen = []

    def press_cancel(explorer):
        seen.append(wanted())
        explorer.cancel.click()
        seen.append(wanted())
    explorer = slow(press_cancel)
    explorer.controls["scale"].value = 5
    assert seen == [True, False]
    assert "Cancelled" in explorer.picture.widget.value and "<p>5" not in explorer.picture.widget.value
    explorer.controls["scale"].value = 6
    assert explorer.picture.widget.value == "<p>6 whole</p>" and wanted()


def test_cancel_with_nothing_to_cancel_keeps_the_picture():
    explorer = slow(lambda explorer: None)
    explorer.refresh()
    explorer.cancel.click()
    assert explorer.picture.widget.value == "<p>1 whole</p>" and "Nothing is being drawn" in explorer.status.value


def test_a_newer_value_ends_a_running_draw(timers):
    explorer = slow(lambda explorer: setattr(explorer.controls["scale"], "value", 7))
    shown = []
    explorer.picture.widget.observe(lambda change: shown.append(change["new"]), "value")
    in_a_loop(explorer, lambda: setattr(explorer.controls["scale"], "value", 5))
    explorer.turns._timer = Timer

    async def fire():                           # as the kernel: the change inside only asks
        timers[0].fire()
    asyncio.run(fire())
    assert shown == []
    timers[1].fire()
    assert shown == ["<p>7 whole</p>"]


def test_a_draw_that_moves_a_control_gives_way_to_the_draw_of_its_new_value():
    explorer, shown = slow(lambda explorer: setattr(explorer.controls["scale"], "value", 7)), []
    explorer.picture.widget.observe(lambda change: shown.append(change["new"]), "value")
    explorer.controls["scale"].value = 5
    assert shown == ["<p>7 whole</p>"] and not explorer.turns.busy


def test_while_one_thread_draws_no_other_may_begin():
    free = []

    def try_to_begin():
        free.append(turns._one_at_a_time.acquire(blocking=False))
        if free[-1]:
            turns._one_at_a_time.release()

    def another_thread():
        thread = threading.Thread(target=try_to_begin)
        thread.start()
        thread.join()
    slow(lambda explorer: another_thread()).controls["scale"].value = 5
    another_thread()
    assert free == [False, True]


def test_a_slow_draw_is_announced_with_its_seconds():
    said, now = [], [0.0]

    def draw(amount):
        said.append(explorer.status.value)
        now[0] += 3.0 * amount                  # seconds
        return "<p></p>"
    explorer = Explorer({"amount": NumberSlider("amount", 0.5, 0.1, 9.0, 0.1)}, draw,
                        work=lambda amount: ("any", amount))
    explorer.clock = lambda: now[0]
    explorer.refresh()
    explorer.controls["amount"].value = 2.0
    explorer.controls["amount"].value = 0.2
    assert "Drawing ..." in said[0] and "about 6 seconds" in said[1] and said[2] == ""
    assert 'role="status"' in said[1] and explorer.status.value == ""


def test_an_unknown_kind_of_draw_is_expected_to_be_as_slow_as_the_slowest():
    pace = Pace()
    assert pace.expect("any", 1) is None
    pace.note("quick", 10, 1.0)
    pace.note("slow", 1, 4.0)
    assert pace.expect("quick", 20) == 2.0 and pace.expect("never seen", 2) == 8.0


def test_the_slider_has_the_name_of_its_box_and_an_explorer_guards_its_keys():
    assert NumberSlider("guidance scale", 3.0, 1.0, 10.0, 0.5).slider.label == "guidance scale"
    assert 'setAttribute("aria-label", model.get("label"))' in browser.RANGE
    assert any(isinstance(child, browser.KeyGuard) for child in make([]).widget.children)


def test_without_anywidget_the_controls_are_those_of_ipywidgets(monkeypatch):
    monkeypatch.setitem(sys.modules, "anywidget", None)
    try:
        plain = importlib.reload(browser)
        slider = plain.Range(label="scale", value=3, min=0, max=9, step=1)
        tray = plain.Tray(description="in", outside="out", options=["a", "b"], value=["a"])
        assert isinstance(slider, ipywidgets.FloatSlider) and slider.value == 3 and list(tray.value) == ["a"]
        assert plain.ClickPicture(value="<p></p>").spot == [] and plain.Player(max=3, interval=600).max == 3
    finally:
        monkeypatch.undo()
        importlib.reload(browser)
