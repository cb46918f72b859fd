"""GenEval's score: the share of right pictures of each of the six tasks, and the mean of the six.

It reads score files, ours or the published evaluator's, and knows neither pictures nor judge. Published numbers come
without intervals; here each has one, since two models a hundredth apart may be the same. What to notice: four pictures
of a prompt succeed and fail together, so an interval counts what the prompts' own spread is worth (as in sceneval.py),
not every picture.
"""

import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from fluidlab.evaluate.geneval_prompts import TASKS
from fluidlab.evaluate.sceneval import Verdict, scores
from fluidlab.evaluate.statistics import Interval

NEEDED = ("tag", "correct", "metadata")


@dataclass(frozen=True)
class GenEvalScores:
    """Shares of right pictures with Wilson's intervals: of each task, and their mean.

    `prompts_solved` is the share of prompts with one right picture at least, which grows with the pictures a prompt.
    """

    tasks: dict[str, Interval]
    counts: dict[str, tuple[int, int]]    # task: right pictures, pictures
    overall: Interval
    prompts_solved: float
    num_prompts: int
    num_images: int

    def metrics(self) -> dict[str, float]:
        """Name -> number, as `data/results.csv` keeps them."""
        found = {}
        for name, interval in {"overall": self.overall, **self.tasks}.items():
            found |= {f"geneval_{name}": interval.value, f"geneval_{name}_low": interval.low,
                      f"geneval_{name}_high": interval.high}
        return found | {"geneval_prompts_solved": self.prompts_solved}

    def table(self) -> str:
        """A Markdown table, one row a task."""
        rows = ["| task | right | 95 % interval | pictures |", "|---|---|---|---|"]
        for task, share in self.tasks.items():
            right, of = self.counts[task]
            rows.append(f"| {task} | {share.value:.4f} | {share.low:.3f} to {share.high:.3f} | {right} of {of} |")
        mean = self.overall
        rows.append(f"| mean of the {len(self.tasks)} | {mean.value:.4f} | {mean.low:.3f} to {mean.high:.3f} | "
                    f"{self.num_images} of {self.num_prompts} prompts |")
        return "\n".join(rows)


def read_records(path: str | Path) -> list[dict]:
    """The lines of a score file.

    Raises:
        ValueError: the file is missing or empty, or a line is not of a score file.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"there is no score file {path}; `fluidlab evaluate geneval` writes one.")
    records = []
    for number, line in enumerate(filter(str.strip, path.read_text(encoding="utf-8").splitlines()), 1):
        try:
            record = json.loads(line)
            missing = [key for key in NEEDED if key not in record]
        except (json.JSONDecodeError, TypeError) as error:
            raise ValueError(f"line {number} of {path} is no JSON object ({error}).") from error
        if missing:
            raise ValueError(f"line {number} of {path} lacks {', '.join(missing)}, so it is no line of a score file.")
        records.append(record)
    return records


def geneval_scores(records: list[dict]) -> GenEvalScores:
    """Sum up the lines of a score file.

    Raises:
        ValueError: there is none, or a task that GenEval does not have.
    """
    if not records:
        raise ValueError("a score needs at least 1 judged picture, got 0.")
    unknown = sorted({record["tag"] for record in records} - set(TASKS))
    if unknown:
        raise ValueError(f"GenEval's tasks are {', '.join(TASKS)}, got {', '.join(unknown)} too.")
    solved: dict[str, bool] = defaultdict(bool)
    for record in records:
        solved[record["metadata"]] |= bool(record["correct"])
    tasks = scores([Verdict(record["tag"], False, bool(record["correct"]), question=(record["metadata"],))
                    for record in records]).skills
    counts = {task: (sum(bool(r["correct"]) for r in records if r["tag"] == task),
                     sum(r["tag"] == task for r in records)) for task in tasks}
    return GenEvalScores(tasks, counts, mean_of(list(tasks.values())), sum(solved.values()) / len(solved), len(solved),
                         len(records))


def mean_of(intervals: list[Interval]) -> Interval:
    """The mean of independent estimates, its bounds by square-and-add (Zou and Donner 2008), which may be lopsided."""
    n, mean = len(intervals), sum(i.value for i in intervals) / len(intervals)
    down = sum((i.value - i.low) ** 2 for i in intervals) ** 0.5 / n
    up = sum((i.high - i.value) ** 2 for i in intervals) ** 0.5 / n
    return Interval(mean, mean - down, mean + up)
