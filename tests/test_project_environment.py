"""One hand-written list of dependencies; conda's file, the pins, the wheel and the licence follow from it."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def requirements(extra=None):
    """What pyproject.toml asks for with an extra, extras of its own resolved, as {name: Requirement}."""
    lines = list(PROJECT["project"]["dependencies"])
    pending = [extra] if extra else []
    while pending:
        for line in PROJECT["project"]["optional-dependencies"][pending.pop()]:
            if Requirement(line).name == "fluidlab":
                pending += Requirement(line).extras
            else:
                lines.append(line)
    return {canonicalize_name(Requirement(line).name): Requirement(line) for line in lines}


def pins():
    """{name: version} of constraints.txt, the lines for other systems included."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    stated = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(r.name): str(r.specifier).removeprefix("==") for r in stated}


def test_conda_and_pip_ask_for_the_same():
    conda = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    python = next(line for line in conda["dependencies"] if str(line).startswith("python"))
    assert SpecifierSet(python.removeprefix("python")) == SpecifierSet(PROJECT["project"]["requires-python"])
    lines = next(part["pip"] for part in conda["dependencies"] if isinstance(part, dict))
    assert "-c constraints.txt" in lines
    [own] = [line.removeprefix("-e ") for line in lines if line.startswith("-e ")]
    assert len(lines) == 2, "environment.yml must add nothing to what pyproject.toml lists"
    extra = re.fullmatch(r"\.\[(\w+)\]", own).group(1)
    assert requirements(extra).keys() == requirements("dev").keys()
    assert {str(p) for p in conda["dependencies"] if isinstance(p, str)} == {python, "pip"}


def test_every_requirement_is_pinned_inside_its_range():
    for name, requirement in requirements("dev").items():
        assert name in pins(), f"{name} has no pin"
        assert requirement.specifier.contains(pins()[name]), f"the pin {pins()[name]} lies outside {requirement}"


def test_torch_is_the_version_that_the_course_was_measured_with():
    assert pins()["torch"] == "2.13.0"


def test_make_and_conda_install_the_same_extra():
    assert "-c constraints.txt -e '.[dev]'" in (ROOT / "Makefile").read_text(encoding="utf-8")


def imported_packages(folder):
    """Top-level names that the code of a folder imports."""
    names = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names.add(node.module.split(".")[0])
    return names


def test_everything_that_the_package_imports_is_listed():
    other_names = {"PIL": "pillow", "skimage": "scikit-image", "IPython": "ipywidgets", "traitlets": "ipywidgets"}
    optional = {"psutil", "torch_xla", "torch_fidelity"}
    listed = set(requirements("course"))
    for name in imported_packages(ROOT / "fluidlab") - set(sys.stdlib_module_names) - optional - {"fluidlab"}:
        assert canonicalize_name(other_names.get(name, name)) in listed, f"fluidlab imports {name}, which is not listed"


def test_every_folder_of_the_package_is_installed():
    found = {".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "fluidlab").rglob("__init__.py")}
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == found | {"fluidlab._data"}


def test_a_wheel_carries_the_shipped_files_and_finds_them(tmp_path):
    source = tmp_path / "source"
    ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for folder in ("fluidlab", "data"):
        shutil.copytree(ROOT / folder, source / folder, ignore=ignore)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    build = "from setuptools import build_meta; print(build_meta.build_wheel('.'))"
    subprocess.run([sys.executable, "-c", build], cwd=source, check=True, capture_output=True)
    [wheel] = source.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
    shipped = {p.relative_to(source / "data") for p in (source / "data").rglob("*") if p.is_file()}
    packed = tmp_path / "installed" / "fluidlab" / "_data"
    assert {p.relative_to(packed) for p in packed.rglob("*") if p.is_file()} == shipped
    asked = "import runpy; print(runpy.run_path('fluidlab/config.py')['data_dir']())"
    environment = {key: value for key, value in os.environ.items() if key != "FLUIDLAB_DATA"}
    told = subprocess.run([sys.executable, "-c", asked], cwd=tmp_path / "installed", env=environment, check=True,
                          capture_output=True, text=True).stdout.strip()
    assert Path(told).resolve() == packed.resolve()


def test_licence_names_code_and_drawings():
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    for needed in ("MIT License", "openmoji.org", "CC BY-SA 4.0", "weights in data/"):
        assert needed in text
