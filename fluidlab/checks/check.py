"""Checks of exercises: they say what was expected, what came, and which mistake is likely.

A check knows the package's own answer and some answers that are wrong in a known way, as functions. All are asked the
same questions. An answer that agrees with the package's is right; one that agrees with a known mistake gets the hint of
that mistake. So a hint is never a guess about somebody's code: it is the mistake that gives the same numbers.
"""

import copy
import textwrap
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch

RIGHT, WRONG, UNSOLVED = "right", "wrong", "unsolved"
LONGEST = 160                   # letters of a value in a message


@dataclass(frozen=True)
class Verdict:
    """What a check found.

    Attributes:
        state: "right", "wrong" or "unsolved".  text: sentences for the student.
        hint: of the mistake that gives the same answers, or None.
    """

    state: str
    text: str
    hint: str | None = None


class Check:
    """The check of one exercise; call it with the student's function.

    Args:
        name: of the function that the student writes.
        own: the package's answer.
        cases: words for a question -> the arguments that ask it. Every call gets a copy of them.
        mistakes: hint -> a function that makes this mistake.
        tolerance: numbers count as equal that differ by less, absolutely or in proportion.

    Example:
        causal_mask = check_causal_mask(causal_mask)        # prints what it found; goes on with a right function
    """

    def __init__(self, name: str, own: Callable, cases: Mapping[str, tuple], mistakes: Mapping[str, Callable],
                 tolerance: float = 1e-4):
        self.name, self.own, self.cases, self.mistakes, self.tolerance = name, own, cases, mistakes, tolerance

    def __call__(self, answer: Callable) -> Callable:
        """Print what was found; returns the answer if it is right, else the package's own function."""
        verdict = self.examine(answer)
        print("\n".join(textwrap.wrap(verdict.text, 100)))
        return answer if verdict.state == RIGHT else self.own

    def examine(self, answer: Callable) -> Verdict:
        """The verdict on a student's function."""
        given = self._ask(answer)
        if all(outcome is None or isinstance(outcome, NotImplementedError) for outcome in given.values()):
            return Verdict(UNSOLVED, f"{self.name} is not solved yet, it returns nothing: the notebook goes on with "
                                     f"fluidlab's own.")
        expected = self._ask(self.own)
        wrong = [words for words in self.cases if difference(given[words], expected[words], self.tolerance)]
        if not wrong:
            return Verdict(RIGHT, f"{self.name} is right: {len(self.cases)} of {len(self.cases)} cases agree with "
                                  f"fluidlab's own.")
        hint, first = self._likely(given, wrong), wrong[0]
        parts = [f"{self.name} is not right yet.",
                 f"For {first}: {difference(given[first], expected[first], self.tolerance)}.",
                 *([f"Likely: {hint}"] if hint else []),
                 "Until it is right the notebook goes on with fluidlab's own."]
        return Verdict(WRONG, " ".join(parts), hint)

    def _ask(self, answer: Callable) -> dict:
        """Its outcome for every case: a value, or the exception that it ended with."""
        return {words: outcome_of(answer, arguments) for words, arguments in self.cases.items()}

    def _likely(self, given: dict, wrong: list) -> str | None:
        """The hint of the mistake that answers all cases alike, or else of the one that explains most wrong cases."""
        def alike(outcomes: dict, asked) -> int:
            return sum(not difference(given[words], outcomes[words], self.tolerance) for words in asked)
        best, most = None, 0
        for hint, mistake in self.mistakes.items():
            with warnings.catch_warnings(), np.errstate(all="ignore"):
                warnings.simplefilter("ignore")                 # what a mistake stumbles over is no news to the student
                outcomes = self._ask(mistake)
            if alike(outcomes, self.cases) == len(self.cases):
                return hint
            if (explained := alike(outcomes, wrong)) > most:
                best, most = hint, explained
        return best


class Changed(Exception):
    """The outcome of a function that changes what it was given."""


def outcome_of(answer: Callable, arguments: tuple):
    """What a function returns for a copy of the arguments, or the exception that it ends with."""
    copies = copy.deepcopy(arguments)
    try:
        with torch.no_grad():
            value = answer(*copies)
    except Exception as error:                  # a student's code may raise anything
        return error
    if difference(copies, arguments, 0):
        return Changed("it changed what it was given; work on a copy")
    return value


def difference(given, expected, tolerance: float) -> str:
    """What differs between two outcomes, in words; "" if nothing does."""
    if isinstance(given, Changed):
        return str(given)
    if isinstance(given, Exception):
        same = type(given) is type(expected)
        return "" if same else f"it ended with {type(given).__name__}: {str(given)[:LONGEST]}"
    if isinstance(expected, Exception):
        return f"it gave {told(given)}, expected was {type(expected).__name__}"
    if isinstance(expected, (tuple, list)) and isinstance(given, (tuple, list)) and len(given) == len(expected):
        parts = ((i, difference(g, e, tolerance)) for i, (g, e) in enumerate(zip(given, expected, strict=True)))
        return next((f"its part {i}: {text}" for i, text in parts if text), "")
    a, b = (as_array(value) for value in (given, expected))
    if a is None or b is None:
        return "" if given == expected else f"it gave {told(given)}, expected was {told(expected)}"
    if a.shape != b.shape:
        return f"it gave the shape {a.shape}, expected was {b.shape}"
    if (a.dtype == bool) != (b.dtype == bool):
        return f"it gave the type {a.dtype}, expected was {b.dtype}"
    if a.dtype == bool:
        equal = a == b
    else:
        equal = np.isclose(a.astype(float), b.astype(float), rtol=tolerance, atol=tolerance, equal_nan=True)
    if equal.all():
        return ""
    if not a.shape:
        return f"it gave {told(given)}, expected was {told(expected)}"
    place = tuple(int(i) for i in np.argwhere(~equal)[0])
    where = place[0] if len(place) == 1 else place
    return (f"{int((~equal).sum())} of {equal.size} values differ; at [{str(where).strip('()')}] it gave "
            f"{told(a[place].item())}, expected was {told(b[place].item())}")


def as_array(value) -> np.ndarray | None:
    """Numbers in any form as an array; None for what is no number."""
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().numpy() if value.dtype != torch.bfloat16 else value.detach().float().cpu().numpy()
    if isinstance(value, (bool, int, float, np.generic, np.ndarray)):
        return np.asarray(value)
    if isinstance(value, (tuple, list)):
        try:
            array = np.asarray(value)
        except ValueError:                      # of unequal lengths
            return None
        return array if array.dtype.kind in "bif" else None
    return None


def told(value) -> str:
    """A value in few letters."""
    text = f"{value:.6g}" if isinstance(value, float) else " ".join(repr(value).split())
    return text if len(text) <= LONGEST else text[:LONGEST] + " ..."


def waves(*shape: int, phase: float = 0.0) -> torch.Tensor:
    """Numbers in [-1, 1] of this shape that can be told apart, for cases; another phase gives others."""
    return torch.sin(0.9 * torch.arange(torch.Size(shape).numel()) + phase).view(*shape)
