"""One way from a name to a folder: shipped, folder, local cache, hub; and each failure is one sentence that helps."""

import errno
import json
import socket
import ssl
import warnings
from types import SimpleNamespace
from urllib.error import HTTPError, URLError

import huggingface_hub
import pytest
from hub_cache import COMMIT, answer, put_into_cache
from huggingface_hub import constants, errors
from huggingface_hub.utils import httpx

from fluidlab.config import data_dir
from fluidlab.hub import Wanted, find_model, has_tokenizer, hub_failure, reach, split_name

WANTED = Wanted(what="tokenizer", shipped=("scenes-vae",), classes=("AutoencoderKL",))
REPO = "someone/a-vae"


def whole(folder):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text("{}")
    (folder / "diffusion_pytorch_model.safetensors").touch()


def sharded(folder):
    whole(folder)
    (folder / "diffusion_pytorch_model.safetensors").rename(folder / "part-1.safetensors")
    index = {"weight_map": {"a": "part-1.safetensors", "b": "part-2.safetensors"}}
    (folder / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))


def unsafe(folder):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text("{}")
    (folder / "pytorch_model.bin").touch()


def pipeline(folder):
    (folder / "model_index.json").write_text(json.dumps({
        "_class_name": "SomePipeline", "vae": ["diffusers", "AutoencoderKL"], "unet": ["diffusers", "UNet"],
        "half": [None, None], "scale": 2}))
    whole(folder / "vae")


@pytest.fixture
def hub(monkeypatch):
    """A hub that answers a request with what it is told, and keeps the requests."""
    state = SimpleNamespace(raises=None, fill=None, asked=[], cache=None)
    real = huggingface_hub.snapshot_download

    def download(repo, *, local_files_only=False, **options):
        if local_files_only:
            return real(repo, local_files_only=True, **options)
        state.asked.append((repo, options["revision"], tuple(options["allow_patterns"]), options["ignore_patterns"]))
        if state.raises is not None:
            raise state.raises
        revision = options["revision"] or "main"
        return put_into_cache(state.cache, repo, state.fill(revision), revision, f"{len(state.asked):040x}")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    monkeypatch.setattr(huggingface_hub.HfApi, "repo_info", lambda api, repo, **_: SimpleNamespace(sha=COMMIT))
    return state


def test_shipped_names_come_before_folders_and_folders_before_the_hub(tmp_path, monkeypatch, hub):
    monkeypatch.chdir(tmp_path)
    whole(tmp_path / "scenes-vae"), whole(tmp_path / "someone" / "a-vae")
    assert find_model("scenes-vae", WANTED) == data_dir() / "scenes-vae"
    assert find_model(REPO, WANTED).resolve() == tmp_path / "someone" / "a-vae"
    assert hub.asked == []


@pytest.mark.parametrize("given", [{}, {"revision": "main"}, {"revision": COMMIT}])
def test_what_is_in_the_local_cache_and_complete_is_used_without_asking(given, tmp_path, hub):
    snapshot = put_into_cache(tmp_path, REPO, whole)
    assert find_model(REPO, WANTED, cache_dir=tmp_path, **given) == snapshot and hub.asked == []


def test_the_cache_is_that_of_hf_home(tmp_path, monkeypatch, hub):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))      # what HF_HOME sets when the process starts
    snapshot = put_into_cache(tmp_path, REPO, whole)
    assert find_model(REPO, WANTED) == snapshot and hub.asked == []


def test_revisions_and_sub_folders_in_the_name(tmp_path, hub):
    old = put_into_cache(tmp_path, REPO, lambda folder: whole(folder / "first" / "vae"), "v1.0", "1" * 40)
    new = put_into_cache(tmp_path, REPO, whole)
    assert find_model(f"{REPO}/first/vae@v1.0", WANTED, cache_dir=tmp_path) == old / "first" / "vae"
    assert find_model(REPO, WANTED, subfolder="first/vae", revision="v1.0", cache_dir=tmp_path) == old / "first" / "vae"
    assert find_model(REPO, WANTED, cache_dir=tmp_path) == new and hub.asked == []
    assert split_name("a/b/c/d@e") == ("a/b", "c/d", "e") and split_name("gpt2") == ("gpt2", None, None)
    with pytest.raises(ValueError, match="names the revision 'v1', but 'v2' is given too"):
        split_name("a/b@v1", revision="v2")


def test_a_pipeline_gives_its_part_in_a_folder_and_in_the_cache(tmp_path, hub):
    root = put_into_cache(tmp_path, REPO, pipeline)
    assert find_model(root, WANTED) == root / "vae" == find_model(REPO, WANTED, cache_dir=tmp_path)
    assert hub.asked == []
    other = Wanted(what="text encoder", shipped=(), classes=("T5EncoderModel",))
    with pytest.raises(ValueError, match="has 0 parts that can be a text encoder .none of T5EncoderModel.; name one"):
        find_model(REPO, other, cache_dir=tmp_path)


def test_only_what_is_needed_is_fetched_and_an_unfinished_download_is_finished(tmp_path, hub):
    put_into_cache(tmp_path, REPO, sharded)                             # part 2 has not come
    hub.cache, hub.fill = tmp_path, lambda revision: whole
    found = find_model(REPO, WANTED, cache_dir=tmp_path)
    assert (found / "diffusion_pytorch_model.safetensors").exists()
    [(repo, revision, parts, unwanted)] = hub.asked
    assert repo == REPO and revision is None and "*/*" in unwanted
    assert not [part for part in parts if part.endswith((".bin", ".pt", "*")) or part == "*.safetensors"]


def test_a_part_is_fetched_with_what_belongs_to_it(tmp_path, hub):
    hub.cache, hub.fill = tmp_path, lambda revision: lambda folder: whole(folder / "text_encoder_2")
    assert find_model(f"{REPO}/text_encoder_2@v1", WANTED, cache_dir=tmp_path).name == "text_encoder_2"
    [(_, revision, parts, unwanted)] = hub.asked
    assert revision == "v1" and "*/*" not in unwanted
    assert {"model_index.json", "text_encoder_2/*.json", "tokenizer_2/spiece.model"} <= set(parts)
    assert all(part.startswith(("text_encoder_2/", "tokenizer_2/", "model_index")) for part in parts)


def test_safetensors_that_the_hubs_own_converter_proposed(tmp_path, hub, monkeypatch):
    """As for google/t5-v1_1-xxl, whose main revision has only files to unpickle."""
    proposals = [SimpleNamespace(num=1, is_pull_request=True, author="a stranger", status="open"),
                 SimpleNamespace(num=3, is_pull_request=True, author="SFconvertbot", status="open")]
    monkeypatch.setattr(huggingface_hub, "get_repo_discussions", lambda repo_id, token: iter(proposals))
    hub.cache, hub.fill = tmp_path, lambda revision: whole if revision == "refs/pr/3" else unsafe
    with pytest.warns(UserWarning, match=rf"no safetensors in its main revision; .* Write {REPO}@refs/pr/3 to pin"):
        found = find_model(REPO, WANTED, cache_dir=tmp_path)
    assert [asked[1] for asked in hub.asked] == [None, "refs/pr/3"]
    with pytest.warns(UserWarning, match="refs/pr/3"):                   # and the next time from the cache
        assert find_model(REPO, WANTED, cache_dir=tmp_path) == found and len(hub.asked) == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert find_model(f"{REPO}@refs/pr/3", WANTED, cache_dir=tmp_path) == found


@pytest.mark.parametrize("given", [{}, {"revision": "v2"}])
def test_no_safetensors_anywhere(given, tmp_path, hub, monkeypatch):
    monkeypatch.setattr(huggingface_hub, "get_repo_discussions", lambda repo_id, token: iter(()))
    hub.cache, hub.fill = tmp_path, lambda revision: unsafe
    with pytest.raises(ValueError, match=f"because its revision '{given.get('revision', 'main')}' lacks weights as "
                                         "safetensors .pytorch_model.bin would have to be unpickled.: pin a revision"):
        find_model(REPO, WANTED, cache_dir=tmp_path, **given)


def proxy():
    return httpx.ProxyError("407 Proxy Authentication Required")


def no_network():
    """As snapshot_download raises it: wrapped, the client's own exception as the cause."""
    try:
        raise errors.LocalEntryNotFoundError("cannot find it") from httpx.ConnectError("[Errno -2] Name not known")
    except errors.LocalEntryNotFoundError as error:
        return error


def certificate():
    try:
        raise httpx.ConnectError("[SSL]") from ssl.SSLCertVerificationError("self-signed certificate in chain")
    except httpx.ConnectError as error:
        return error


@pytest.mark.parametrize("raised, sentence", [
    (proxy(), r"the proxy on the way to the hub refuses \(ProxyError: 407 .*\): set HTTPS_PROXY .*`hf download "
              rf"{REPO} --revision v1`"),
    (no_network(), r"the hub at https://huggingface.co cannot be reached \(ConnectError: .*Name not known\): check"),
    (httpx.ReadTimeout("timed out"), r"cannot be reached \(ReadTimeout: timed out\)"),
    (ConnectionResetError("reset"), r"cannot be reached \(ConnectionResetError: reset\)"),
    (certificate(), r"certificate cannot be verified \(SSLCertVerificationError: .*\): .* set SSL_CERT_FILE"),
    (errors.RepositoryNotFoundError("404", response=answer(404)),
     rf"knows no model of this name that you may read: check the spelling at https://huggingface.co/{REPO}; if it is"),
    (errors.GatedRepoError("403", response=answer(403)),
     rf"its repository is gated: accept its terms at https://huggingface.co/{REPO}, log in with `hf auth login`"),
    (errors.RevisionNotFoundError("404", response=answer(404)), r"it has no revision 'v1': give a branch, a tag or"),
    (errors.DisabledRepoError("403", response=answer(403)), "its repository has been disabled by the hub"),
    (errors.HfHubHTTPError("slow down", response=answer(503)), r"the hub answered with status 503 .*: try again in a"),
    (errors.HfHubHTTPError("who?", response=answer(401)), r"answered with status 401 .*: log in with `hf auth login`"),
    (OSError(errno.ENOSPC, "No space left on device"), "the disk is full: make room, or set HF_HOME"),
    (RuntimeError("something\n  new."), r"of RuntimeError: something new: mend what it names, or give the folder"),
], ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "")
def test_every_failure_is_one_sentence(raised, sentence, tmp_path, hub):
    hub.raises = raised
    whole_sentence = rf"^The tokenizer '{REPO}@v1' cannot be loaded, because .*{sentence}"
    with pytest.raises(ValueError, match=whole_sentence) as caught:
        find_model(f"{REPO}@v1", WANTED, cache_dir=tmp_path)
    assert "\n" not in str(caught.value) and str(caught.value).endswith(".") and caught.value.__cause__ is raised


def test_offline_and_not_in_the_cache(tmp_path, monkeypatch):
    """Nothing is simulated here: huggingface_hub itself refuses to go online."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match=rf"neither shipped .scenes-vae. nor a folder here nor complete in the local "
                                         rf"cache {tmp_path}, and HF_HUB_OFFLINE forbids .* `hf download {REPO}`"):
        find_model(REPO, WANTED, cache_dir=tmp_path)
    put_into_cache(tmp_path, REPO, sharded)
    with pytest.raises(ValueError, match="nor complete in the local cache"):
        find_model(REPO, WANTED, cache_dir=tmp_path)


@pytest.mark.parametrize("name, sentence", [
    ("./nowhere", "'./nowhere' cannot be loaded, because there is no such folder: give an existing folder or a Hugging "
     "Face id, or one of scenes-vae"),
    ("/no/where", "there is no such folder"), ("~/no-where-at-all", "there is no such folder"),
    ("~no-such-user/vae", "'~no-such-user/vae' cannot be loaded, because there is no such folder"),
    ("C:\\models\\vae", "there is no such folder"), ("two words/and more", "no name that the hub could have: give an"),
    ("", "is named by a shipped name, a folder or a Hugging Face id, got ''"), (None, "id, got None"), (3, "id, got 3"),
])
def test_names_that_cannot_be(name, sentence, tmp_path):
    with pytest.raises(ValueError, match=sentence.replace("\\", r"\\")):
        find_model(name, WANTED, cache_dir=tmp_path)


def test_folders_that_lack_something(tmp_path):
    for number, (fill, sentence) in enumerate((
            (lambda folder: folder.mkdir(), "lacks config.json: give a folder that `save_pretrained` wrote"),
            (sharded, "lacks part-2.safetensors"), (unsafe, "safetensors .pytorch_model.bin would have to be unpick"))):
        fill(tmp_path / str(number))
        with pytest.raises(ValueError, match=sentence):
            find_model(tmp_path / str(number), WANTED)
    whole(tmp_path / "good")
    with pytest.raises(ValueError, match="is a folder and has no revisions, got revision 'v1'; leave it out"):
        find_model(tmp_path / "good", WANTED, revision="v1")
    (tmp_path / "0" / "model_index.json").write_text("{")
    with pytest.raises(ValueError, match="model_index.json cannot be read as JSON"):
        find_model(tmp_path / "0", WANTED)


def test_a_data_set_is_fetched_with_another_command():
    failure = hub_failure(errors.OfflineModeIsEnabled("offline"), "data set", "a/b", kind="dataset", revision="v1")
    assert "`hf download --repo-type dataset a/b --revision v1`" in str(failure)


def test_weights_alone_in_the_cache_are_no_text_encoder(tmp_path, hub):
    """As another program leaves them that never asked for the tokenizer: it is fetched on, when there is a network."""
    wanted = Wanted(what="text encoder", is_whole=has_tokenizer)
    snapshot = put_into_cache(tmp_path, REPO, whole)
    hub.cache, hub.fill = tmp_path, lambda revision: lambda folder: (whole(folder), (folder / "spiece.model").touch())
    assert find_model(snapshot, wanted) == snapshot and hub.asked == []           # a folder is taken as it is
    found = find_model(REPO, wanted, cache_dir=tmp_path)
    assert (found / "spiece.model").is_file() and len(hub.asked) == 1
    assert find_model(REPO, wanted, cache_dir=tmp_path) == found and len(hub.asked) == 1


def test_half_of_a_model_and_no_network_is_no_repository_that_lacks_a_file(tmp_path, monkeypatch):
    """Without a network `snapshot_download` gives what is here, so the hub itself must be asked."""
    def unreachable(api, repo, **options):
        raise httpx.ConnectError("[Errno -2] Name not known")
    snapshot = put_into_cache(tmp_path, REPO, sharded)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda repo, **options: str(snapshot))
    monkeypatch.setattr(huggingface_hub.HfApi, "repo_info", unreachable)
    with pytest.raises(ValueError, match="because the hub at .* cannot be reached .ConnectError: .*Name not known"):
        find_model(REPO, WANTED, cache_dir=tmp_path)


def test_never_online_and_not_from_the_cache(tmp_path, hub):
    snapshot = put_into_cache(tmp_path, REPO, whole)
    assert find_model(REPO, WANTED, cache_dir=tmp_path, local_files_only=True) == snapshot and hub.asked == []
    with pytest.raises(ValueError, match="and local_files_only forbids to go online: unset local_files_only, or fetch"):
        find_model(f"{REPO}@v2", WANTED, cache_dir=tmp_path, local_files_only=True)
    hub.cache, hub.fill = tmp_path, lambda revision: whole
    assert find_model(REPO, WANTED, cache_dir=tmp_path, force_download=True) != snapshot and len(hub.asked) == 1


def test_the_hub_is_asked_for_what_it_has(tmp_path, hub, monkeypatch):
    assert reach(f"{REPO}/vae@v1") == COMMIT and reach(str(tmp_path)) is None

    def refuses(api, repo, **options):
        assert (repo, options["revision"], options["repo_type"]) == ("a/b", "v1", "dataset")
        raise errors.RepositoryNotFoundError("404", response=answer(404))
    monkeypatch.setattr(huggingface_hub.HfApi, "repo_info", refuses)
    with pytest.raises(ValueError, match="The data set 'a/b@v1' cannot be loaded, .* knows no dataset of this name .*"
                                         "huggingface.co/datasets/a/b; if it is private"):
        reach("a/b@v1", "dataset")


def test_a_file_of_another_server_and_what_is_sent():
    url = "https://weights.example/w.pth"
    try:
        raise URLError("unreachable") from OSError("socket")
    except URLError as error:
        error.__context__ = error.__cause__ = socket.gaierror(-2, "Name not known")
        said = str(hub_failure(error, "network", "w", url=url))
    assert said.startswith("The network 'w' cannot be loaded, because the server at https://weights.example cannot be ")
    assert said.endswith(f"if there is a proxy, or get {url} where there is a network and name the file.")
    missing = HTTPError(url, 404, "Not Found", None, None)
    assert "the server answered with status 404 (HTTPError: HTTP Error 404: Not Found): check what the address" in str(
        hub_failure(missing, "network", "w", url=url))
    offline = str(hub_failure(errors.OfflineModeIsEnabled("off"), "folder", "runs/x", repo="a/b", done="sent"))
    assert offline == ("The folder 'runs/x' cannot be sent, because HF_HUB_OFFLINE forbids to go online: unset "
                       "HF_HUB_OFFLINE.")
    forbidden = hub_failure(errors.HfHubHTTPError("no", response=answer(403)), "folder", "x", repo="a/b", done="sent")
    assert "status 403 (HfHubHTTPError: no): log in with `hf auth login` as one who may." in str(forbidden)
