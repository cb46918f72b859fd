"""Builds the notebooks from their masters, and runs them.

    python notebooks/build.py build [NN ...]                     masters/NN_name.py -> the notebooks of all editions,
                                                                 and the README's table of chapters
    python notebooks/build.py run [NN ...] [-p name=value]       execute offline -> build/notebooks and build/html
    python notebooks/build.py run --edition solutions            ... the worked solutions
    python notebooks/build.py run --fast                         with each master's small parameters, as the tests do
    python notebooks/build.py run --commit-outputs [NN ...]      ... and keep outputs, minutes, memory in notebooks/

A master is a jupytext py:percent file, and from it come three editions: the student's notebook (notebooks/), the worked
solutions (notebooks/solutions/: the exercises alone) and the instructor's (notebooks/instructor/: everything, with a
plan, notes and solutions). Cells are known by their tags:

    front-matter    Markdown, the first cell. YAML: title, goals, needs, hardware, fast (small parameters for tests).
    plan            Markdown. YAML: plan, a list of {minutes, do}. The instructor's first page.
    parameters      Code, exactly one. Lines `name = literal`; every name in `fast` is one of them. Other values are
                    injected as a cell behind it, so that one code path serves every run.
    needed          Code that the exercises need besides the parameters: imports, models. Stands in the solutions too.
    exercise        Markdown. YAML: title, minutes, level (1 to 3), task, right (how it looks when right), hints (two or
                    more), why (what stands behind the solution). Behind it, one behind the other, the four cells of it:
      target        Code, folded. Shows the picture of a right answer, made with the package.
      stub          Code, for the student alone: a function with a docstring whose body is `...`.
      solution      Code, for the other two editions.
      check         Code: `name = checks.check_name(name)` and what is done with it. An exercise that is not solved goes
                    on with the package's own function.
    instructor      Markdown for the instructor alone: what to say, a poll with its answer, what usually goes wrong.
    hide-input      Code that is folded.
    closing         Markdown, the last cell. YAML: recap, quiz (a list of {q, a}), references.

From them come the header (title, goals, needs, measured minutes and memory, hardware, exercises, neighbours, launch
links), the set-up cell that Colab needs, the closing, and a last line that says from what and when the outputs were
made. Pictures go through fluidlab.viz.show, since each needs alt text.

A .ipynb is written only by this program. `build` keeps the outputs of cells whose source has not changed. `run` first
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

from machinery import editions, masters
from machinery.masters import NOTEBOOKS, ROOT

BUILD = ROOT / "build"
VERSIONS = ("torch", "numpy", "diffusers", "transformers")     # that a notebook's last line names


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


def source_notebook(name, edition="student"):
    """What a run executes: the notebook that a reader opens, without its outputs."""
    return editions.without_outputs(editions.read_notebook(editions.path_of(name, edition)))


def run_all(names, edition, parameters, fast):
    """Executes the notebooks in order and writes each as .ipynb and HTML; returns the runs."""
    from machinery.execute import execute
    from machinery.page import index, page

    runs, below = [], "" if edition == "student" else edition
    for name in names:
        notebook = source_notebook(name, edition)
        values = {**(notebook.metadata.fluidlab.fast if fast else {}), **parameters}
        print(f"{name:<24}", end=" ", flush=True)
        run = execute(notebook, name, BUILD / "work" / below / name, values)
        editions.write_notebook(run.notebook, BUILD / "notebooks" / below / f"{name}.ipynb")
        write_text(BUILD / "html" / below / f"{name}.html", page(run.notebook))
        outcome = "ok" if run.error is None else f"FAILED in {run.error}"
        print(f"{run.seconds:6.1f} s {run.memory_gb:5.1f} GB {run.pictures:4d} pictures  {outcome}", flush=True)
        runs.append(run)
    rows = [(r.name, r.notebook.metadata.title, r.seconds / 60, r.pictures, r.error) for r in runs]
    write_text(BUILD / "html" / below / "index.html", index(rows))
    return runs


def write_solutions(names):
    """The pages of the worked solutions, as they were committed: the course's pages link to them."""
    from machinery.page import page

    for name in names:
        path = editions.path_of(name, "solutions")
        if path.exists():
            write_text(BUILD / "html" / "solutions" / f"{name}.html", page(editions.read_notebook(path)))


def write_text(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="\n")


def summary(runs):
    """The table at the end: notebook, minutes, pictures, and where to look."""
    lines = ["", f"{'notebook':<24} {'minutes':>7} {'pictures':>8} {'memory':>9}"]
    for run in runs:
        outcome = "" if run.error is None else "  FAILED"
        lines.append(f"{run.name:<24} {run.seconds / 60:7.2f} {run.pictures:8d} {run.memory_gb:6.1f} GB{outcome}")
    lines += [f"{'all':<24} {sum(r.seconds for r in runs) / 60:7.2f} {sum(r.pictures for r in runs):8d}", "",
              "Look at build/html/index.html in a browser; the executed notebooks are in build/notebooks/."]
    return "\n".join(lines)


def commit_outputs(run, edition):
    """Puts a full run's outputs, minutes and memory into notebooks/.

    Raises:
        ValueError: if the run failed, or its outputs may not be committed.
    """
    from machinery.hygiene import problems

    found = [run.error] if run.error else problems(run.notebook)
    if found:
        raise ValueError(f"The outputs of {run.name} cannot be committed: {'; '.join(found)}.")
    facts = dict(editions.measured().get(run.name, {}))
    facts[edition] = {"code": run.notebook.metadata.fluidlab.code, "date": datetime.date.today().isoformat(),
                      "versions": versions()}
    if edition == "student":
        facts |= {"minutes": round(run.seconds / 60, 1), "cores": os.cpu_count(), "memory_gb": round(run.memory_gb, 1)}
    runs = {**editions.measured(), run.name: facts}
    write_text(NOTEBOOKS / "runs.json", json.dumps(runs, indent=1, sort_keys=True) + "\n")
    editions.write_notebook(run.notebook, editions.path_of(run.name, edition))
    build(run.name)                     # headers and last lines now tell of this run; the outputs stay


def versions():
    return {"python": platform.python_version(), **{name: version(name).split("+")[0] for name in VERSIONS}}


def build(name):
    """Builds all editions of a notebook; returns the names of the files that changed."""
    kinds = editions.editions_of(name)
    return [str(editions.path_of(name, kind).relative_to(NOTEBOOKS)) for kind in kinds if editions.build(name, kind)]


def build_command(words):
    for name in chosen(words, masters.master_names()):
        print(f"{name}: {', '.join(build(name)) or 'nothing'} written")
    update_chapters()
    return 0


def update_chapters():
    """Minutes and exercises in the README's table of chapters, from the last committed runs and from the masters."""
    readme = ROOT / "README.md"
    lines = readme.read_text(encoding="utf-8").splitlines(keepends=True)
    for i, line in enumerate(lines):
        cells = line.split(" | ")
        name = cells[0].removeprefix("| `").removesuffix("`")
        if name in masters.master_names() and len(cells) == 5:
            lines[i] = " | ".join([*cells[:2], *editions.chapter(name), cells[4]])
    write_text(readme, "".join(lines))


def notebook_names(words, edition):
    """The notebooks to run; those with a changed master are built first, where the authors' tools are installed."""
    if find_spec("jupytext") and find_spec("yaml"):
        for name in chosen(words, masters.master_names()):
            build(name)
    folder = editions.path_of("", edition).parent
    return chosen(words, sorted(path.stem for path in folder.glob("[0-9][0-9]_*.ipynb")))


def run_command(options):
    parameters = dict(parse_parameter(text) for text in options.p)
    if options.commit_outputs and (parameters or options.fast):
        raise ValueError("Only the outputs of a full run can be committed; leave out -p and --fast.")
    runs = run_all(notebook_names(options.names, options.edition), options.edition, parameters, options.fast)
    if options.commit_outputs:
        for run in runs:
            commit_outputs(run, options.edition)
        update_chapters()
    if options.edition == "student":
        write_solutions([run.name for run in runs])
    print(summary(runs))
    return int(any(run.error for run in runs))


def main(arguments=None):
    parser = argparse.ArgumentParser(description="Builds the notebooks from their masters, and runs them.")
    commands = parser.add_subparsers(dest="command", required=True)
    for command in ("build", "run"):
        commands.add_parser(command).add_argument("names", nargs="*", help="numbers or names, e.g. 03; all if left out")
    run = commands.choices["run"]
    run.add_argument("-p", action="append", default=[], metavar="name=value", help="a value for the parameters cell")
    run.add_argument("--edition", choices=("student", "solutions"), default="student", help="which notebooks to run")
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
