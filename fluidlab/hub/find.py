"""From a name to a folder on this disk, the same way for everything: tokenizers, text encoders, judges, pipelines.

A name is shipped, or a folder, or an address on the hub: "owner/name", "owner/name/sub/folder", and either with
"@revision" behind it. Only configurations, tokenizer files and safetensors are ever fetched. What a repository does
with its revisions and the local cache stands in snapshot.py.
"""

import os
from pathlib import Path

from fluidlab.config import data_dir, short
from fluidlab.hub.failures import hub_failure
from fluidlab.hub.files import Wanted, read_json
from fluidlab.hub.snapshot import PIPELINE, Repository, ask_hub

LONGEST = 4096           # characters of a name: of a path on every system


def split_name(name: str, subfolder: str | None = None,
               revision: str | None = None) -> tuple[str, str | None, str | None]:
    """Take "owner/name/sub/folder@revision" apart into repository, sub-folder and revision.

    Raises:
        ValueError: a sub-folder or revision is given twice and differently.
    """
    path, _, pinned = name.partition("@")
    parts = path.strip("/").split("/")
    inside = "/".join(parts[2:])
    for kind, first, second in (("sub-folder", inside, subfolder), ("revision", pinned, revision)):
        if first and second and first != second:
            raise ValueError(f"{name!r} names the {kind} {first!r}, but {second!r} is given too; give one of them.")
    return "/".join(parts[:2]), inside or subfolder, pinned or revision


def as_path(name: str | Path) -> Path:
    """A name as a path, ~ as the home folder; one of nobody's stays as it is, and then does not exist."""
    return Path(os.path.expanduser(name))


def can_only_be_a_path(name: str | Path) -> bool:
    """Whether a name cannot be an address on the hub."""
    return Path(name).is_absolute() or str(name).startswith((".", "~", "@")) or "\\" in str(name)


def find_model(name: str | Path, wanted: Wanted, *, subfolder: str | None = None, revision: str | None = None,
               cache_dir: str | Path | None = None, token: str | bool | None = None, force_download: bool = False,
               local_files_only: bool = False) -> Path:
    """The folder that holds what is wanted.

    Args:
        name: a shipped name, a folder, or an address on the hub.
        wanted: what to look for.
        subfolder: inside the folder or repository. Left out, a diffusers pipeline's part of a wanted class is found.
        revision: branch, tag or commit; None for "main".
        cache_dir: another cache than that of Hugging Face.
        token: of `huggingface_hub`.  force_download: do not look into the cache.  local_files_only: never go online.

    Raises:
        ValueError: it is nowhere, cannot be fetched, or lacks a file; one sentence with name, cause and remedy.

    Warns:
        UserWarning: "main" has no safetensors, and those that the hub's own converter proposed are used.
    """
    if not isinstance(name, str | Path) or not str(name).strip() or len(str(name)) > LONGEST:
        raise ValueError(f"A {wanted.what} is named by a shipped name, a folder or a Hugging Face id, got "
                         f"{short(name)}.")
    here = data_dir() / name if str(name) in wanted.shipped else as_path(name)
    if _is_folder(here):
        return _in_folder(here, wanted, subfolder, revision)
    if can_only_be_a_path(name):
        raise ValueError(f"The {wanted.what} {str(name)!r} cannot be loaded, because there is no such folder: give an "
                         f"existing folder or a Hugging Face id{wanted.instead}.")
    repo, subfolder, revision = split_name(str(name), subfolder, revision)
    source = Repository(name=str(name), wanted=wanted, repo=repo, revision=revision, cache_dir=cache_dir, token=token,
                        force_download=force_download, local_files_only=local_files_only)
    if subfolder is None:
        root = source.snapshot(None)
        subfolder = _part_of_pipeline(root, wanted)
        if subfolder is None:
            return root
    return source.snapshot(subfolder) / subfolder


def reach(name: str, kind: str = "model") -> str | None:
    """Ask the hub, and not the local cache, for a repository.

    Args:
        name: an address as in `find_model`; a folder is asked nothing.  kind: "model" or "dataset".

    Returns:
        its present commit; None for a folder.

    Raises:
        ValueError: it cannot be reached, in the sentence of every other failure.
    """
    if Path(name).is_dir():
        return None
    repo, _, revision = split_name(name)
    try:
        return ask_hub(repo, revision, kind=kind)
    except Exception as error:                                 # what clients raise varies, and all of it ends here
        what = {"dataset": "data set"}.get(kind, kind)
        raise hub_failure(error, what, name, repo=repo, revision=revision, kind=kind) from error


def _is_folder(path: Path) -> bool:
    """Whether it is one; a name that no folder can have is none."""
    try:
        return path.is_dir()
    except OSError:
        return False


def _in_folder(here: Path, wanted: Wanted, subfolder: str | None, revision: str | None) -> Path:
    if revision is not None:
        raise ValueError(f"{str(here)!r} is a folder and has no revisions, got revision {revision!r}; leave it out.")
    subfolder = subfolder or _part_of_pipeline(here, wanted)
    folder = here / subfolder if subfolder else here
    lacks = wanted.lacks(folder)
    if lacks:
        raise ValueError(f"The {wanted.what} {str(folder)!r} cannot be loaded, because it lacks {lacks}: give a folder "
                         f"that `save_pretrained` wrote{wanted.instead}.")
    return folder


def _part_of_pipeline(root: Path, wanted: Wanted) -> str | None:
    """The sub-folder of a diffusers pipeline that holds a part of a wanted class; None if `root` is no pipeline."""
    if not wanted.classes or (root / "config.json").is_file() or not (root / PIPELINE).is_file():
        return None
    parts = read_json(root / PIPELINE)
    found = [name for name, made in parts.items() if isinstance(made, list) and made and made[-1] in wanted.classes]
    if len(found) != 1:
        raise ValueError(f"The pipeline {str(root)!r} has {len(found)} parts that can be a {wanted.what} "
                         f"({', '.join(found) or 'none of ' + ', '.join(wanted.classes)}); name one with subfolder=.")
    return found[0]
