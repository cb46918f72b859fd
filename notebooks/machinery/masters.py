"""Reads what an author writes, and refuses what breaks the format that build.py's opening describes.

Knows nothing of editions and of running.
"""

from dataclasses import dataclass
from pathlib import Path

from machinery.template import LEVELS

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = ROOT / "notebooks"
MASTERS = NOTEBOOKS / "masters"
OF_AN_EXERCISE = ("exercise", "target", "stub", "solution", "check")
REQUIRED = ("title", "goals", "needs", "hardware", "fast")
EXERCISE_KEYS = ("title", "minutes", "level", "task", "right", "hints", "why")
CLOSING_KEYS = ("recap", "quiz", "references")
@dataclass
class Master:
    """What an author wrote.

    Attributes:
        front: the front matter.  plan: the instructor's steps, {"minutes", "do"} each.
        cells: all cells between; an exercise's text is replaced by its dictionary, under `cell.exercise`.
        closing: recap, quiz and references.
    """

    name: str
    front: dict
    plan: list
    cells: list
    closing: dict

    def exercises(self):
        return [cell.exercise for cell in self.cells if "exercise" in cell]


def master_names():
    """Names of all masters in the order of the course, e.g. "03_orders"."""
    return sorted(path.stem for path in MASTERS.glob("[0-9][0-9]_*.py"))


def read_master(name):
    """A `Master`.

    Raises:
        ValueError: if it is not as build.py's opening describes; which part, is said.
    """
    import jupytext  # only authors need it, so that the committed notebooks run without

    cells = jupytext.reads((MASTERS / f"{name}.py").read_text(encoding="utf-8"), fmt="py:percent").cells
    if not cells or "front-matter" not in tags(cells[0]):
        raise ValueError(f"The master {name} opens without front matter: its first cell must be tagged front-matter.")
    front = fields(cells[0], REQUIRED, f"The front matter of {name}")
    if not isinstance(front["fast"], dict):
        raise ValueError(f"The front matter of {name} maps fast to {front['fast']!r}; it must map names to values.")
    check_parameters(cells, front["fast"], name)
    if "closing" not in tags(cells[-1]):
        raise ValueError(f"The master {name} ends without its closing: its last cell must be tagged closing.")
    closing = fields(cells[-1], CLOSING_KEYS, f"The closing of {name}")
    plans = [cell for cell in cells if "plan" in tags(cell)]
    plan = [step for cell in plans for step in fields(cell, ("plan",), f"The plan of {name}")["plan"]]
    middle = [cell for cell in cells[1:-1] if "plan" not in tags(cell)]
    for cell in middle:
        if "exercise" in tags(cell):
            cell["exercise"] = read_exercise(cell, name)
    check_exercises(middle, name)
    return Master(name, front, plan, middle, closing)


def fields(cell, keys, what):
    """A cell's YAML, a mapping with at least these keys."""
    import yaml

    found = yaml.safe_load(cell.source) or {}
    missing = [key for key in keys if not isinstance(found, dict) or key not in found]
    if missing:
        raise ValueError(f"{what} lacks {', '.join(missing)}; it needs {', '.join(keys)}.")
    return found


def read_exercise(cell, name):
    exercise = fields(cell, EXERCISE_KEYS, f"An exercise of {name}")
    if not 1 <= exercise["level"] <= len(LEVELS) or len(exercise["hints"]) < 2:
        raise ValueError(f"The exercise {exercise['title']!r} of {name} has level {exercise['level']} and "
                         f"{len(exercise['hints'])} hints; it needs a level from 1 to {len(LEVELS)} and at "
                         f"least 2 hints.")
    return exercise


def check_exercises(cells, name):
    """Refuses an exercise whose five cells do not stand one behind the other."""
    kinds = [next((kind for kind in OF_AN_EXERCISE if kind in tags(cell)), None) for cell in cells]
    found = [kind for kind in kinds if kind]
    together = [kinds[i:i + 5] for i, kind in enumerate(kinds) if kind == "exercise"]
    if found != [*OF_AN_EXERCISE] * len(together) or any(group != [*OF_AN_EXERCISE] for group in together):
        raise ValueError(f"The exercises of {name} are made of {', '.join(found) or 'nothing'}; each must be "
                         f"{', '.join(OF_AN_EXERCISE)}, one behind the other.")


def check_parameters(cells, names, notebook):
    """Refuses a notebook without one parameters cell, and parameters that this cell does not assign."""
    chosen = [cell for cell in cells if "parameters" in tags(cell)]
    if len(chosen) != 1:
        raise ValueError(f"The notebook {notebook} has {len(chosen)} cells tagged parameters; it needs exactly 1.")
    known = [line.split("=")[0].strip() for line in chosen[0].source.splitlines() if "=" in line.split("#")[0]]
    unknown = [key for key in names if key not in known]
    if unknown:
        raise ValueError(f"The notebook {notebook} has no parameter {', '.join(unknown)}; it has {', '.join(known)}.")


def tags(cell):
    return cell.metadata.get("tags", [])
