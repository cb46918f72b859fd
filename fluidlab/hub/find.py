"""From a name to a folder on this disk, the same way for tokenizers and text encoders.

A name is shipped, or a folder, or an address on the hub: "owner/name", "owner/name/sub/folder", and either with
"@revision" behind it. Only configurations, tokenizer files and safetensors are ever fetched; what is in the local cache
and complete is used without asking the hub, also where the hub has something newer: pin a revision to know what you
have. This file does not know what a model is, only which files one needs.
"""

import json
import warnings
from dataclasses import dataclass
from pathlib import Path

from fluidlab.config import data_dir
from fluidlab.hub.failures import hub_failure

WEIGHTS = ("model", "diffusion_pytorch_model")                # as transformers and as diffusers call them
PARTS = ("*.json", "spiece.model", *(f"{stem}*.safetensors" for stem in WEIGHTS))
PARTS_NOT = ("*.fp16.safetensors", "*.bf16.safetensors", "*.non_ema.safetensors", "*.fp16-*", "*.bf16-*")  # duplicates
PIPELINE = "model_index.json"                                 # at the root of a diffusers pipeline: its parts by class
CONVERTER, CONVERTED = "SFconvertbot", "refs/pr/"             # the hub's own robot, which proposes safetensors
UNSAFE = (".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".pkl")


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is looked for: `what` to call it, the names that are shipped, and how a pipeline lists it."""

    what: str
    shipped: tuple[str, ...]
    classes: tuple[str, ...]


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


def can_only_be_a_path(name: str | Path) -> bool:
    """Whether a name cannot be an address on the hub."""
    return Path(name).is_absolute() or str(name).startswith((".", "~", "@")) or "\\" in str(name)


def find_model(name: str | Path, wanted: Wanted, *, subfolder: str | None = None, revision: str | None = None,
               cache_dir: str | Path | None = None) -> Path:
    """The folder that holds a model's config.json and safetensors.

    Args:
        name: a shipped name, a folder, or an address on the hub.
        wanted: what to look for.
        subfolder: inside the folder or repository. Left out, a diffusers pipeline's part of a wanted class is found.
        revision: branch, tag or commit; None for "main".
        cache_dir: another cache than that of Hugging Face.

    Raises:
        ValueError: it is nowhere, cannot be fetched, or lacks a file; one sentence with name, cause and remedy.

    Warns:
        UserWarning: "main" has no safetensors, and those that the hub's own converter proposed are used.
    """
    if not isinstance(name, str | Path) or not str(name).strip():
        raise ValueError(f"A {wanted.what} is named by a shipped name, a folder or a Hugging Face id, got {name!r}.")
    here = data_dir() / name if str(name) in wanted.shipped else Path(name).expanduser()
    if here.is_dir():
        return _in_folder(here, wanted, subfolder, revision)
    if can_only_be_a_path(name):
        raise ValueError(f"The {wanted.what} {str(name)!r} cannot be loaded, because there is no such folder: give one "
                         f"of {', '.join(wanted.shipped)}, an existing folder or a Hugging Face id.")
    repo, subfolder, revision = split_name(str(name), subfolder, revision)
    source = _Hub(str(name), wanted, repo, revision, cache_dir)
    if subfolder is None:
        root = source.snapshot(None)
        subfolder = _part_of_pipeline(root, wanted)
        if subfolder is None:
            return root
    return source.snapshot(subfolder) / subfolder


def missing_file(folder: Path) -> str | None:
    """What a model's folder lacks, in words, or None if it has all its files."""
    if not (folder / "config.json").is_file():
        return "config.json"
    for stem in WEIGHTS:
        index = folder / f"{stem}.safetensors.index.json"
        if index.is_file():
            shards = sorted(set(read_json(index).get("weight_map", {}).values()))
            return next((shard for shard in shards if not (folder / shard).is_file()), None)
        if (folder / f"{stem}.safetensors").is_file():
            return None
    unsafe = sorted(path.name for path in folder.iterdir() if path.suffix in UNSAFE)
    return f"weights as safetensors ({', '.join(unsafe)} would have to be unpickled)" if unsafe else (
        "weights as safetensors")


def read_json(path: Path) -> dict:
    """A JSON object from a file; `ValueError` with its name if it is none."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read as JSON ({error}): fetch or write it again.") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path} holds a {type(values).__name__}, but must hold a JSON object.")
    return values


def _in_folder(here: Path, wanted: Wanted, subfolder: str | None, revision: str | None) -> Path:
    if revision is not None:
        raise ValueError(f"{str(here)!r} is a folder and has no revisions, got revision {revision!r}; leave it out.")
    subfolder = subfolder or _part_of_pipeline(here, wanted)
    folder = here / subfolder if subfolder else here
    lacks = missing_file(folder)
    if lacks:
        raise ValueError(f"The {wanted.what} {str(folder)!r} cannot be loaded, because it lacks {lacks}: give a folder "
                         f"that `save_pretrained` wrote, or one of {', '.join(wanted.shipped)}.")
    return folder


def _part_of_pipeline(root: Path, wanted: Wanted) -> str | None:
    """The sub-folder of a diffusers pipeline that holds a part of a wanted class; None if `root` is no pipeline."""
    if (root / "config.json").is_file() or not (root / PIPELINE).is_file():
        return None
    parts = read_json(root / PIPELINE)
    found = [name for name, made in parts.items() if isinstance(made, list) and made[-1] in wanted.classes]
    if len(found) != 1:
        raise ValueError(f"The pipeline {str(root)!r} has {len(found)} parts that can be a {wanted.what} "
                         f"({', '.join(found) or 'none of ' + ', '.join(wanted.classes)}); name one with subfolder=.")
    return found[0]


@dataclass(frozen=True)
class _Hub:
    """One repository, looked for in the local cache first and then online."""

    name: str
    wanted: Wanted
    repo: str
    revision: str | None
    cache_dir: str | Path | None

    def snapshot(self, subfolder: str | None) -> Path:
        """The folder of a snapshot in which the files of the sub-folder (or of the root) are complete."""
        cached = self._cached(subfolder, self.revision)
        if cached is None and self.revision is None:
            cached = next(filter(None, (self._cached(subfolder, ref) for ref in self._converted_here())), None)
        return cached or self._fetched(subfolder)

    def _cached(self, subfolder: str | None, revision: str | None) -> Path | None:
        try:
            root = self._download(subfolder, revision, local_files_only=True)
        except Exception:                                      # not in the cache: what is raised varies by version
            return None
        if _lacks(root, subfolder):
            return None
        if revision != self.revision:
            self._say_converted(revision)
        return root

    def _fetched(self, subfolder: str | None) -> Path:
        try:
            root = self._download(subfolder, self.revision)
            lacks = _lacks(root, subfolder)
            converted = self._converted_online() if lacks and "safetensors" in lacks else None
            if converted is not None:
                root = self._download(subfolder, converted)
                lacks = _lacks(root, subfolder)
        except Exception as error:                             # what clients raise varies, and all of it ends here
            raise self.failure(error) from error
        if lacks:
            raise ValueError(
                f"The {self.wanted.what} {self.name!r} cannot be loaded, because its revision "
                f"{self.revision or 'main'!r} lacks {'/'.join(filter(None, (subfolder, lacks)))}: pin a revision that "
                f"has it, name another repository or sub-folder, or convert it once with `save_pretrained` and give "
                f"the folder.")
        if converted is not None:
            self._say_converted(converted)
        return root

    def failure(self, error: BaseException) -> ValueError:
        from huggingface_hub import constants
        return hub_failure(error, self.wanted.what, self.name, repo=self.repo, revision=self.revision,
                           shipped=self.wanted.shipped, cache=str(self.cache_dir or constants.HF_HUB_CACHE))

    def _download(self, subfolder: str | None, revision: str | None, **options) -> Path:
        import huggingface_hub  # half a second to import: only for what is not here
        inside = f"{subfolder}/" if subfolder else ""
        wanted = [inside + part for part in PARTS]
        if subfolder:                                          # a pipeline keeps the two halves of an encoder apart
            wanted += [PIPELINE, *(subfolder.replace("text_encoder", "tokenizer") + f"/{part}" for part in PARTS)]
        unwanted = [*PARTS_NOT] if subfolder else [*PARTS_NOT, "*/*"]
        return Path(huggingface_hub.snapshot_download(self.repo, revision=revision, cache_dir=self.cache_dir,
                                                      allow_patterns=wanted, ignore_patterns=unwanted, **options))

    def _converted_online(self) -> str | None:
        """The revision in which the hub's converter proposed safetensors, if nobody pinned another."""
        import huggingface_hub
        if self.revision is not None:
            return None
        proposals = huggingface_hub.get_repo_discussions(repo_id=self.repo)
        return next((f"{CONVERTED}{one.num}" for one in proposals
                     if one.is_pull_request and one.author == CONVERTER and one.status != "closed"), None)

    def _converted_here(self) -> list[str]:
        """Revisions of proposals that are in the local cache."""
        from huggingface_hub import constants
        cache = Path(self.cache_dir or constants.HF_HUB_CACHE)
        refs = cache / f"models--{self.repo.replace('/', '--')}" / "refs"
        return sorted(path.relative_to(refs).as_posix() for path in refs.glob(f"{CONVERTED}*"))

    def _say_converted(self, revision: str) -> None:
        warnings.warn(f"The {self.wanted.what} {self.name!r} has no safetensors in its main revision; those that the "
                      f"hub's converter proposed are used. Write {self.repo}@{revision} to pin them.", stacklevel=6)


def _lacks(root: Path, subfolder: str | None) -> str | None:
    if subfolder is None and (root / PIPELINE).is_file() and not (root / "config.json").is_file():
        return None                                            # a pipeline's root: its parts are folders
    return missing_file(root / (subfolder or ""))
