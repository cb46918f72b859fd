"""What went wrong between this machine and the hub, in one sentence: the name, the cause, the remedy.

Three libraries and two HTTP clients raise here, and each wraps the others' exceptions. So causes are recognised by the
names of the classes along the whole chain of an exception, and no client is imported to ask it.
"""

import errno
from urllib.parse import urlsplit

# Exceptions by name -> (cause, remedy), the first that fits anywhere in the chain. Names in braces are filled in by
# `hub_failure`; {elsewhere} is another way to the same files, where there is one.
CAUSES = (
    (("OfflineModeIsEnabled",),
     "{not_here}{offline} forbids to go online",
     "unset {offline}{bring}"),
    (("GatedRepoError",),
     "its repository is gated",
     "accept its terms at {page}, log in with `hf auth login`, and try again"),
    (("RepositoryNotFoundError", "DatasetNotFoundError"),
     "it is neither shipped{shipped} nor a folder here, and the hub knows no {kind} of this name that you may read",
     "check the spelling at {page}; if it is private, log in with `hf auth login`"),
    (("RevisionNotFoundError",),
     "it has no revision {revision!r}",
     "give a branch, a tag or a commit that {page}/commits lists"),
    (("DisabledRepoError",),
     "its repository has been disabled by the hub",
     "use another one, or give the folder of a copy"),
    (("HFValidationError",),
     "it is neither shipped{shipped} nor a folder here, and no name that the hub could have",
     "give an existing folder, or a name like owner/name"),
    (("ProxyError",),
     "the proxy on the way to {server} refuses ({detail})",
     "set HTTPS_PROXY to a proxy that lets {host} through{elsewhere}"),
    (("SSLError", "SSLCertVerificationError", "CertificateError"),
     "{server}'s certificate cannot be verified ({detail})",
     "your network replaces certificates: set SSL_CERT_FILE to the file of its own, which the administrator "
     "has{elsewhere}"),
    (("ConnectError", "ConnectTimeout", "ReadTimeout", "TimeoutException", "ConnectionError", "Timeout",
      "NetworkError", "MaxRetryError", "gaierror", "TimeoutError"),
     "{server} at {host} cannot be reached ({detail})",
     "check the network, set HTTPS_PROXY if there is a proxy{mirror}{elsewhere}"),
)


def hub_failure(error: BaseException, what: str, name: str, *, repo: str | None = None, revision: str | None = None,
                kind: str = "model", shipped: tuple[str, ...] = (), cache: str = "", done: str = "loaded",
                offline: str = "HF_HUB_OFFLINE", url: str | None = None) -> ValueError:
    """Turn what a download or an upload raised into the sentence to raise in its place.

    Args:
        error: as `huggingface_hub`, `datasets` or `torch.hub` raised it.
        what: "tokenizer", "text encoder", "data set": what was wanted.
        name: what the user gave.  repo, revision: what that means on the hub.
        kind: "model" or "dataset", the hub's word.
        shipped: names that would have worked without a hub.  cache: the folder that was searched; "" for none.
        done: "loaded", or "sent", for which nothing can be fetched elsewhere.  offline: what forbids to go online.
        url: of a file that lies on another server than the hub.
    """
    found, cause, remedy = _cause(list(_chain(error)))
    repo, host = repo or name, _host() if url is None else "://".join(urlsplit(url)[:2])
    shipped = f" ({', '.join(shipped)})" if shipped else ""
    command = f"hf download {'--repo-type dataset ' if kind == 'dataset' else ''}{repo}" + (
        f" --revision {revision}" if revision else "")
    copy, elsewhere = ", or give the folder of a copy", f", or fetch it elsewhere with `{command}` and give the folder"
    bring = f", or fetch it where there is a network with `{command}` and bring the cache{copy}"
    if url is not None:
        copy = elsewhere = f", or get {url} where there is a network and name the file"
    if done != "loaded":
        copy = elsewhere = bring = ""
    fields = {
        "kind": kind, "revision": revision or "main", "detail": _short(found), "shipped": shipped, "offline": offline,
        "elsewhere": elsewhere, "bring": bring, "copy": copy,
        "host": host, "server": "the hub" if url is None else "the server",
        "not_here": f"it is neither shipped{shipped} nor a folder here nor complete in the local cache {cache}, and "
                    if cache else "", "mirror": " or HF_ENDPOINT if there is a mirror" if url is None else "",
        "page": f"{host}/{'datasets/' if kind == 'dataset' else ''}{repo}"}
    return ValueError(f"The {what} {name!r} cannot be {done}, because {cause.format(**fields)}: "
                      f"{remedy.format(**fields)}.")


def _cause(chain: list[BaseException]) -> tuple[BaseException, str, str]:
    """The exception that tells most, and what it means."""
    said = {cls.__name__: one for one in reversed(chain) for cls in type(one).__mro__}
    for one in chain:
        if "(OfflineModeIsEnabled)" in str(one):               # `datasets` names the class and does not chain it
            said["OfflineModeIsEnabled"] = one
    for names, cause, remedy in CAUSES:
        for name in names:
            if name in said:
                return said[name], cause, remedy
    return _cause_by_number(chain)


def _cause_by_number(chain: list[BaseException]) -> tuple[BaseException, str, str]:
    """Causes that a number tells and not a class."""
    for error in chain:
        code = getattr(getattr(error, "response", None), "status_code", getattr(error, "code", None))
        if isinstance(code, int):
            remedy = {401: "log in with `hf auth login`", 403: "log in with `hf auth login` as one who may",
                      404: "check what the address names at {page}"}.get(code, "try again in a few minutes")
            return error, f"{{server}} answered with status {code} ({{detail}})", remedy
        if getattr(error, "errno", None) == errno.ENOSPC:
            return error, "the disk is full", "make room, or set HF_HOME to a folder on another disk"
    return chain[0], "of {detail}", "mend what it names{copy}"


def _chain(error: BaseException | None):
    """An exception and all that it was raised from, outermost first."""
    seen = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _short(error: BaseException, longest: int = 200) -> str:
    text = " ".join(f"{type(error).__name__}: {error}".split()).rstrip(".:")
    return text if len(text) <= longest else text[:longest] + "..."


def _host() -> str:
    from huggingface_hub import constants  # half a second to import: only when something went wrong
    return constants.ENDPOINT
