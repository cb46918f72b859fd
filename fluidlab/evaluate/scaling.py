"""The scaling study: which models are trained, what each costs, and which laws their losses follow.

The paper trains four variants at several sizes on the same images for the same steps and looks at the loss (figure 5),
at the metrics (figure 6), at both over compute (figure 7) and at one against the other (figure 8). The same is done
here at laptop size. What to notice: a law has an x, and the choice matters. At these sizes the head and the aligner are
a large part of a model, and the tied table of the softmax head a larger one, so x can be all parameters or the
backbone's alone; and FLOPs count what all of them do, whatever they are called.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from fluidlab.config import ORDER_NAMES, TOKEN_KINDS, ModelConfig, check_choice
from fluidlab.evaluate.powerlaw import PowerLaw, fit_power_law, hold_out_largest
from fluidlab.evaluate.sceneval import SKILLS
from fluidlab.model.cost import part_counts, training_flops

STUDY_SIZES = ("femto", "pico", "nano", "micro", "mini", "midi")
STUDY_HEADS = ("softmax", "diffusion")
X_AXES = ("params", "backbone_params", "flops")
STUDY_BATCH = 32  # images a step
STUDY_METRICS = ("frechet", "sceneval_overall", "sceneval_overall_low", "sceneval_overall_high", "sceneval_seen",
                 "sceneval_heldout", *(f"sceneval_{skill}" for skill in SKILLS))   # what is kept of so many models
RATE_WIDTH = 192  # mini's: the width at which a learning rate of the study is named


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One training of the study."""

    order: str
    head: str
    size: str
    seed: int = 0

    @property
    def name(self) -> str:
        """Its folder: "random-diffusion-mini-0"."""
        return f"{self.order}-{self.head}-{self.size}-{self.seed}"


def study_cells(sizes: Iterable[str] = STUDY_SIZES, heads: Iterable[str] = STUDY_HEADS,
                orders: Iterable[str] = ORDER_NAMES, seeds: Iterable[int] = (0,)) -> list[Cell]:
    """All cells, small sizes of all variants first, so that a study that is stopped early can still be compared.

    Raises:
        ValueError: an unknown order or head, or no cell at all.
    """
    cells = [Cell(order=order, head=head, size=size, seed=seed)
             for seed in seeds for size in sizes for order in orders for head in heads]
    for cell in cells:
        check_choice("order", cell.order, ORDER_NAMES)
        check_choice("head", cell.head, tuple(TOKEN_KINDS))
    if not cells:
        raise ValueError("a study needs at least 1 size, 1 order, 1 head and 1 seed, got 0 cells.")
    return cells


def rate_at(lr: float, width: int) -> float:
    """The learning rate of a model of some width, from that of one as wide as mini: it falls as one over the width.

    With one rate for all, the small sizes would learn too slowly or the large ones not at all, and the law would show
    that instead of size. The rule is that of arXiv 2203.03466 for Adam, and the study's own sweep agrees with it.
    """
    return lr * RATE_WIDTH / width


@dataclass(frozen=True)
class Point:
    """One trained cell as a point of a figure: what it is, what it cost, what was measured."""

    order: str
    head: str
    size: str
    seed: int
    steps: int
    params: int
    backbone_params: int
    flops: float      # of the whole training, `images` images
    value: float

    @property
    def variant(self) -> str:
        return f"{self.order}-{self.head}"


def study_points(rows: list[dict[str, str]], config_of: Callable[[str, str, str], ModelConfig], *,
                 metric: str = "study_loss", batch_size: int = STUDY_BATCH, steps: int | None = None) -> list[Point]:
    """Rows of results.csv as points.

    Args:
        rows: of `read_results`.  config_of: (size, order, head) to the configuration, for example from `preset`.
        metric: which measure.  batch_size: images a step.
        steps: only what was measured after so many steps; None for the last measurement, the same step in all cells.

    Raises:
        ValueError: a row whose number is missing, broken, double or of another model, named with its line; cells of
            different steps; or no row of the metric.
    """
    last: dict[tuple, Point] = {}
    for line, row in enumerate(rows, start=2):  # line 1 of the file is the header
        if row["metric"] != metric:
            continue
        try:
            value, done, seed = float(row["value"]), int(row["steps"]), int(row["seed"])
        except (TypeError, ValueError):
            raise ValueError(f"row {line} of the results holds value {row['value']!r}, steps {row['steps']!r} and seed "
                             f"{row['seed']!r}, which must be numbers.") from None
        if not math.isfinite(value):
            raise ValueError(f"row {line} of the results says that {metric} of {row['order']} + {row['head']} after "
                             f"{done} steps is {value}: that run failed, train it again with a smaller lr.")
        if steps is not None and done != steps:
            continue
        config = config_of(row["preset"], row["order"], row["head"])
        counts, key = part_counts(config), (row["order"], row["head"], row["preset"], seed)
        if row["params"] != str(counts["total"]):
            raise ValueError(f"row {line} of the results is of a model with {row['params']} parameters, but "
                             f"{row['preset']} has {counts['total']}.")
        if key in last and done == last[key].steps:
            raise ValueError(f"row {line} of the results measures {metric} of {' '.join(map(str, key))} after {done} "
                             f"steps again, {value} after {last[key].value}: keep one of the two.")
        if key not in last or done > last[key].steps:
            last[key] = Point(row["order"], row["head"], row["preset"], seed, done, counts["total"], counts["backbone"],
                              training_flops(config) * done * batch_size, value)
    found = sorted({point.steps for point in last.values()})
    if len(found) > 1 and steps is None:
        raise ValueError(f"the cells were trained for {found[0]} to {found[-1]} steps, which no law compares: name the "
                         f"steps, or finish the study.")
    if not last:
        raise ValueError(f"the results hold 0 rows of {metric}{'' if steps is None else f' after {steps} steps'}, got "
                         f"{len(rows)} rows of {', '.join(sorted({row['metric'] for row in rows})) or 'nothing'}.")
    return sorted(last.values(), key=lambda p: (p.order, p.head, p.params, p.seed))


@dataclass(frozen=True)
class VariantLaw:
    """The law of one variant, and what it says of the largest size when that was held out (relative error)."""

    variant: str
    law: PowerLaw
    held_out_error: float | None


def study_laws(points: list[Point], x: str = "params", *, floor: bool = False,
               bootstrap: int = 200) -> list[VariantLaw]:
    """A power law for every variant among the points.

    Args:
        x: "params", "backbone_params" or "flops".  floor: with a loss that no size gets below.

    Raises:
        ValueError: an unknown x, or a variant with too few sizes.
    """
    check_choice("x", x, X_AXES)
    laws = []
    for variant in dict.fromkeys(point.variant for point in points):
        sizes = [getattr(point, x) for point in points if point.variant == variant]
        losses = [point.value for point in points if point.variant == variant]
        law = fit_power_law(sizes, losses, floor=floor, bootstrap=bootstrap)
        enough = len(set(sizes)) > (4 if floor else 3)
        laws.append(VariantLaw(variant, law, hold_out_largest(sizes, losses, floor=floor)[1] if enough else None))
    return laws
