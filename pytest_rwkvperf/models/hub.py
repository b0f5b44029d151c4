"""Model files by public name: on Hugging Face (`hf:`), on ModelScope (`ms:`), and the guide's own by short names.

Hugging Face is reached through its own client, which caches, checks sizes and ETags, resumes a broken connection and
knows offline mode; files land in its cache, where other tools find them too. ModelScope's client would add
`cryptography` and 23 000 lines for one GET request of a public file, so `download` makes that request.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from pytest_rwkvperf.core.errors import ModelError
from pytest_rwkvperf.models.download import download, offline

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_rwkvperf.models.streams import Progress

_GUIDE_PTH = "hf:BlinkDL/rwkv7-g1/rwkv7-g1-2.9b-20250519-ctx4096.pth"
SHORT_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "rwkv7-g1-2.9b": _GUIDE_PTH,  # the format that the others are made from
        "rwkv7-g1-2.9b.pth": _GUIDE_PTH,
        "rwkv7-g1-2.9b.st": "hf:shoumenchougou/RWKV-ST-model/rwkv7-g1-2.9b-20250519-ctx4096.st",
        "rwkv7-g1-2.9b.gguf": "hf:zhiyuan8/RWKV-v7-2.9B-G1-GGUF/rwkv7-2.9B-g1-F16.gguf",
        "rwkv7-g1-2.9b-q8_0.gguf": "hf:zhiyuan8/RWKV-v7-2.9B-G1-GGUF/rwkv7-2.9B-g1-Q8_0.gguf",
    }
)
"""The files that the community's performance guide names, at the addresses it gives."""

_INSTALL = "pip install huggingface_hub"
_REFERENCE = re.compile(
    r"(?P<hub>hf|ms):(?P<repo>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@(?P<revision>[A-Za-z0-9][\w.-]*))?/(?P<file>.+)",
    re.ASCII,
)
_PART = re.compile(r"(?!\.{1,2}$|[A-Za-z]:)[^\\]+")
"""One part of a file's path in a repository; parts that lead out of the cache, also on Windows, do not match."""
_PAGE = re.compile(
    r"https?://(?P<host>huggingface\.co|hf-mirror\.com|(?:www\.)?modelscope\.cn)/(?:models/)?(?P<repo>[\w.-]+/[\w.-]+)"
    r"/(?:blob|resolve|raw|file/view)/(?P<revision>[\w.-]+)/(?P<file>[^?#]+)(?:[?#].*)?",
    re.ASCII,
)
"""A file's page or direct address on one of the hubs, or on the mirror that the first one's client can use."""
_MODELSCOPE = "https://modelscope.cn"


@dataclass(frozen=True, slots=True)
class HubFile:
    """One file of a repository; without a revision, the newest."""

    hub: str
    repo: str
    file: str
    revision: str | None

    def __str__(self) -> str:
        at = f"@{self.revision}" if self.revision else ""
        return f"{self.hub}:{self.repo}{at}/{self.file}"


def parse(reference: str) -> HubFile | None:
    """The file that a reference names on a hub; None when it is not a hub reference.

    Raises:
        ModelError: it begins like a hub reference and is malformed, or is an address for browsers.
    """
    text = SHORT_NAMES.get(reference, reference)
    if "://" in text:
        raise ModelError(f"{reference!r} is an address; {_of_address(text)}")
    if not text.startswith(("hf:", "ms:")):
        return None
    match = _REFERENCE.fullmatch(text)
    if match is None or not all(map(_PART.fullmatch, match["file"].split("/"))):
        raise ModelError(f"{reference!r} is not understood; write {text[:3]}OWNER/REPO/FILE or …/REPO@REVISION/FILE")
    return HubFile(match["hub"], match["repo"], match["file"], match["revision"])


def _of_address(address: str) -> str:
    """What to write instead of an address that was copied from a browser."""
    if match := _PAGE.fullmatch(address):
        at = f"@{match['revision']}" if match["revision"] not in {"main", "master"} else ""
        hub = "ms" if "modelscope" in match["host"] else "hf"
        return f"write {hub}:{match['repo']}{at}/{match['file']}"
    return "download the file and name it here, or write hf:OWNER/REPO/FILE or ms:OWNER/REPO/FILE"


def fetch(wanted: HubFile, cache: Path, progress: Progress) -> Path:
    """The local copy of the file, fetched if it is missing or has changed on the hub.

    Raises:
        ModelError: the hub does not give it; names the reference and what to do. No message quotes a server or a
            client library, so none can contain a token.
    """
    if wanted.hub == "hf":
        return _from_hugging_face(wanted, progress)
    return _from_modelscope(wanted, cache, progress)


def _from_hugging_face(wanted: HubFile, progress: Progress) -> Path:
    try:
        from huggingface_hub import hf_hub_download
    except ImportError:
        raise ModelError(f"{wanted} needs the huggingface_hub package: {_INSTALL}") from None
    progress(f"looking for {wanted}", 0.0)
    try:
        path = hf_hub_download(
            wanted.repo, wanted.file, revision=wanted.revision, tqdm_class=_bar(f"fetching {wanted}", progress)
        )
    # The client's HTTP library, which has changed three times, raises errors of its own.
    except Exception as error:  # noqa: BLE001 - reported by class; its text may contain a token
        raise ModelError(f"{wanted} could not be fetched: {_reason(error)}") from None
    return Path(path)


_OFFLINE = "offline mode is on (HF_HUB_OFFLINE) and it is not in the cache; unset it once to fetch the file"
_UNREACHABLE = "the hub cannot be reached and it is not in the cache; check the connection, or set HF_ENDPOINT"


def _reason(error: Exception) -> str:
    """A clause that explains an error of the Hugging Face client; the first matching class decides."""
    from huggingface_hub import errors

    if isinstance(error, errors.LocalEntryNotFoundError) and isinstance(error.__cause__, errors.HfHubHTTPError):
        error = error.__cause__  # the client reports every refusal as "not in the cache"
    clauses: tuple[tuple[type[Exception], str], ...] = (
        (errors.GatedRepoError, "its owner asks for an agreement first; accept it on its page and run `hf auth login`"),
        (errors.RepositoryNotFoundError, "there is no such repository, or it is private (then run `hf auth login`)"),
        (errors.RevisionNotFoundError, "the repository has no such revision"),
        (errors.LocalEntryNotFoundError, _OFFLINE if offline() else _UNREACHABLE),
        (errors.OfflineModeIsEnabled, _OFFLINE),
        (errors.EntryNotFoundError, "the repository has no such file; check the name on its page"),
    )
    if clause := next((text for kind, text in clauses if isinstance(error, kind)), None):
        return clause
    if status := getattr(getattr(error, "response", None), "status_code", None):
        return f"the hub answered with HTTP status {status}; try again later"
    if isinstance(error, OSError) and error.errno is not None:
        return f"{error.strerror}; look at the space and the rights of the cache (HF_HOME)"
    if isinstance(error, OSError):  # the client's size check, which has no errno
        return "fewer bytes came than the hub announced; nothing was kept, run it again"
    return f"the connection failed ({type(error).__name__}); nothing was kept, run it again"


def _bar(sentence: str, progress: Progress) -> type[Any]:
    """A replacement for tqdm that reports to `progress` and draws nothing."""
    from tqdm import tqdm  # type: ignore[import-untyped] # the client's own dependency, without type information

    class Bar(tqdm):  # type: ignore[misc] # as above
        def __init__(self, *arguments: Any, **settings: Any) -> None:  # noqa: ANN401 - tqdm's own
            settings.pop("name", None)
            super().__init__(*arguments, **{**settings, "file": None, "disable": False})

        def display(self, *_arguments: object, **_settings: object) -> None:
            """Report instead of drawing; tqdm calls this several times a second."""
            if self.total:
                progress(sentence, min(self.n / self.total, 1.0))

    return Bar


def _from_modelscope(wanted: HubFile, cache: Path, progress: Progress) -> Path:
    endpoint = os.environ.get("MODELSCOPE_ENDPOINT", "").strip().rstrip("/") or _MODELSCOPE
    if not endpoint.startswith(("https://", "http://")):
        raise ModelError(f"MODELSCOPE_ENDPOINT={endpoint!r} is not a web address; write https://…")
    revision = wanted.revision or "master"
    query = urlencode({"Revision": revision, "FilePath": wanted.file})
    url = f"{endpoint}/api/v1/models/{wanted.repo}/repo?{query}"  # as modelscope-hub 0.5's `get_download_url`
    target = cache / "modelscope" / wanted.repo / revision / wanted.file
    return download(url, target, str(wanted), progress)
