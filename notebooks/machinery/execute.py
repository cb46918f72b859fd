"""Runs one notebook from top to bottom in a fresh kernel, offline, with or without other parameters."""

import os
import re
import time
from dataclasses import dataclass, field

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

from machinery.hygiene import freeze_widgets, images, renumber
from machinery.masters import ROOT, check_parameters, tags
from machinery.memory import PeakMemory

OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1",
           "TOKENIZERS_PARALLELISM": "false", "PYDEVD_DISABLE_FILE_VALIDATION": "1", "PYTHONPATH": str(ROOT)}
SECONDS_PER_CELL = 1800


@dataclass
class Run:
    """One execution: the notebook with its outputs, the seconds it took, the error or None, the most memory held."""
    name: str
    notebook: nbformat.NotebookNode
    seconds: float
    error: str | None
    memory_gb: float = 0.0
    pictures: int = field(init=False)

    def __post_init__(self):
        self.pictures = len(images(self.notebook))


def inject(notebook, parameters, name):
    """A copy whose parameters cell is followed by one that assigns the given values.

    Raises:
        ValueError: if the parameters cell assigns no such name.
    """
    copy = nbformat.from_dict(notebook)
    if not parameters:
        return copy
    check_parameters(copy.cells, parameters, name)
    position = next(i for i, cell in enumerate(copy.cells) if "parameters" in tags(cell))
    lines = [f"{key} = {value!r}" for key, value in parameters.items()]
    cell = nbformat.v4.new_code_cell("\n".join(lines), metadata={"tags": ["injected-parameters"]})
    copy.cells = [*copy.cells[:position + 1], cell, *copy.cells[position + 1:]]
    return copy


def execute(notebook, name, folder, parameters=None):
    """Executes a copy of the notebook with `folder` as its working directory.

    Returns:
        Run; its widgets are frozen and its cells numbered. A failing cell ends the run and is told in `error`.
    """
    notebook = inject(notebook, parameters or {}, name)
    folder.mkdir(parents=True, exist_ok=True)
    client = NotebookClient(notebook, timeout=SECONDS_PER_CELL, kernel_name="python3", coalesce_streams=True,
                            resources={"metadata": {"path": str(folder)}},
                            extra_arguments=["--log-level=CRITICAL"])  # else it warns of a local port, and of Ctrl-C
    started, error, memory = time.perf_counter(), None, PeakMemory(lambda: kernel_process(client))
    try:
        with memory:
            client.execute(env={**os.environ, **OFFLINE})
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as failure:
        error = shortened(notebook, failure)
    except AssertionError as failure:
        if client.km is None:       # Ctrl-C: nbclient has stopped the kernel itself, and stumbles over its absence
            raise KeyboardInterrupt from failure
        raise
    seconds = time.perf_counter() - started
    finish(notebook)
    return Run(name, notebook, seconds, error, memory.gb)


def kernel_process(client):
    """The number of the kernel's process, or None while there is none."""
    return getattr(getattr(client.km, "provisioner", None), "pid", None)


def finish(notebook):
    freeze_widgets(notebook)
    renumber(notebook)
    notebook.metadata.language_info = {"name": "python"}       # not the version of whoever ran it
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)


def shortened(notebook, failure):
    """The failing cell's number and source, and the end of its traceback."""
    number = next((i for i, cell in enumerate(notebook.cells)
                   if any(output.output_type == "error" for output in cell.get("outputs", []))), None)
    lines = re.sub(r"\x1b\[[0-9;]*m", "", str(failure)).splitlines()
    trace = [line for line in lines if line.strip("- ")]       # without the rules that nbclient draws
    where = f"cell {number}" if number is not None else type(failure).__name__
    return "\n".join([where, *(f"    {line}" for line in trace[-14:])])
