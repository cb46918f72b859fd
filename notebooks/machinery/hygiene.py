"""What an executed notebook may hold: still pictures instead of widgets, alt text, no paths, no errors.

Widgets live in a kernel. A committed notebook or a page has none, so each widget is frozen into the picture it showed.
"""

import html
import re
import sys
import tempfile
from pathlib import Path

from nbformat import NotebookNode

from machinery.masters import ROOT

VIEW = "application/vnd.jupyter.widget-view+json"
STATE = "application/vnd.jupyter.widget-state+json"
NOTE = "<p><em>A still of a widget: open the notebook in JupyterLab to move it.</em></p>"
DATA = re.compile(r"data:[\w/+.-]+;base64,[A-Za-z0-9+/=]+")
PATHS = re.compile(r"(?<![\w.])(/(?:home|Users|root|tmp|var|private|opt|mnt|content)/[\w.-]+|[A-Za-z]:\\+Users\\)")


def freeze_widgets(notebook):
    """Replaces, in place, every widget by a still of what it showed, and drops the widgets' state."""
    state = notebook.metadata.pop("widgets", {}).get(STATE, {}).get("state", {})
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            view = output.get("data", {}).get(VIEW)
            if view is not None:
                output.data = NotebookNode({"text/html": still(view["model_id"], state), "text/plain": "(a widget)"})
        if "outputs" in cell:           # a progress bar that was told to leave has left nothing
            cell.outputs = [output for output in cell.outputs if output.get("data", {}).get("text/html") != ""]


def still(model_id, state):
    """HTML of a widget's last state: pictures and texts in order, settings as "name: value"; "" if it shows nothing."""
    texts = [text for text in parts(model_id, state, set()) if text]
    if is_progress(model_id, state):
        return f"<pre>{' '.join(texts)}</pre>" if texts else ""
    return NOTE + "".join(f"<div>{text}</div>" for text in texts) if texts else ""


def parts(model_id, state, seen):
    """Walks a widget and its children; yields the HTML of each that has something to show, once."""
    if model_id in seen:
        return
    seen.add(model_id)
    model, values = model_of(model_id, state)
    layout = model_of(values.get("layout", "").removeprefix("IPY_MODEL_"), state)[1]
    if layout.get("display") == "none" or layout.get("visibility") == "hidden":
        return
    if model in ("HTMLModel", "HTMLMathModel", "LabelModel") or "spot" in values:    # a picture that can be clicked
        yield values.get("value", "")
    elif "Progress" not in model and "children" not in values and values.get("description") and setting(values):
        yield f"{html.escape(str(values['description']))}: {html.escape(setting(values))}"
    for child in values.get("children", []):
        yield from parts(child.removeprefix("IPY_MODEL_"), state, seen)


def setting(values):
    """What a control is set to; "" for one that holds nothing to read, such as a button or an empty upload."""
    if "_options_labels" in values:             # a dropdown's state is its place in the list
        return str(values["_options_labels"][values["index"]]) if values.get("index") is not None else ""
    value = values.get("value", "")
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        return ", ".join(value)
    return "" if isinstance(value, (list, dict)) else str(value)


def model_of(model_id, state):
    entry = state.get(model_id, {})
    return entry.get("model_name", ""), entry.get("state", {})


def is_progress(model_id, state):
    children = model_of(model_id, state)[1].get("children", [])
    return any("Progress" in model_of(child.removeprefix("IPY_MODEL_"), state)[0] for child in children)


def renumber(notebook):
    """Numbers the executed cells 1, 2, 3, ... in place."""
    codes = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for count, cell in enumerate(codes, start=1):
        cell.execution_count = count
        for output in cell.outputs:
            if output.output_type == "execute_result":
                output.execution_count = count


def images(notebook):
    """Every <img> tag that the outputs hold."""
    pages = [text for _, output in outputs(notebook) for text in [joined(output.get("data", {}).get("text/html", ""))]]
    return [tag for page in pages for tag in re.findall(r"<img\b[^>]*>", page)]


def outputs(notebook):
    for position, cell in enumerate(notebook.cells):
        for output in cell.get("outputs", []):
            yield position, output


def joined(text):
    return text if isinstance(text, str) else "".join(text)


def output_text(output):
    """All text of an output, without the bytes of its pictures."""
    data = output.get("data", {})
    texts = [joined(data[kind]) for kind in ("text/plain", "text/html", "text/markdown") if kind in data]
    texts += [joined(output.get("text", "")), "\n".join(output.get("traceback", []))]
    return DATA.sub("", "\n".join(texts))


def problems(notebook):
    """Sentences on everything that may not be committed; an empty list if all is well."""
    found = ["the state of its widgets is in the metadata"] if "widgets" in notebook.metadata else []
    for position, output in outputs(notebook):
        found += [f"cell {position}: {problem}" for problem in output_problems(output)]
    return found


def output_problems(output):
    text, data = output_text(output), output.get("data", {})
    if output.output_type == "error":
        yield f"error {output.get('ename')}"
    if any(kind.startswith("image/") for kind in data):
        yield "a picture without alt text (use fluidlab.viz.show)"
    for tag in re.findall(r"<img\b[^>]*>", joined(data.get("text/html", ""))):
        if not re.search(r'\balt="[^"]*[^"\s][^"]*"', tag):
            yield "an <img> without alt text"
        if not re.search(r'\bsrc="data:', tag):
            yield "an <img> from outside the notebook"
    if VIEW in data:
        yield "a live widget instead of a still"
    if output.output_type == "stream" and output.name == "stderr" and "Warning" in text:
        yield f"a warning left on screen: {text.strip()[:120]!r}"
    path = absolute_path(text)
    if path:
        yield f"an absolute path: {path!r}"


def absolute_path(text):
    """The first path of this or any other machine in a text, or None."""
    known = {str(ROOT), str(Path.home()), sys.prefix, tempfile.gettempdir() + "/"} - {"/", ""}
    for path in sorted(known):
        if path in text:
            return path
    match = PATHS.search(text)
    return match.group(0) if match else None
