"""What every explorer of the course is made of: numbers that can be typed, and a picture that follows them.

    def draw(scale, colour):                                   # a plain function, tested without a browser
        return figure_html(picture(scale, colour), alt=f"A disc of scale {scale}.")

    explorer = Explorer({"scale": NumberSlider("guidance scale", 3.0, 1.0, 10.0, 0.1),
                         "colour": choice("colour", ["red", "blue"])}, draw)
    explorer.refresh()                                         # the first picture, before it is shown
    display(explorer.widget)

`NumberSlider` is a slider paired with a named number box; `choice`, `checkbox` and `textbox` are ipywidgets with names
that are not cut off; `Picture` is one piece of HTML that is replaced as a whole, because an Output area flickers;
`Explorer` calls `draw` with the values of its controls and puts the HTML in place. What to notice: a slider that is
dragged sends dozens of values, and a draw may take seconds. So a change only asks for a redraw; it comes when the
values have been still for a moment, with the latest of them, once, in a thread beside the kernel's (`turns.py`). A
newer value ends a running draw, and so does the cancel button. A mistake is shown as one sentence in the picture's
place, with the picture before it gone, so that no picture is taken for an answer that it is not.

Knows no model. With `button=` nothing is drawn until it is pressed. A draw that takes seconds asks `turns.wanted()`
on the way, or it can be cancelled only in name.
"""

import asyncio
import html
import time
from collections.abc import Callable

import ipywidgets
import traitlets

from fluidlab.viz.browser import KeyGuard, Range
from fluidlab.viz.turns import Pace, Turns, wanted

DELAY = 0.15    # seconds that values must be still before a redraw
SLOW = 2.0      # seconds from which a draw is announced
NAMED = {"description_width": "initial"}   # the default cuts a description after about 10 letters


class NumberSlider:
    """A number that can be dragged or typed: a slider and a number box that always agree.

    Whole numbers if value, minimum, maximum and step are all `int`, else floats.

    Args:
        label: the name, shown and read out.
        value, minimum, maximum, step: the start, the range with both ends, and the slider's step.

    Raises:
        ValueError: if the range is empty or the value outside it.
    """

    def __init__(self, label, value, minimum, maximum, step=1):
        if not minimum < maximum or not minimum <= value <= maximum or step <= 0:
            raise ValueError(f"{label} got value {value}, range {minimum} to {maximum} and step {step}; the value must "
                             "lie in a range that is not empty, and the step be above 0.")
        whole = all(isinstance(number, int) for number in (value, minimum, maximum, step))
        box = ipywidgets.BoundedIntText if whole else ipywidgets.BoundedFloatText
        shared = {"value": value, "min": minimum, "max": maximum, "step": step}
        self.label = label
        room = f"{max(18, 9 + round(0.55 * len(label)))}em"             # for the whole name and for the number
        self.box = box(description=label, style=NAMED, layout={"width": room}, **shared)
        self.slider = Range(label=label, layout={"width": "16em"}, **shared)
        self._link = traitlets.link((self.slider, "value"), (self.box, "value"))
        self.widget = ipywidgets.HBox([self.box, self.slider], layout={"align_items": "center", "flex_flow": "wrap"})

    @property
    def value(self):
        """The number; setting one outside the range takes the nearest end, as the box does."""
        return self.box.value

    @value.setter
    def value(self, value):
        self.box.value = value

    def observe(self, callback):
        """Call `callback(value)` whenever the number changes, once a change."""
        self.box.observe(lambda change: callback(change["new"]), "value")


def choice(label, options, value=None):
    """A dropdown; `options` is a list of texts, or of (text, value) pairs."""
    start = {} if value is None else {"value": value}
    return ipywidgets.Dropdown(description=label, options=options, style=NAMED, layout={"width": "max-content"},
                               **start)


def checkbox(label, value=False):
    """A box to tick."""
    return ipywidgets.Checkbox(description=label, value=value, style=NAMED, indent=False)


def textbox(label, value="", width="36em"):
    """A line of text; its value arrives when the line is left or Enter is pressed."""
    return ipywidgets.Text(description=label, value=value, style=NAMED, continuous_update=False,
                           layout={"width": width})


def column(*parts):
    """Widgets below each other, whose keys JupyterLab does not take."""
    return ipywidgets.VBox([*parts, KeyGuard()])


class Picture:
    """A place for one picture: a widget whose `value` is HTML that is replaced as a whole.

    Args:
        widget: by default an `ipywidgets.HTML`.
    """

    def __init__(self, widget=None):
        self.widget = widget or ipywidgets.HTML()

    def html(self, text: str) -> None:
        """Show HTML, usually of `figure_html`."""
        self.widget.value = text

    def say(self, sentence: str) -> None:
        """Show a sentence, such as what is being worked on."""
        self.widget.value = said(sentence)

    def fail(self, error: Exception) -> None:
        """Show a mistake as one sentence; other errors than a user's ValueError say their type too."""
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        sentence = html.escape(kind + " ".join(str(error).split()))
        self.widget.value = (f'<p role="alert" style="border-left:4px solid #D55E00;padding-left:0.5em"><strong>'
                             f'{sentence}</strong></p>')


def said(sentence: str) -> str:
    """A sentence as HTML that a screen reader says when it appears."""
    return f'<p role="status">{html.escape(sentence)}</p>'


class Explorer:
    """Controls above a picture that follows them.

    Args:
        controls: name -> `NumberSlider` or any widget with a `value`; the names are `draw`'s arguments.
        draw: a function of these values that returns HTML (`figure_html`). What it raises is shown in place.
        button: its text; then only a press draws, and not every change.
        work: a function of the same values that says how much a draw has to do, as (kind, amount), for the estimate of
            its seconds; by default all draws are alike.
        picture: where to show it; by default a new `Picture`.
        delay: seconds that values must be still before a redraw; without a running event loop it is at once.

    Attributes:
        widget: what to `display`.  controls, picture, delay: as given.  button: an ipywidgets.Button or None.
        cancel: the button that ends a draw.  status: an ipywidgets.HTML that says what is under way.
        clock: seconds, for the estimate.
    """

    def __init__(self, controls: dict, draw: Callable[..., str], *, button: str | None = None,
                 work: Callable[..., tuple[str, float]] | None = None, picture: Picture | None = None,
                 delay: float = DELAY):
        self.controls, self.picture, self.delay, self.clock = controls, picture or Picture(), delay, time.monotonic
        self._draw, self._work, self._pace = draw, work or (lambda **values: ("draw", 1.0)), Pace()
        self.turns, self.status = Turns(self._take_turn), ipywidgets.HTML()
        self.cancel = ipywidgets.Button(description="Cancel", layout={"width": "max-content"})
        self.cancel.on_click(lambda _: self.stop())
        self.button = ipywidgets.Button(description=button, layout={"width": "max-content"}) if button else None
        if self.button:
            self.button.on_click(lambda _: self.ask())
        else:
            for control in controls.values():
                if isinstance(control, NumberSlider):
                    control.observe(lambda _: self.ask())
                else:
                    control.observe(lambda _: self.ask(), "value")
        rows = [getattr(control, "widget", control) for control in controls.values()]
        buttons = ipywidgets.HBox([*([self.button] if self.button else []), self.cancel, self.status])
        self.widget = column(*rows, buttons, *([] if picture else [self.picture.widget]))

    def values(self) -> dict:
        """The controls' values by name."""
        return {name: control.value for name, control in self.controls.items()}

    def ask(self) -> None:
        """Ask for a redraw: soon, once, with the latest values."""
        try:
            asyncio.get_running_loop()
        except RuntimeError:                    # a plain script or a test
            return self.refresh()
        self.turns.soon(self.delay)

    def refresh(self) -> None:
        """Redraw now, and return when it is done; an error becomes a sentence in the picture's place."""
        self.turns.now()

    def stop(self) -> None:
        """End what is being drawn; the picture before it goes, since it does not show what the controls say."""
        if self.turns.stop():
            self.status.value = ""
            self.picture.say("Cancelled: nothing was drawn for these values.")
        else:
            self.status.value = said("Nothing is being drawn.")

    def _take_turn(self) -> None:
        values, started = self.values(), self.clock()
        try:
            kind, amount = self._work(**values)
            self._announce(self._pace.expect(kind, amount))
            text = self._draw(**values)
            if not wanted():
                return
            self._pace.note(kind, amount, self.clock() - started)
            self.picture.html(text)
        except Exception as error:              # in a callback nobody else would see it
            if not wanted():
                return
            self.picture.fail(error)
        self.status.value = ""

    def _announce(self, seconds: float | None) -> None:
        if seconds is None:
            self.status.value = said("Drawing ...")
        elif seconds >= SLOW:
            self.status.value = said(f"Drawing, about {seconds:.0f} seconds ...")
