"""Data flows down: which room may import which, and that only orders and heads know which of them they are.

The table is the design's. A new import that is not in it is a decision, so it is made here, in the open.
"""

import ast
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "fluidlab"
ANYTHING = {"*"}
MAY_IMPORT = {
    "config": set(),
    "layers": set(),
    "device": set(),
    "whole": set(),
    "presets": {"config"},
    "hub": {"config", "whole"},
    "data": {"config", "hub", "whole"},
    "tokenizer": {"config", "device", "hub", "whole"},
    "text": {"config", "device", "layers", "hub", "whole"},
    "model": {"config", "layers", "text.aligner", "whole"},
    "sample": {"config", "layers", "model"},
    "train": {"config", "layers", "presets", "data", "model", "whole"},
    "evaluate": {"config", "hub", "model", "sample", "tokenizer", "text", "data.scenes", "whole"},
    "publish": {"config", "hub", "tokenizer", "text", "model", "data.token_cache", "whole"},
    "pipeline": {"config", "device", "presets", "tokenizer", "text", "model", "sample", "publish"},
    "bench": ANYTHING,
    "viz": ANYTHING,
    "checks": ANYTHING,
    "cli": ANYTHING,
    "__main__": {"cli"},
    "__init__": ANYTHING,
}
IMPORTED_BY_NOTHING = {"bench", "viz", "checks", "cli"}
FACES = {"__main__", "__init__"}             # the command and the public names
OUTSIDE = {"config": set(), "layers": {"torch"}, "device": {"torch"}, "whole": {"safetensors"}, "presets": set(),
           "model": {"torch", "safetensors", "numpy", "tqdm"}}
FILES = sorted(PACKAGE.rglob("*.py"))


def room_of(path):
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def modules_imported(path):
    """Dotted names of all that a file imports, wherever in it; relative imports are made absolute."""
    here = ["fluidlab", *path.relative_to(PACKAGE).parent.parts]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = here[:len(here) - node.level + 1] if node.level else []
            stem = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{stem}.{alias.name}" for alias in node.names)


def refused(path):
    """The imports of a file that the table does not allow."""
    room = room_of(path)
    for name in modules_imported(path):
        if name.split(".")[0] != "fluidlab":
            continue
        inner = name.removeprefix("fluidlab").removeprefix(".")
        target = inner.split(".")[0]
        allowed = MAY_IMPORT[room]
        by_table = allowed == ANYTHING or any(f"{inner}.".startswith(f"{entry}.") for entry in allowed)
        closed = target in IMPORTED_BY_NOTHING and room not in (*IMPORTED_BY_NOTHING, *FACES)
        if target != room and (closed or not by_table):
            yield name


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_a_room_imports_only_what_the_table_allows(path):
    assert room_of(path) in MAY_IMPORT, f"{room_of(path)} is a new room: give it a line in the table"
    assert list(refused(path)) == []


def test_the_table_would_catch_a_wrong_import(tmp_path, monkeypatch):
    monkeypatch.setattr(f"{__name__}.PACKAGE", tmp_path)
    (tmp_path / "model").mkdir()
    wrong = tmp_path / "model" / "wrong.py"
    wrong.write_text("import torch\nfrom fluidlab.tokenizer import VAE\nfrom fluidlab.text.encoder import x\n"
                     "from ..data import scenes\nfrom fluidlab.text.aligner import Aligner\nfrom fluidlab import viz\n"
                     "from .orders import ORDERS\nimport fluidlab.layers\n")
    assert list(refused(wrong)) == ["fluidlab.tokenizer.VAE", "fluidlab.text.encoder.x", "fluidlab.data.scenes",
                                    "fluidlab.viz"]


@pytest.mark.parametrize("room", OUTSIDE)
def test_the_core_needs_little_from_outside(room):
    files = [path for path in FILES if room_of(path) == room]
    outside = {name.split(".")[0] for path in files for name in modules_imported(path)}
    assert outside - set(sys.stdlib_module_names) - {"fluidlab"} <= OUTSIDE[room]


def asks_for_a_variant(path):
    """Lines that compare an order, a head or an isinstance of one: the branches that the design forbids."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            named = any(isinstance(s, ast.Attribute) and s.attr in ("order", "head") or
                        isinstance(s, ast.Name) and s.id in ("order", "head") for s in sides)
            literal = any(isinstance(part, ast.Constant) and isinstance(part.value, str)
                          for side in sides if not isinstance(side, ast.Call) for part in ast.walk(side))
            if named and literal:
                yield node.lineno
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "isinstance":
            classes = {n.id for n in ast.walk(node.args[1]) if isinstance(n, ast.Name)}
            if any(name.endswith(("Order", "Head")) for name in classes):
                yield node.lineno


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_nothing_else_asks_which_order_or_head_it_has(path):
    if path.relative_to(PACKAGE).as_posix().startswith(("model/orders/", "model/heads/")):
        return
    assert list(asks_for_a_variant(path)) == []


def test_a_branch_on_the_order_would_be_caught(tmp_path):
    wrong = tmp_path / "wrong.py"
    wrong.write_text('config.order == "raster"\nhead in ("flow",)\nisinstance(h, FlowHead)\nx == "raster"\n'
                     '"random" != order\norder not in ORDERS\n')
    assert sorted(asks_for_a_variant(wrong)) == [1, 2, 3, 5]


def test_nothing_is_unpickled_and_no_remote_code_is_trusted():
    for path in FILES:
        text = path.read_text(encoding="utf-8")
        assert "import pickle" not in text and "trust_remote_code=True" not in text, path.name
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
                assert "weights_only=True" in ast.unparse(node), f"{path.name}:{node.lineno} unpickles"
