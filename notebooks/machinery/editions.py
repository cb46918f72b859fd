"""From a master to its notebook in three editions: the same bytes every time.

Adds what all notebooks share, so that an author writes none of it. What stands in which edition is one table,
`ONLY_IN`. The worked solutions hold the exercises alone, with the cells that these need.
"""

import hashlib
import json
import tomllib

import nbformat

from machinery import masters, template
from machinery.masters import OF_AN_EXERCISE, ROOT, read_master, tags

EDITIONS = ("student", "solutions", "instructor")
ONLY_IN = {"stub": {"student"}, "solution": {"solutions", "instructor"}, "instructor": {"instructor"}}
IN_SOLUTIONS = {*OF_AN_EXERCISE, "parameters", "needed"}
KERNEL = {"kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
          "language_info": {"name": "python"}}

SET_UP = '''\
# Set-up. Where the course is installed this cell does nothing. On Colab or Kaggle it finds or fetches the course and
# installs what is missing; the torch and numpy that are there stay as they are. Running it twice does no harm.
import importlib.util
import pathlib
import subprocess
import sys

REPOSITORY = "{repository}"
found = importlib.util.find_spec("fluidlab")
if found is None or found.origin is None:
    here = pathlib.Path.cwd()
    places = [here, *here.parents, here / "fluidlab"]
    course = next((place for place in places if (place / "fluidlab" / "config.py").is_file()), None)
    if course is None and REPOSITORY:
        course = here / "fluidlab"
        subprocess.run(["git", "clone", "--depth", "1", REPOSITORY, str(course)], check=True)
    if course is None:
        raise RuntimeError(f"The course is not in {{here}}: put its folder there as 'fluidlab', run this cell again.")
    subprocess.run([sys.executable, str(course / "notebooks" / "machinery" / "install.py")], check=True)
    sys.path.insert(0, str(course))
    importlib.invalidate_caches()'''


def repository():
    """The address "owner/name" on GitHub, or "" while the course has none."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["fluidlab"]["repository"]


def measured():
    """What the last committed runs measured: {notebook: {"minutes", "cores", "memory_gb", "student": its run, ...}}."""
    path = masters.NOTEBOOKS / "runs.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def path_of(name, edition="student"):
    """Where a notebook of an edition lies."""
    return (masters.NOTEBOOKS if edition == "student" else masters.NOTEBOOKS / edition) / f"{name}.ipynb"


def set_up_source():
    home = repository()
    return SET_UP.format(repository=f"https://github.com/{home}" if home else "")


def stands_in(cell, edition):
    kinds = set(tags(cell))
    if any(edition not in editions for kind, editions in ONLY_IN.items() if kind in kinds):
        return False
    return edition != "solutions" or bool(kinds & IN_SOLUTIONS)


def code_hash(cells):
    """SHA-256 over the code of cells: what the outputs depend on."""
    sources = [cell.source for cell in cells if cell.cell_type == "code"]
    return hashlib.sha256("\0".join(sources).encode()).hexdigest()


def built(name, edition="student"):
    """A master's notebook in one edition, without outputs."""
    master, facts = read_master(name), measured().get(name, {})
    cells = list(in_edition(master.cells, edition, int(name[:2])))
    code = code_hash(cells)
    opening = template.header(name, master.front, edition=edition, home=repository(), minutes=facts,
                              neighbours=neighbours(name), exercises=master.exercises())
    folded = {"tags": ["set-up"], "jupyter": {"source_hidden": True}}
    around = {
        "before": [markdown(opening, "header"), nbformat.v4.new_code_cell(set_up_source(), metadata=folded)],
        "plan": [markdown(template.plan_text(master.plan), "plan")] if edition == "instructor" else [],
        "closing": [markdown(template.closing_text(master.closing), "closing")] if edition != "solutions" else [],
        "after": [markdown(template.provenance_text(name, code, facts.get(edition)), "provenance")]}
    metadata = {**KERNEL, "title": f"{name[:2]} {master.front['title']}",
                "fluidlab": {"code": code, "fast": master.front["fast"]}}
    notebook = nbformat.v4.new_notebook(metadata=metadata, cells=[
        *around["before"], *around["plan"], *cells, *around["closing"], *around["after"]])
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    for position, cell in enumerate(notebook.cells):
        cell.id = hashlib.sha256(f"{name}:{position}".encode()).hexdigest()[:12]
    return notebook


def neighbours(name):
    """(words, name, title) of the notebook before and the one after."""
    names = masters.master_names()
    position = names.index(name)
    near = [("previous", position - 1), ("next", position + 1)]
    return [(words, names[i], read_master(names[i]).front["title"]) for words, i in near if 0 <= i < len(names)]


def in_edition(cells, edition, chapter):
    """What an edition shows of a master's cells: exercises as Markdown, each solution explained behind its check."""
    count, exercise = 0, None
    for cell in cells:
        if "exercise" in cell:
            count, exercise = count + 1, cell.exercise
        if not stands_in(cell, edition):
            continue
        if "exercise" in cell:
            yield markdown(template.exercise_text(f"{chapter}.{count}", exercise), "exercise")
        else:
            yield clean_cell(cell)
        if "check" in tags(cell) and edition != "student":
            yield markdown(template.why_text(f"{chapter}.{count}", exercise), "why")


def markdown(source, tag):
    return nbformat.v4.new_markdown_cell(source, metadata={"tags": [tag]})


def clean_cell(cell):
    metadata = {"tags": tags(cell)} if tags(cell) else {}
    if {"hide-input", "target"} & set(tags(cell)):
        metadata["jupyter"] = {"source_hidden": True}
    new = nbformat.v4.new_code_cell if cell.cell_type == "code" else nbformat.v4.new_markdown_cell
    return new(cell.source, metadata=metadata)


def keep_outputs(notebook, *earlier):
    """Takes over, in place, the outputs of every cell whose source is that of a cell of an earlier notebook."""
    known = {}
    for cell in (cell for old in earlier for cell in old.cells if cell.cell_type == "code"):
        known.setdefault(cell.source, []).append(cell)
    for cell in notebook.cells:
        if cell.cell_type == "code" and known.get(cell.source):
            same = known[cell.source].pop(0)
            cell.outputs, cell.execution_count = same.outputs, same.execution_count


def without_outputs(notebook):
    """A copy without outputs and counts: what a rebuild must reproduce exactly."""
    bare = nbformat.reads(nbformat.writes(notebook), as_version=4)
    for cell in bare.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return bare


def read_notebook(path):
    return nbformat.read(path, as_version=4)


def write_notebook(notebook, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(nbformat.writes(notebook) + "\n", encoding="utf-8", newline="\n")


def build(name, edition="student"):
    """Writes a notebook of one edition; outputs of unchanged cells stay. Returns True if the file changed.

    The instructor's edition is not run: its outputs are those of the student's notebook and of the solutions.
    """
    path, notebook = path_of(name, edition), built(name, edition)
    before = path.read_bytes() if path.exists() else b""
    sources = ("student", "solutions") if edition == "instructor" else (edition,)
    keep_outputs(notebook, *(read_notebook(path_of(name, e)) for e in sources if path_of(name, e).exists()))
    write_notebook(notebook, path)
    return path.read_bytes() != before


def editions_of(name):
    """The editions that a notebook has: all of them, or without solutions where there is nothing to solve."""
    return [e for e in EDITIONS if e != "solutions" or read_master(name).exercises()]


def chapter(name):
    """What the README says of a notebook: its measured minutes and the number of its exercises."""
    minutes = measured().get(name, {}).get("minutes")
    return "not run" if minutes is None else f"{minutes:.1f}", str(len(read_master(name).exercises()) or "none")
