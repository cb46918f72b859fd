"""From a name to a pipeline's folder, as `hub/` finds everything, and from a folder to the Hub.

What to notice: the list of wanted files has neither pickles nor Python, so nothing that could run is ever fetched; and
every request goes through `huggingface_hub`, which knows proxies, mirrors and tokens.
"""

from pathlib import Path

from fluidlab.hub import Wanted, find_model, hub_failure
from fluidlab.publish.folder import INDEX, read_index, shipped_pipelines

SENT = {"model": "pipeline", "dataset": "token cache"}
WANTED = ("*.json", "*.safetensors", "*.model", "*.txt", "README.md")


def find_pipeline(name: str | Path, **download) -> Path:
    """The folder of a pipeline: a shipped one, a folder itself, or a Hub id's, from the cache or else from the Hub.

    Args:
        name: "random-diffusion-mini", "runs/mine" or "owner/name", with "@revision" behind it to pin it.
        download: revision, cache_dir, token, force_download, local_files_only, as of `find_model`.

    Raises:
        ValueError: nothing of that name; the sentence lists what is shipped, or says why the Hub did not answer.
    """
    return find_model(name, Wanted(what="pipeline", shipped=shipped_pipelines(), lacks=_lacks, is_whole=_is_whole,
                                   parts=WANTED, deep=True), **download)


def _lacks(folder: Path) -> str | None:
    """Of a folder only its index is asked for: parts may be given in place of its own."""
    return None if (folder / INDEX).is_file() else INDEX


def _is_whole(folder: Path) -> bool:
    files = ("config.json", "model.safetensors", *read_index(folder)["sha256"])
    return all((folder / file).is_file() for file in files)


def upload(folder: Path, repo_id: str, *, commit_message: str, private: bool | None = None, token: str | None = None,
           create_pr: bool = False, subfolder: str | None = None, repo_type: str = "model") -> str:
    """Put a saved pipeline, or as a "dataset" a token cache, on the Hub; a card that is there already, perhaps edited
    by hand, is kept.

    Returns:
        the commit's address.

    Raises:
        ValueError: the Hub cannot be reached, or does not let you.
    """
    from huggingface_hub import HfApi
    api = HfApi(token=token)
    card = "README.md" if subfolder is None else f"{subfolder}/README.md"
    try:
        place = api.create_repo(repo_id, private=private, exist_ok=True, repo_type=repo_type).repo_id
        kept = ["README.md"] if api.file_exists(place, card, repo_type=repo_type) else None
        return api.upload_folder(repo_id=place, folder_path=folder, commit_message=commit_message, create_pr=create_pr,
                                 path_in_repo=subfolder, ignore_patterns=kept, repo_type=repo_type)
    except Exception as error:                                 # what clients raise varies, and all of it ends here
        raise hub_failure(error, SENT[repo_type], repo_id, kind=repo_type, done="sent") from error
