"""What went wrong between this machine and the hub, in one sentence: the name, the cause, the remedy.

Three libraries and two HTTP clients raise here, and each wraps the others' exceptions. So causes are recognised by the
names of the classes along the whole chain of an exception, and no client is imported to ask it.
"""

import errno

# Exceptions by name -> (cause, remedy), the first that fits anywhere in the chain. {id}, {revision}, {detail} and
# {page} are filled in.
CAUSES = (
    (("OfflineModeIsEnabled",),
     "it is neither shipped{shipped} nor a folder here nor complete in the local cache {cache}, and HF_HUB_OFFLINE "
     "forbids to look online",
     "unset HF_HUB_OFFLINE, or fetch it where there is a network with `hf download {id}{pinned}` and bring the cache, "
     "or give the folder of a copy"),
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
     "the proxy on the way to the hub refuses ({detail})",
     "set HTTPS_PROXY to a proxy that lets {host} through, or fetch it elsewhere with `hf download {id}{pinned}` and "
     "give the folder"),
    (("SSLError", "SSLCertVerificationError", "CertificateError"),
     "the hub's certificate cannot be verified ({detail})",
     "your network replaces certificates: set SSL_CERT_FILE to the file of its own, which the administrator has, or "
     "fetch it elsewhere with `hf download {id}{pinned}` and give the folder"),
    (("ConnectError", "ConnectTimeout", "ReadTimeout", "TimeoutException", "ConnectionError", "Timeout",
      "NetworkError", "MaxRetryError", "gaierror"),
     "the hub at {host} cannot be reached ({detail})",
     "check the network, set HTTPS_PROXY if there is a proxy or HF_ENDPOINT if there is a mirror, or fetch it "
     "elsewhere with `hf download {id}{pinned}` and give the folder"),
)


def hub_failure(error: BaseException, what: str, name: str, *, repo: str | None = None, revision: str | None = None,
                kind: str = "model", shipped: tuple[str, ...] = (), cache: str = "") -> ValueError:
    """Turn what a download raised into the sentence to raise in its place.

    Args:
        error: as `huggingface_hub` or `datasets` raised it.
        what: "tokenizer", "text encoder", "data set": what was wanted.
        name: what the user gave.  repo, revision: what that means on the hub.
        kind: "model" or "dataset", the hub's word.
        shipped: names that would have worked without a hub.  cache: the folder that was searched.
    """
    found, cause, remedy = _cause(list(_chain(error)))
    repo = repo or name
    fields = {"id": ("--repo-type dataset " if kind == "dataset" else "") + repo, "kind": kind, "cache": cache,
              "revision": revision or "main", "pinned": f" --revision {revision}" if revision else "",
              "detail": _short(found), "host": _host(), "shipped": f" ({', '.join(shipped)})" if shipped else "",
              "page": f"{_host()}/{'datasets/' if kind == 'dataset' else ''}{repo}"}
    return ValueError(f"The {what} {name!r} cannot be loaded, because {cause.format(**fields)}: "
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
        code = getattr(getattr(error, "response", None), "status_code", None)
        if code is not None:
            return error, f"the hub answered with status {code} ({{detail}})", (
                "log in with `hf auth login`" if code in (401, 403) else "try again in a few minutes")
        if getattr(error, "errno", None) == errno.ENOSPC:
            return error, "the disk is full", "make room, or set HF_HOME to a folder on another disk"
    return chain[0], "of {detail}", "mend what it names, or give the folder of a copy"


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
