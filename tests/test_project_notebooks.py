"""The committed notebooks: rebuilt from their masters without a difference, run top to bottom, clean when committed.

Running uses each master's small parameters (`fast` in its front matter), the same code path as a full run.
"""

import pytest
from notebook_runs import committed, run_as_promised

from machinery import editions, masters
from machinery.hygiene import outputs, problems

NAMES = sorted(path.stem for path in masters.NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))
COMMITTED = [(name, edition) for edition in editions.EDITIONS for name in NAMES
             if editions.path_of(name, edition).exists()]
LONGEST_MINUTES, ALL_MINUTES = 3.0, 20.0
FEWEST_EXERCISES = 3


def test_every_master_has_its_notebooks_and_every_notebook_its_master():
    assert masters.master_names() == NAMES
    assert COMMITTED == [(name, edition) for edition in editions.EDITIONS for name in NAMES
                         if edition in editions.editions_of(name)]


@pytest.mark.parametrize("name, edition", COMMITTED)
def test_a_rebuild_gives_the_committed_notebook(name, edition):
    assert editions.without_outputs(committed(name, edition)) == editions.built(name, edition), "run: make notebooks"


@pytest.mark.parametrize("name, edition", COMMITTED)
def test_the_committed_outputs_are_clean_and_from_the_committed_code(name, edition):
    notebook = committed(name, edition)
    assert problems(notebook) == [] and list(outputs(notebook))
    if edition != "instructor":
        assert editions.measured()[name][edition]["code"] == notebook.metadata.fluidlab.code, (
            f"run: python notebooks/build.py run {name} --edition {edition} --commit-outputs")
        assert notebook.metadata.fluidlab.code[:12] in notebook.cells[-1].source
        counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
        assert counts == list(range(1, len(counts) + 1))


@pytest.mark.parametrize("name, edition", COMMITTED)
def test_cells_have_unique_ids_and_the_kernel_is_everybodys(name, edition):
    notebook = committed(name, edition)
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)
    assert notebook.metadata.kernelspec.name == "python3"
    assert notebook.metadata.language_info == {"name": "python"}


def test_measured_minutes_stay_within_what_the_course_promises():
    minutes = {name: entry["minutes"] for name, entry in editions.measured().items()}
    assert set(minutes) <= set(NAMES)
    assert {name: value for name, value in minutes.items() if value > LONGEST_MINUTES} == {}
    assert sum(minutes.values()) <= ALL_MINUTES


@pytest.mark.parametrize("name", NAMES[1:])
def test_a_notebook_has_three_exercises_in_rising_difficulty(name):
    levels = [exercise["level"] for exercise in masters.read_master(name).exercises()]
    assert len(levels) >= FEWEST_EXERCISES and levels == sorted(levels) and levels[0] < levels[-1]


@pytest.mark.parametrize("name", NAMES)
def test_an_instructor_finds_a_plan_words_polls_and_what_goes_wrong(name):
    master = masters.read_master(name)
    notes = "\n".join(cell.source for cell in master.cells if "instructor" in masters.tags(cell))
    assert 20 <= sum(step["minutes"] for step in master.plan) <= 120
    for word, least in (("**Say:**", 2), ("**Poll:**", 2), ("**Goes wrong:**", 1)):
        assert notes.count(word) >= least, word
    assert notes.count("<summary>Answer</summary>") == notes.count("**Poll:**")


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_runs_offline_and_shows_described_pictures(name, tmp_path):
    """Nothing is solved in the student's notebook: every exercise says so, and it goes on."""
    run_as_promised(name, "student", "is not solved yet", tmp_path)
