"""What a run of a committed notebook must show, whichever edition it is."""

import re

from machinery import editions, masters
from machinery.execute import execute
from machinery.hygiene import output_text, problems
from machinery.page import page


def committed(name, edition="student"):
    return editions.read_notebook(editions.path_of(name, edition))


def run_as_promised(name, edition, said, folder):
    """Runs a notebook with its small parameters: clean, with pictures, every check saying `said`, a page of its own."""
    notebook = editions.without_outputs(committed(name, edition))
    run = execute(notebook, name, folder, notebook.metadata.fluidlab.fast)
    assert run.error is None, run.error
    assert problems(run.notebook) == []
    assert run.pictures > 0
    checks = [cell for cell in run.notebook.cells if "check" in masters.tags(cell)]
    assert all(said in "".join(output_text(output) for output in cell.outputs) for cell in checks)
    html = page(run.notebook)
    assert not re.search(r"""(src|href)=["']?(https?:)?//[^"']*\.(js|css|mjs|png|jpe?g|svg|woff2?)\b""", html)
    assert "<script" not in html
