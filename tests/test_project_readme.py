"""The README keeps its word: its example runs, and its map names exactly the files that are there."""

import re
from pathlib import Path

from PIL import Image

from machinery import editions, masters

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def section(title):
    return README.split(f"\n## {title}\n")[1].split("\n## ")[0]


def blocks(text, language):
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def mapped_files():
    """Paths of the Python files in the map, from its indentation."""
    [tree] = blocks(section("The map"), "")
    folders = []
    for line in tree.splitlines():
        if not line.strip():
            continue
        depth, name = (len(line) - len(line.lstrip())) // 2, line.split()[0]
        folders = folders[:depth]
        if name.endswith("/"):
            folders.append(name.rstrip("/"))
        elif name.endswith(".py"):
            yield "/".join([*folders, name])


def test_the_example_of_twelve_lines_runs(tmp_path, monkeypatch, capsys):
    [example] = blocks(README, "python")
    assert len([line for line in example.splitlines() if line.strip()]) <= 12
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "README.md", "exec"), {})
    picture = Image.open("umbrella.png")
    assert picture.size == (256, 256) and len(picture.getcolors(256 * 256)) > 16
    kinds = re.findall(r"^(\w+) 16 tokens (\d+\.\d) dB$", capsys.readouterr().out, re.MULTILINE)
    assert [kind for kind, _ in kinds] == ["continuous", "discrete"]
    assert all(float(decibel) > 15 for _, decibel in kinds)


def test_the_map_names_every_file_once_and_no_other():
    there = {path.relative_to(ROOT).as_posix() for folder in ("fluidlab", "notebooks/machinery")
             for path in (ROOT / folder).rglob("*.py") if path.name != "__init__.py"}
    named = sorted(mapped_files())
    assert sorted(there | {"fluidlab/__init__.py", "notebooks/build.py"}) == named


def test_the_chapters_are_the_notebooks():
    chapters = re.findall(r"^\| `(\d\d_\w+)` \|", section("Chapters"), re.MULTILINE)
    assert chapters == sorted(path.stem for path in (ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))


def test_minutes_and_exercises_of_the_chapters_are_those_of_the_last_runs():
    rows = re.findall(r"^\| `(\d\d_\w+)` \| .*? \| (.*?) \| (.*?) \| .* \|$", section("Chapters"), re.MULTILINE)
    assert [(name, editions.chapter(name)) for name, _, _ in rows] == [(name, found) for name, *rest in rows
                                                                      for found in [tuple(rest)]]
    assert len(rows) == len(masters.master_names()), "run: make notebooks"


def test_files_that_the_chapters_name_exist():
    rows = "".join(re.findall(r"^\| .*$", section("Chapters"), re.MULTILINE))
    for name in re.findall(r"`([\w/]+(?:\.py|/))`", rows):
        assert (ROOT / "fluidlab" / name).exists(), name


def test_the_commands_that_are_promised_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in set(re.findall(r"make (?:PYTHON=\S+ )?([a-z]+)", "".join(blocks(README, "")))) - {"course |"}:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_the_drawings_are_attributed():
    text = " ".join(section("Licence and attribution").split())
    assert "All emojis designed by [OpenMoji](https://openmoji.org)" in text and "CC BY-SA 4.0" in text
