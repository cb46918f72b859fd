"""Installs what the course lacks on a machine that already has torch and numpy (Colab, Kaggle), and leaves those alone.

Standard library only, because it runs before anything is installed. Called by each notebook's set-up cell.
"""

import subprocess
import sys
import tempfile
import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
UNTOUCHED = ("torch", "numpy")


def package_name(requirement):
    """The package that a requirement such as "torch>=2.9" names."""
    return requirement.replace(">", "=").replace("<", "=").replace("[", "=").split("=")[0].strip()


def installed_version(name):
    """The installed version, or None."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def missing_requirements(requirements):
    """The requirements whose package is absent, without those that stay untouched.

    Raises:
        RuntimeError: if a package that stays untouched is absent.
    """
    absent = [requirement for requirement in requirements if installed_version(package_name(requirement)) is None]
    needed = [package_name(requirement) for requirement in absent if package_name(requirement) in UNTOUCHED]
    if needed:
        raise RuntimeError(f"This machine has no {' and no '.join(needed)}; set the course up as its README says.")
    return absent


def main():
    requirements = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    wanted = missing_requirements(requirements)
    if not wanted:
        return
    with tempfile.TemporaryDirectory() as folder:
        pins = Path(folder) / "constraints.txt"
        pins.write_text("".join(f"{name}=={installed_version(name)}\n" for name in UNTOUCHED), encoding="utf-8")
        print("installing", ", ".join(wanted))
        subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "-c", str(pins), *wanted], check=True)


if __name__ == "__main__":
    main()
