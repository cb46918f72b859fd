"""The scaling lab: drag sizes in and out of the fit, and watch the law, its interval and its prediction.

`fit_picture` is a plain function of points and choices; `ScalingLab` connects it to controls. What to notice: a size
that is left out is not gone. It stays in the figure, hollow, and the caption says how far from it the law passes: the
only test of a law is a size that it has not seen.
"""

import math

import numpy as np
from matplotlib.figure import Figure

from fluidlab.evaluate.powerlaw import fit_power_law, law_band
from fluidlab.evaluate.scaling import X_AXES, Point
from fluidlab.viz.browser import Tray
from fluidlab.viz.plots import UNITS, kind_of, read_log
from fluidlab.viz.plots_scaling import X_NAMES
from fluidlab.viz.show import figure_html, variant_style
from fluidlab.viz.widgets import Explorer, NumberSlider, checkbox, choice

BOOTSTRAP = 100     # fits for the intervals: a slider would wait for more


def fit_picture(points: list[Point], inside: list[str], x: str = "params", *, floor: bool = False, reach: float = 1.0,
                bootstrap: int = BOOTSTRAP) -> str:
    """One variant's losses over size with the law of some of them, as HTML.

    Args:
        points: of one variant.  inside: names of the sizes that are fitted.  x: a name of `X_AXES`.
        floor, bootstrap: of `fit_power_law`.  reach: how many times the largest size the law is followed.

    Raises:
        ValueError: fewer different sizes than the law needs.
    """
    used, left = ([p for p in points if (p.size in inside) == fitted] for fitted in (True, False))
    sizes, losses = [getattr(p, x) for p in used], [p.value for p in used]
    law = fit_power_law(sizes, losses, floor=floor, bootstrap=bootstrap)
    every = [getattr(p, x) for p in points]
    line = np.geomspace(min(every), max(every) * reach, 60)
    low, high = law_band(law, sizes, losses, line, floor=floor, bootstrap=bootstrap)
    missed = {p.size: float(law(getattr(p, x))) / np.mean([q.value for q in left if q.size == p.size]) - 1
              for p in left}
    variant = points[0].variant
    said = f"{variant}, fitted to {', '.join(dict.fromkeys(p.size for p in used))}: b = {law.b_interval}"
    said += f", floor {law.c_interval}" if floor else ""
    said += f", R2 {law.r2:.4f}, loss {float(law(line[-1])):.3f} predicted at {line[-1]:.2g} {X_NAMES[x]}"
    said += "".join(f"; {size}, not fitted, is predicted {abs(error):.1%} too {'low' if error < 0 else 'high'}"
                    for size, error in missed.items())
    figure = _drawn(variant, x, (sizes, losses), ([getattr(p, x) for p in left], [p.value for p in left]),
                    (line, law(line), low, high))
    return figure_html(figure, alt=f"Validation loss over {X_NAMES[x]} with a law. {said}.",
                       caption=f"{said}. Hollow: not fitted. Shaded: 95 % of {bootstrap} fits to residuals drawn anew.")


def _drawn(variant: str, x: str, used: tuple, left: tuple, band: tuple) -> Figure:
    figure, style = Figure(figsize=(7.2, 4.2)), variant_style(*variant.split("-"))   # not pyplot's: see `turns.py`
    axis, (line, law, low, high) = figure.subplots(), band
    axis.fill_between(line, low, high, color=style["color"], alpha=0.2, linewidth=0)
    axis.plot(line, law, style["linestyle"], color=style["color"])
    axis.plot(*used, style["marker"], color=style["color"], label="fitted", markersize=8)
    axis.plot(*left, style["marker"], color=style["color"], label="not fitted", markersize=8, markerfacecolor="white")
    axis.set(title=variant, xlabel=X_NAMES[x], ylabel=f"validation loss, {UNITS[kind_of(variant)]}", xscale="log",
             yscale="log")
    read_log(axis)
    axis.legend()
    return figure


class ScalingLab:
    """Controls and a figure: which variant, which sizes are fitted, over what, with a floor or without.

    Args:
        points: of `study_points`, any variants and seeds.

    Attributes:
        explorer: the `Explorer`; `explorer.widget` is what to display.

    Raises:
        ValueError: no point at all.
    """

    def __init__(self, points: list[Point]):
        if not points:
            raise ValueError("The scaling lab was given 0 points; it needs at least 3 sizes of 1 variant.")
        self.points = points
        sizes = list(dict.fromkeys(p.size for p in sorted(points, key=lambda p: p.params)))
        self.explorer = Explorer({
            "variant": choice("variant", list(dict.fromkeys(p.variant for p in points))),
            "inside": Tray(description="sizes in the fit (drag, or press to move)", outside="sizes left out",
                           options=sizes, value=sizes),
            "x": choice("size is counted in", [(X_NAMES[x], x) for x in X_AXES]),
            "floor": checkbox("with a floor"),
            "reach": NumberSlider("beyond the largest size, times 10 to the power of", 1.0, 0.0, 4.0, 0.5),
        }, self.draw, work=lambda floor, **other: (f"floor {floor}", BOOTSTRAP))
        self.explorer.refresh()

    @property
    def widget(self):
        """What to display."""
        return self.explorer.widget

    def draw(self, variant: str, inside: list[str], x: str, floor: bool, reach: float) -> str:
        """The HTML of one state of the controls."""
        return fit_picture([p for p in self.points if p.variant == variant], list(inside), x, floor=floor,
                           reach=math.pow(10, reach))
