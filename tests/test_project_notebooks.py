"""The committed notebooks: rebuilt from their masters without a difference, run top to bottom, clean when committed.

Running uses each master's small parameters (`fast` in its front matter), the same code path as a full run.
"""

import re

import pytest

from machinery import masters
from machinery.execute import execute
from machinery.hygiene import outputs, problems
from machinery.page import page

NAMES = sorted(path.stem for path in masters.NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))
LONGEST_MINUTES, ALL_MINUTES = 3.0, 20.0


def committed(name):
    return masters.read_notebook(masters.NOTEBOOKS / f"{name}.ipynb")


def test_every_master_has_its_notebook_and_every_notebook_its_master():
    assert masters.master_names() == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_rebuild_gives_the_committed_notebook(name):
    assert masters.without_outputs(committed(name)) == masters.built(name), "run: make notebooks"


@pytest.mark.parametrize("name", NAMES)
def test_the_committed_outputs_are_clean_and_from_the_committed_code(name):
    notebook = committed(name)
    assert problems(notebook) == []
    if not list(outputs(notebook)):
        return
    assert notebook.metadata.fluidlab.run.code == notebook.metadata.fluidlab.code, (
        f"run: python notebooks/build.py run {name} --commit-outputs")
    counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1))


@pytest.mark.parametrize("name", NAMES)
def test_cells_have_unique_ids_and_the_kernel_is_everybodys(name):
    notebook = committed(name)
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)
    assert notebook.metadata.kernelspec.name == "python3"
    assert notebook.metadata.language_info == {"name": "python"}


def test_measured_minutes_stay_within_what_the_course_promises():
    minutes = {name: entry["minutes"] for name, entry in masters.measured().items()}
    assert set(minutes) <= set(NAMES)
    assert {name: value for name, value in minutes.items() if value > LONGEST_MINUTES} == {}
    assert sum(minutes.values()) <= ALL_MINUTES


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_runs_offline_and_shows_described_pictures(name, tmp_path):
    notebook = masters.without_outputs(committed(name))
    run = execute(notebook, name, tmp_path, notebook.metadata.fluidlab.fast)
    assert run.error is None, run.error
    assert problems(run.notebook) == []
    assert run.pictures > 0
    html = page(run.notebook)
    assert not re.search(r"""(src|href)=["']?(https?:)?//[^"']*\.(js|css|mjs|png|jpe?g|svg|woff2?)\b""", html)
    assert "<script" not in html
