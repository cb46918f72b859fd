"""From a name to a folder and from a folder to the Hub: here first, then the local cache, and only then online.

What to notice: the list of wanted files has neither pickles nor Python, so nothing that could run is ever fetched; and
every request goes through `huggingface_hub`, which knows proxies, mirrors and tokens.
"""

import re
from pathlib import Path

from fluidlab.config import data_dir
from fluidlab.publish.folder import INDEX, read_index

WANTED = ["*.json", "*.safetensors", "*.model", "*.txt", "README.md"]


def find_folder(name: str | Path, *, needs: str = INDEX, revision: str | None = None,
                cache_dir: str | Path | None = None, token: str | bool | None = None, force_download: bool = False,
                local_files_only: bool = False) -> Path:
    """The folder of a pipeline: a folder itself, a shipped one, or a Hub id's, from the cache or else from the Hub.

    Args:
        name: "runs/mine", "random-diffusion-mini" or "owner/name".  needs: the file without which it is none.
        revision, cache_dir, token: of `huggingface_hub.snapshot_download`.
        force_download: do not look into the cache.  local_files_only: never go online.

    Raises:
        ValueError: nothing of that name; the sentence lists what is shipped, or says why the Hub did not answer.
    """
    folder = Path(name) if Path(name).is_dir() else data_dir() / str(name)
    if folder.is_dir() or not re.fullmatch(r"[\w.-]+/[\w.-]+", str(name)):
        return _with(folder, needs, name)
    from huggingface_hub import snapshot_download
    download = {"revision": revision, "cache_dir": cache_dir, "token": token}
    if not force_download:
        try:
            cached = Path(snapshot_download(str(name), local_files_only=True, **download))
            if _is_whole(cached, needs):
                return cached
        except Exception as error:                                             # not in the cache: what is raised varies
            if local_files_only:
                raise _not_found(name, error) from error
    try:
        folder = Path(snapshot_download(str(name), allow_patterns=WANTED, force_download=force_download,
                                        local_files_only=local_files_only, **download))
    except Exception as error:
        raise _not_found(name, error) from error
    return _with(folder, needs, name)


def _with(folder: Path, needs: str, name) -> Path:
    if (folder / needs).is_file():
        return folder
    shipped = sorted(p.parent.name for p in data_dir().glob(f"*/{INDEX}"))
    raise ValueError(f"{str(name)!r} is neither a folder with a {needs} nor a shipped model; "
                     f"shipped are: {', '.join(shipped) or 'none'}.")


def _not_found(name, error: Exception) -> ValueError:
    cause = " ".join(str(error).split())[:300]
    return ValueError(f"the pipeline {str(name)!r} is neither a folder, nor shipped, nor whole in the local Hugging "
                      f"Face cache, and loading it online failed ({type(error).__name__}: {cause}); check the name, or "
                      f"go online once with `hf download {name}`, or give the folder of a copy.")


def _is_whole(folder: Path, needs: str) -> bool:
    files = [needs, str(Path(needs).with_name("model.safetensors"))]
    if (folder / INDEX).is_file():
        files += read_index(folder)["sha256"]
    return all((folder / file).is_file() for file in files)


def upload(folder: Path, repo_id: str, *, commit_message: str, private: bool | None = None, token: str | None = None,
           create_pr: bool = False, subfolder: str | None = None) -> str:
    """Put a saved pipeline on the Hub; a card that is there already, perhaps edited by hand, is kept.

    Returns:
        the commit's address.
    """
    from huggingface_hub import HfApi
    api = HfApi(token=token)
    repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
    card = "README.md" if subfolder is None else f"{subfolder}/README.md"
    kept = ["README.md"] if api.file_exists(repo_id, card) else None
    return api.upload_folder(repo_id=repo_id, folder_path=folder, commit_message=commit_message, create_pr=create_pr,
                             path_in_repo=subfolder, ignore_patterns=kept)
