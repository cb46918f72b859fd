"""From a master (jupytext py:percent) to a notebook: the same bytes every time.

Adds what all notebooks share (header and set-up cell), so that an author writes neither. Knows nothing of running.
"""

import hashlib
import json
import tomllib
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = ROOT / "notebooks"
MASTERS = NOTEBOOKS / "masters"
REQUIRED = ("title", "goals", "needs", "hardware", "fast")
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


def master_names():
    """Names of all masters in the order of the course, e.g. "03_orders"."""
    return sorted(path.stem for path in MASTERS.glob("[0-9][0-9]_*.py"))


def read_master(name):
    """A master's front matter (dict) and its cells (list of NotebookNode).

    Raises:
        ValueError: if the front matter or the parameters cell is not as build.py's opening describes.
    """
    import jupytext  # only authors need these two, so that the committed notebooks run without them
    import yaml

    cells = jupytext.reads((MASTERS / f"{name}.py").read_text(encoding="utf-8"), fmt="py:percent").cells
    if not cells or "front-matter" not in tags(cells[0]):
        raise ValueError(f"The master {name} opens without front matter: its first cell must be tagged front-matter.")
    front = yaml.safe_load(cells[0].source) or {}
    missing = [key for key in REQUIRED if key not in front]
    if missing or not isinstance(front["fast"], dict):
        raise ValueError(f"The front matter of {name} lacks {', '.join(missing) or 'a mapping'}; it needs "
                         f"{', '.join(REQUIRED)}, and fast must map names to values.")
    check_parameters(cells, front["fast"], name)
    return front, cells[1:]


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


def repository():
    """The address "owner/name" on GitHub, or "" while the course has none."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["fluidlab"]["repository"]


def measured():
    """What the last committed run measured: {notebook: {"minutes": ..., "cores": ...}}."""
    path = NOTEBOOKS / "minutes.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def header(name, front, titles):
    """The first cell: title, goals, what is needed, minutes, hardware, neighbours, launch links."""
    names = list(titles)
    position = names.index(name)
    before = [f"previous: {link(names[position - 1], titles)}"] if position > 0 else []
    after = [f"next: {link(names[position + 1], titles)}"] if position + 1 < len(names) else []
    lines = [f"# {name[:2]} · {front['title']}", "", "**You will be able to**", ""]
    lines += [f"- {goal}" for goal in front["goals"]]
    lines += ["", f"**You need** {front['needs']}"]
    lines += ["", f"**Time** {minutes_text(name)} · **Hardware** {front['hardware']}"]
    lines += ["", " · ".join(before + after + launch_links(name))]
    return "\n".join(lines).rstrip()


def link(name, titles):
    return f"[{name[:2]} {titles[name]}]({name}.ipynb)"


def minutes_text(name):
    entry = measured().get(name)
    if entry is None:
        return "not measured yet"
    return f"{entry['minutes']:.1f} minutes, measured on {entry['cores']} CPU cores"


def launch_links(name):
    home = repository()
    if not home:
        return []
    page = f"{home}/blob/main/notebooks/{name}.ipynb"
    return [f"[open in Colab](https://colab.research.google.com/github/{page})",
            f"[open in Kaggle](https://kaggle.com/kernels/welcome?src=https://github.com/{page})",
            f"[open in Binder](https://mybinder.org/v2/gh/{home}/main?labpath=notebooks/{name}.ipynb)"]


def set_up_source():
    home = repository()
    return SET_UP.format(repository=f"https://github.com/{home}" if home else "")


def code_hash(cells):
    """SHA-256 over the code of the master's cells: what the outputs depend on."""
    sources = [cell.source for cell in cells if cell.cell_type == "code"]
    return hashlib.sha256("\0".join(sources).encode()).hexdigest()


def built(name):
    """The notebook of a master, without outputs."""
    titles = {other: read_master(other)[0]["title"] for other in master_names()}
    front, cells = read_master(name)
    folded = {"tags": ["set-up"], "jupyter": {"source_hidden": True}}
    first = [nbformat.v4.new_markdown_cell(header(name, front, titles), metadata={"tags": ["header"]}),
             nbformat.v4.new_code_cell(set_up_source(), metadata=folded)]
    metadata = {**KERNEL, "title": f"{name[:2]} {front['title']}",
                "fluidlab": {"code": code_hash(cells), "fast": front["fast"]}}
    notebook = nbformat.v4.new_notebook(cells=[*first, *(clean_cell(cell) for cell in cells)], metadata=metadata)
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    for position, cell in enumerate(notebook.cells):
        cell.id = hashlib.sha256(f"{name}:{position}".encode()).hexdigest()[:12]
    return notebook


def clean_cell(cell):
    metadata = {"tags": tags(cell)} if tags(cell) else {}
    if "hide-input" in tags(cell):
        metadata["jupyter"] = {"source_hidden": True}
    new = nbformat.v4.new_code_cell if cell.cell_type == "code" else nbformat.v4.new_markdown_cell
    return new(cell.source, metadata=metadata)


def keep_outputs(notebook, old):
    """Takes over, in place, the outputs of every cell whose source has not changed, and the record of their run."""
    known = {}
    for cell in old.cells:
        if cell.cell_type == "code":
            known.setdefault(cell.source, []).append(cell)
    for cell in notebook.cells:
        if cell.cell_type == "code" and known.get(cell.source):
            same = known[cell.source].pop(0)
            cell.outputs, cell.execution_count = same.outputs, same.execution_count
    if "run" in old.metadata.get("fluidlab", {}):
        notebook.metadata.fluidlab["run"] = old.metadata.fluidlab.run


def without_outputs(notebook):
    """A copy without outputs, counts and the record of a run: what a rebuild must reproduce exactly."""
    bare = nbformat.reads(nbformat.writes(notebook), as_version=4)
    bare.metadata.get("fluidlab", {}).pop("run", None)
    for cell in bare.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return bare


def read_notebook(path):
    return nbformat.read(path, as_version=4)


def write_notebook(notebook, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(nbformat.writes(notebook) + "\n", encoding="utf-8", newline="\n")


def build(name):
    """Writes notebooks/<name>.ipynb; outputs of unchanged cells stay. Returns True if the file changed."""
    path = NOTEBOOKS / f"{name}.ipynb"
    notebook = built(name)
    before = path.read_bytes() if path.exists() else b""
    if before:
        keep_outputs(notebook, read_notebook(path))
    write_notebook(notebook, path)
    return path.read_bytes() != before
