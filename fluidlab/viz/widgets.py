"""What every explorer of the course is made of: numbers that can be typed, and a picture that follows them.

    def draw(scale, colour):                                   # a plain function, tested without a browser
        return figure_html(picture(scale, colour), alt=f"A disc of scale {scale}.")

    explorer = Explorer({"scale": NumberSlider("guidance scale", 3.0, 1.0, 10.0, 0.1),
                         "colour": choice("colour", ["red", "blue"])}, draw)
    explorer.refresh()                                         # the first picture, before it is shown
    display(explorer.widget)

`NumberSlider` is a slider paired with a named number box; `choice`, `checkbox` and `textbox` are ipywidgets with names
that are not cut off; `Picture` is an `ipywidgets.HTML` whose content is replaced as a whole, because an Output area
flickers; `Explorer` calls `draw` with the values of its controls and puts the HTML in place. What to notice: a slider
that is dragged sends dozens of values, and a draw may take a second. So a change only asks for a redraw; it comes when
the values have been still for a moment, with the latest of them, once. A mistake is shown as one sentence in the
picture's place, with the picture before it gone, so that no picture is taken for an answer that it is not.

Knows no model. With `button=` nothing is drawn until it is pressed: for draws that take seconds. A draw that wants to
show its progress calls `explorer.picture.html(...)` while it works.
"""

import asyncio
import html
from collections.abc import Callable

import ipywidgets
import traitlets

DELAY = 0.15    # seconds that values must be still before a redraw
NAMED = {"description_width": "initial"}   # the default cuts a description after about 10 letters


class NumberSlider:
    """A number that can be dragged or typed: a slider and a number box that always agree.

    Whole numbers if value, minimum, maximum and step are all `int`, else floats. The box carries the name, since an
    ipywidgets slider has none that a screen reader could say.

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
        box, slider = ((ipywidgets.BoundedIntText, ipywidgets.IntSlider) if whole else
                       (ipywidgets.BoundedFloatText, ipywidgets.FloatSlider))
        shared = {"value": value, "min": minimum, "max": maximum, "step": step}
        self.label = label
        self.box = box(description=label, style=NAMED, layout={"width": "18em"}, **shared)
        self.slider = slider(readout=False, layout={"width": "16em"}, **shared)
        self._link = traitlets.link((self.slider, "value"), (self.box, "value"))
        self.widget = ipywidgets.HBox([self.box, self.slider])

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


class Picture:
    """A place for one picture: an `ipywidgets.HTML` that is replaced as a whole."""

    def __init__(self):
        self.widget = ipywidgets.HTML()

    def html(self, text: str) -> None:
        """Show HTML, usually of `figure_html`."""
        self.widget.value = text

    def say(self, sentence: str) -> None:
        """Show a sentence, such as what is being worked on."""
        self.widget.value = f'<p role="status">{html.escape(sentence)}</p>'

    def fail(self, error: Exception) -> None:
        """Show a mistake as one sentence; other errors than a user's ValueError say their type too."""
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        sentence = html.escape(kind + " ".join(str(error).split()))
        self.widget.value = f'<p role="alert" style="color:#a40000">{sentence}</p>'


class Explorer:
    """Controls above a picture that follows them.

    Args:
        controls: name -> `NumberSlider` or any ipywidget with a `value`; the names are `draw`'s arguments.
        draw: a function of these values that returns HTML (`figure_html`). What it raises is shown in place.
        button: its text; then only a press draws, and not every change.
        delay: seconds that values must be still before a redraw; without a running event loop it is at once.

    Attributes:
        widget: what to `display`.  picture: the `Picture`.  controls: as given.  button: an ipywidgets.Button or None.
    """

    def __init__(self, controls: dict, draw: Callable[..., str], *, button: str | None = None, delay: float = DELAY):
        self.controls, self.picture, self.delay = controls, Picture(), delay
        self._draw, self._pending = draw, None
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
        self.widget = ipywidgets.VBox([*rows, *([self.button] if self.button else []), self.picture.widget])

    def values(self) -> dict:
        """The controls' values by name."""
        return {name: control.value for name, control in self.controls.items()}

    def ask(self) -> None:
        """Ask for a redraw: soon, once, with the latest values."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:                    # a plain script or a test: nobody would wake us later
            return self.refresh()
        if self._pending is not None:
            self._pending.cancel()              # a newer value came: the old one is never drawn
        self._pending = loop.call_later(self.delay, self.refresh)

    def refresh(self) -> None:
        """Redraw now; an error becomes a sentence in the picture's place."""
        if self._pending is not None:
            self._pending.cancel()
            self._pending = None
        try:
            self.picture.html(self._draw(**self.values()))
        except Exception as error:              # in a callback nobody else would see it
            self.picture.fail(error)
