"""Every check of the course: right answers in other words pass, each known mistake gets its own hint.

The mistakes lie in the checks. The right answers in `answers/` are written another way than the package's, so that a
check cannot pass by agreeing with itself.
"""

import re

import pytest
import torch
from answers import RIGHT_ANSWERS

from fluidlab import checks
from fluidlab.checks.check import RIGHT, UNSOLVED, WRONG, Check, Verdict
from fluidlab.model.fluid import Fluid
from fluidlab.presets import preset
from fluidlab.train.plan import plan
from machinery import masters

CHECKS = {name: getattr(checks, name) for name in checks.__all__}
MISTAKES = [(name, hint) for name, check in CHECKS.items() for hint in check.mistakes]


@pytest.mark.parametrize("name", CHECKS)
def test_a_check_knows_its_answer_and_four_mistakes_or_more(name, capsys):
    check = CHECKS[name]
    assert len(check.mistakes) >= 4
    assert check.examine(check.own).state == RIGHT
    assert check(check.own) is check.own and f"{check.name} is right" in capsys.readouterr().out


@pytest.mark.parametrize("name, hint", MISTAKES, ids=[f"{name}-{i}" for i, (name, _) in enumerate(MISTAKES)])
def test_each_mistake_gets_its_own_hint(name, hint, capsys):
    check = CHECKS[name]
    verdict = check.examine(check.mistakes[hint])
    assert verdict.state == WRONG and verdict.hint == hint and hint in verdict.text
    assert check(check.mistakes[hint]) is check.own and "not right yet" in capsys.readouterr().out


@pytest.mark.parametrize("name", CHECKS)
def test_an_exercise_that_is_not_solved_says_so_and_goes_on(name, capsys):
    check = CHECKS[name]
    assert check.examine(lambda *_: None).state == UNSOLVED
    assert check(lambda *_: None) is check.own and "not solved yet" in capsys.readouterr().out


def twice(check):
    return Check("twice", lambda x: 2 * x, {"3": (3,), "a tensor": (torch.tensor([1.0, 2.0]),)}, check)


@pytest.mark.parametrize("answer, said", [
    (lambda x: 2 * x + 1, "For 3: it gave 7, expected was 6"),
    (lambda x: 2 * x if isinstance(x, int) else x[:1], "it gave the shape (1,), expected was (2,)"),
    (lambda x: 2 * x if isinstance(x, int) else x.bool(), "it gave the type bool, expected was float32"),
    (lambda x: 2 * x if isinstance(x, int) else x * float("nan"), "2 of 2 values differ; at [0] it gave nan"),
    (lambda x: 2 * x if isinstance(x, int) else x.mul_(2), "changed what it was given"),
    (lambda x: x.nothing, "it ended with AttributeError"),
    (lambda x: "six", "it gave 'six', expected was 6"),
])
def test_a_wrong_answer_is_told_by_what_it_gave(answer, said):
    verdict = twice({}).examine(answer)
    assert verdict == Verdict(WRONG, verdict.text, None) and said in verdict.text


def test_a_mistake_is_recognised_by_the_numbers_that_it_gives():
    check = twice({"squared instead of doubled.": lambda x: x * x, "divided.": lambda x: x / 2})
    assert check.examine(lambda x: x ** 2).hint == "squared instead of doubled."
    assert check.examine(lambda x: x * x if isinstance(x, int) else x).hint == "squared instead of doubled."
    assert check.examine(lambda x: x / 3).hint is None


def test_the_mistake_that_explains_most_is_named():
    check = Check("twice", lambda x: 2 * x, {str(x): (x,) for x in (0, 1, 3, 5)},
                  {"one more.": lambda x: x + 1, "squared.": lambda x: x * x, "nothing.": lambda x: 0})
    assert check.examine(lambda x: x * x if x > 1 else 2).hint == "squared."      # 3 and 5; one more explains 1 alone
    assert check.examine(lambda x: x + 1 if x < 4 else 99).hint == "one more."


def test_answers_may_come_as_arrays_lists_or_numbers():
    check = Check("pair", lambda: (1, torch.tensor([0.5, 1.0])), {"nothing": ()}, {})
    for answer in ((1.0, [0.5, 1.0]), [torch.tensor(1), torch.tensor([0.5, 1.0]).numpy()]):
        assert check.examine(lambda answer=answer: answer).state == RIGHT
    assert "its part 1: 1 of 2 values differ" in check.examine(lambda: (1, [0.5, 2.0])).text


@pytest.mark.parametrize("name", CHECKS)
def test_right_answers_in_other_words_pass(name):
    answers = RIGHT_ANSWERS[CHECKS[name].name]
    assert len(answers) >= 2
    for answer in answers:
        verdict = CHECKS[name].examine(answer)
        assert verdict.state == RIGHT, verdict.text


def test_every_exercise_has_its_check_and_every_check_its_exercise():
    called = {match for name in masters.master_names() for cell in masters.read_master(name).cells
              if "check" in masters.tags(cell)
              for match in re.findall(r"(\w+) = checks\.(check_\w+)\(\1\)", cell.source)}
    assert called == {(check.name, name) for name, check in CHECKS.items()}


def test_a_check_that_does_not_exist_is_named():
    with pytest.raises(AttributeError, match="no check_nothing; it has check_"):
        checks.check_nothing  # noqa: B018


@pytest.mark.parametrize("devices", [1, 3, 64])
def test_the_state_of_a_device_is_the_planners(devices):
    config = preset("nano")
    planned = plan(config, devices=devices, batch_size=devices)
    shapes = [tuple(p.shape) for p in Fluid(config).parameters()]
    assert checks.check_state_bytes.own(shapes, devices) == (
        planned.weights + planned.gradients + planned.optimizer + planned.ema)
