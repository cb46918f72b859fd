"""Builds the notebooks from their masters, and runs them.

    python notebooks/build.py build [NN ...]                     masters/NN_name.py -> NN_name.ipynb
    python notebooks/build.py run [NN ...] [-p name=value]       execute offline -> build/notebooks and build/html
    python notebooks/build.py run --fast                         with each master's small parameters, as the tests do
    python notebooks/build.py run --commit-outputs [NN ...]      ... and keep outputs and minutes in notebooks/

A master is a jupytext py:percent file. Its first cell is Markdown, tagged front-matter, and holds YAML:

    # %% [markdown] tags=["front-matter"]
    # title: "Orders: in which order does an image appear?"
    # goals:
    #   - explain why raster order needs a causal mask
    # needs: "notebook 02; Python lists and NumPy arrays"
    # hardware: "a laptop CPU, 2 GB of free memory"
    # fast:
    #   num_steps: 2

From it comes the header (title, goals, what is needed, measured minutes, hardware, neighbours, launch links), followed
by the set-up cell that Colab needs. Exactly one code cell is tagged parameters; it holds lines `name = literal`, and
every name in `fast` is one of them. Other values are injected as a cell behind it, so one code path serves every run.
A cell tagged hide-input is folded. Pictures go through fluidlab.viz.show, since each needs alt text.

The .ipynb is written only by this program. `build` keeps the outputs of cells whose source has not changed. `run` first
builds what is older than its master. `--commit-outputs` refuses errors, warnings, absolute paths and pictures without
alt text. Widgets are frozen into stills, because a page has no kernel.
"""

import argparse
import ast
import datetime
import json
import os
import platform
import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from machinery import masters
from machinery.masters import NOTEBOOKS, ROOT

BUILD = ROOT / "build"


def chosen(words, names):
    """The names that the words pick out, by number or by name; all of them without words.

    Raises:
        ValueError: if a word fits no notebook.
    """
    for word in words:
        if not any(name.startswith(word) for name in names):
            raise ValueError(f"There is no notebook {word!r}; there are {', '.join(names) or 'none'}.")
    return [name for name in names if not words or any(name.startswith(word) for word in words)]


def parse_parameter(text):
    """"steps=2" -> ("steps", 2); what is no Python literal stays a string."""
    key, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"The parameter {text!r} has no equals sign; write it as name=value.")
    try:
        return key, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return key, value


def source_notebook(name):
    """What a run executes: the notebook that a student opens, without its outputs."""
    return masters.without_outputs(masters.read_notebook(NOTEBOOKS / f"{name}.ipynb"))


def run_all(names, parameters, fast):
    """Executes the notebooks in order and writes each as .ipynb and HTML; returns the runs."""
    from machinery.execute import execute
    from machinery.page import index, page

    runs = []
    for name in names:
        notebook = source_notebook(name)
        values = {**(notebook.metadata.fluidlab.fast if fast else {}), **parameters}
        print(f"{name:<24}", end=" ", flush=True)
        run = execute(notebook, name, BUILD / "work" / name, values)
        masters.write_notebook(run.notebook, BUILD / "notebooks" / f"{name}.ipynb")
        write_text(BUILD / "html" / f"{name}.html", page(run.notebook))
        outcome = "ok" if run.error is None else f"FAILED in {run.error}"
        print(f"{run.seconds:6.1f} s {run.pictures:4d} pictures  {outcome}", flush=True)
        runs.append(run)
    rows = [(r.name, r.notebook.metadata.title, r.seconds / 60, r.pictures, r.error) for r in runs]
    write_text(BUILD / "html" / "index.html", index(rows))
    return runs


def write_text(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="\n")


def summary(runs):
    """The table at the end: notebook, minutes, pictures, and where to look."""
    lines = ["", f"{'notebook':<24} {'minutes':>7} {'pictures':>8}"]
    for run in runs:
        outcome = "" if run.error is None else "  FAILED"
        lines.append(f"{run.name:<24} {run.seconds / 60:7.2f} {run.pictures:8d}{outcome}")
    lines += [f"{'all':<24} {sum(r.seconds for r in runs) / 60:7.2f} {sum(r.pictures for r in runs):8d}", "",
              "Look at build/html/index.html in a browser; the executed notebooks are in build/notebooks/."]
    return "\n".join(lines)


def commit_outputs(run):
    """Puts a full run's outputs and minutes into notebooks/.

    Raises:
        ValueError: if the run failed, or its outputs may not be committed.
    """
    from machinery.hygiene import problems

    found = [run.error] if run.error else problems(run.notebook)
    if found:
        raise ValueError(f"The outputs of {run.name} cannot be committed: {'; '.join(found)}.")
    minutes = {**masters.measured(), run.name: {"minutes": round(run.seconds / 60, 1), "cores": os.cpu_count()}}
    write_text(NOTEBOOKS / "minutes.json", json.dumps(minutes, indent=1, sort_keys=True) + "\n")
    notebook = run.notebook
    notebook.metadata.fluidlab["run"] = {
        "code": notebook.metadata.fluidlab.code, "date": datetime.date.today().isoformat(),
        "python": platform.python_version(), "torch": version("torch").split("+")[0]}
    masters.write_notebook(notebook, NOTEBOOKS / f"{run.name}.ipynb")
    masters.build(run.name)             # the header now shows the minutes just measured; the outputs stay


def build_command(words):
    for name in chosen(words, masters.master_names()):
        print(f"{name}.ipynb", "written" if masters.build(name) else "unchanged")
    return 0


def notebook_names(words):
    """The notebooks to run; those with a changed master are built first, where the authors' tools are installed."""
    if find_spec("jupytext") and find_spec("yaml"):
        for name in chosen(words, masters.master_names()):
            masters.build(name)
    return chosen(words, sorted(path.stem for path in NOTEBOOKS.glob("[0-9][0-9]_*.ipynb")))


def run_command(options):
    parameters = dict(parse_parameter(text) for text in options.p)
    if options.commit_outputs and (parameters or options.fast):
        raise ValueError("Only the outputs of a full run can be committed; leave out -p and --fast.")
    runs = run_all(notebook_names(options.names), parameters, options.fast)
    print(summary(runs))
    if options.commit_outputs:
        for run in runs:
            commit_outputs(run)
    return int(any(run.error for run in runs))


def main(arguments=None):
    parser = argparse.ArgumentParser(description="Builds the notebooks from their masters, and runs them.")
    commands = parser.add_subparsers(dest="command", required=True)
    for command in ("build", "run"):
        commands.add_parser(command).add_argument("names", nargs="*", help="numbers or names, e.g. 03; all if left out")
    run = commands.choices["run"]
    run.add_argument("-p", action="append", default=[], metavar="name=value", help="a value for the parameters cell")
    run.add_argument("--fast", action="store_true", help="use each notebook's small parameters")
    run.add_argument("--commit-outputs", action="store_true", help="keep outputs and minutes in notebooks/")
    options = parser.parse_args(arguments)
    try:
        return build_command(options.names) if options.command == "build" else run_command(options)
    except ValueError as error:
        print(f"build.py: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped; the notebooks that had finished are in build/", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
