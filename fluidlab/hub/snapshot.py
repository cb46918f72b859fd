"""One repository of the hub: its files on this disk, from the local cache first and then online.

What is in the cache and complete is used without asking the hub, also where the hub has something newer: pin a
revision to know what you have. Where "main" has only weights to unpickle, the safetensors that the hub's own converter
proposed are taken.
"""

import warnings
from dataclasses import dataclass
from pathlib import Path

from fluidlab.hub.failures import hub_failure
from fluidlab.hub.files import Wanted

PARTS_NOT = ("*.fp16.safetensors", "*.bf16.safetensors", "*.non_ema.safetensors", "*.fp16-*", "*.bf16-*")  # duplicates
PIPELINE = "model_index.json"                                 # at the root of a diffusers pipeline: its parts by class
ANSWER_WITHIN = 10.0                                          # seconds, for one question
CONVERTER, CONVERTED = "SFconvertbot", "refs/pr/"             # the hub's own robot, which proposes safetensors


def ask_hub(repo: str, revision: str | None = None, *, kind: str = "model", token: str | bool | None = None) -> str:
    """The present commit of a repository, from the hub and not from the local cache; raises what the client raises."""
    from huggingface_hub import HfApi
    return HfApi(token=token).repo_info(repo, revision=revision, repo_type=kind, timeout=ANSWER_WITHIN).sha


@dataclass(frozen=True, kw_only=True)
class Repository:
    """Where something wanted may be on the hub.

    Args:
        name: what the user gave, for messages.  repo, revision: what that means on the hub.
        cache_dir, token, force_download, local_files_only: of `huggingface_hub.snapshot_download`.
    """

    name: str
    wanted: Wanted
    repo: str
    revision: str | None = None
    cache_dir: str | Path | None = None
    token: str | bool | None = None
    force_download: bool = False
    local_files_only: bool = False

    def snapshot(self, subfolder: str | None) -> Path:
        """The folder of a snapshot in which the files of the sub-folder (or of the root) are complete.

        Raises:
            ValueError: there is none; one sentence with name, cause and remedy.
        """
        cached = None
        if self.local_files_only or not self.force_download:
            cached = self._cached(subfolder, self.revision)
            if cached is None and self.revision is None:
                cached = next(filter(None, (self._cached(subfolder, ref) for ref in self._converted_here())), None)
        return cached or self._fetched(subfolder)

    def _cached(self, subfolder: str | None, revision: str | None) -> Path | None:
        try:
            root = self._download(subfolder, revision, local_files_only=True)
        except Exception:                                      # not in the cache: what is raised varies by version
            return None
        if self._lacks(root, subfolder) or not self._is_whole(root, subfolder):
            return None
        if revision != self.revision:
            self._say_converted(revision)
        return root

    def _fetched(self, subfolder: str | None) -> Path:
        if self.local_files_only:
            from huggingface_hub.errors import OfflineModeIsEnabled
            raise self.failure(OfflineModeIsEnabled(), offline="local_files_only")
        try:
            root = self._download(subfolder, self.revision, force_download=self.force_download)
            lacks = self._lacks(root, subfolder)
            if lacks or not self._is_whole(root, subfolder):   # without a network what is here is given, unfinished
                ask_hub(self.repo, self.revision, token=self.token)
            converted = self._converted_online() if lacks and lacks.startswith("weights") else None
            if converted is not None:
                root = self._download(subfolder, converted)
                lacks = self._lacks(root, subfolder)
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

    def failure(self, error: BaseException, **options) -> ValueError:
        from huggingface_hub import constants
        return hub_failure(error, self.wanted.what, self.name, repo=self.repo, revision=self.revision,
                           shipped=self.wanted.shipped, cache=str(self.cache_dir or constants.HF_HUB_CACHE), **options)

    def _lacks(self, root: Path, subfolder: str | None) -> str | None:
        return None if self._is_root(root, subfolder) else self.wanted.lacks(root / (subfolder or ""))

    def _is_whole(self, root: Path, subfolder: str | None) -> bool:
        return self._is_root(root, subfolder) or self.wanted.is_whole(root / (subfolder or ""))

    def _is_root(self, root: Path, subfolder: str | None) -> bool:
        """Whether this is the root of a pipeline, whose parts are folders."""
        return bool(subfolder is None and self.wanted.classes and (root / PIPELINE).is_file()
                    and not (root / "config.json").is_file())

    def _download(self, subfolder: str | None, revision: str | None, **options) -> Path:
        import huggingface_hub  # half a second to import: only for what is not here
        inside = f"{subfolder}/" if subfolder else ""
        wanted = [inside + part for part in self.wanted.parts]
        if subfolder:                                          # a pipeline keeps the two halves of an encoder apart
            beside = subfolder.replace("text_encoder", "tokenizer")
            wanted += [PIPELINE, *(f"{beside}/{part}" for part in self.wanted.parts)]
        unwanted = [*PARTS_NOT] if subfolder or self.wanted.deep else [*PARTS_NOT, "*/*"]
        return Path(huggingface_hub.snapshot_download(self.repo, revision=revision, cache_dir=self.cache_dir,
                                                      token=self.token, allow_patterns=wanted,
                                                      ignore_patterns=unwanted, **options))

    def _converted_online(self) -> str | None:
        """The revision in which the hub's converter proposed safetensors, if nobody pinned another."""
        import huggingface_hub
        if self.revision is not None:
            return None
        proposals = huggingface_hub.get_repo_discussions(repo_id=self.repo, token=self.token)
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
