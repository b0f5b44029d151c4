"""Downloads one public file over HTTP.

A broken connection is resumed, the target is replaced only by a complete file, and a file whose ETag has changed on the
server is downloaded again.
"""

from __future__ import annotations

import errno
import http.client
import os
import re
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, NoReturn

from pytest_rwkvperf.core.digest import sha256_of
from pytest_rwkvperf.core.errors import ModelError
from pytest_rwkvperf.models import cache

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_rwkvperf.models.streams import Progress

_TRIES = 5  # in a row without a new byte
_PAUSE_SECONDS = 1.0
_TIMEOUT_SECONDS = 30.0
_BLOCK = 1 << 20
_DISK_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.EACCES})


def download(url: str, target: Path, name: str, progress: Progress) -> Path:
    """Download `url` to `target`; messages call it `name`.

    After a broken connection the part received stays beside the target, and the next call continues it.

    Raises:
        ModelError: the server does not have it, cannot be reached, or does not send what it announced.
    """
    if offline():
        if target.exists():
            return target
        raise ModelError(
            f"{name} is not in the cache and offline mode is on (HF_HUB_OFFLINE); unset it once to fetch the file"
        )
    with cache.locked(target, progress):
        return _Download(url, target, name, progress).run()


def offline() -> bool:
    """Whether HF_HUB_OFFLINE is set; it counts for both hubs."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}


class _BrokenError(Exception):
    """The connection failed, or ended before the file did."""


@dataclass(frozen=True, slots=True)
class _Answer:
    """What a response says of the file: size in bytes, ETag, and whether it continues the part received so far."""

    total: int
    identity: str
    continues: bool


class _Download:
    def __init__(self, url: str, target: Path, name: str, progress: Progress) -> None:
        self._url, self._target, self._name, self._progress = url, target, name, progress
        self._part = target.with_name(f".{target.name}.incomplete")
        self._part_note = target.with_name(f".{target.name}.incomplete.json")
        self._note = target.with_name(f"{target.name}.json")

    def run(self) -> Path:
        """Try until the file is complete, or several tries in a row bring nothing new."""
        self._progress(f"looking for {self._name}", 0.0)
        tries = 0
        while True:
            before = self._received()
            try:
                return self._attempt()
            except _BrokenError as error:
                gained = self._received() > before
                tries = 1 if gained else tries + 1
                if tries >= _TRIES:
                    if not gained and "ended early" in str(error):  # the server has no more bytes of it
                        self._discard()
                    return self._fall_back(error)
                time.sleep(_PAUSE_SECONDS)

    def _fall_back(self, error: _BrokenError) -> Path:
        if self._target.exists():
            self._progress(f"{self._name}: the hub cannot be reached ({error}); using the file fetched earlier", 1.0)
            return self._target
        raise ModelError(f"{self._name} could not be fetched: {error}; check the connection and run it again")

    def _attempt(self) -> Path:
        try:
            with urllib.request.urlopen(self._request(), timeout=_TIMEOUT_SECONDS) as response:  # noqa: S310 - http(s)
                answer = self._answer(response)
                if self._is_current(answer):
                    return self._target
                self._receive(response, answer)
        except urllib.error.HTTPError as error:
            if error.code == HTTPStatus.NOT_MODIFIED:
                return self._target
            self._raise_for(error.code)
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, OSError) and error.errno in _DISK_ERRORS:
                raise ModelError(
                    f"{self._name} cannot be written to {str(self._part.parent)!r}: {error.strerror}; the part"
                    " received is kept: make room, and run it again"
                ) from None
            reason = getattr(error, "reason", error)
            raise _BrokenError(f"the connection failed ({type(reason).__name__})") from None
        self._finish(answer)
        return self._target

    def _is_current(self, answer: _Answer) -> bool:
        """Whether the file fetched earlier is the one that the server has begun to send."""
        note = cache.read_json(self._note)
        known = note == {"identity": answer.identity, "size": answer.total} and bool(answer.identity)
        return known and self._target.exists() and self._target.stat().st_size == answer.total

    def _request(self) -> urllib.request.Request:
        request = urllib.request.Request(self._url, headers={"Accept-Encoding": "identity"})  # noqa: S310 - http(s)
        note, part = cache.read_json(self._note), cache.read_json(self._part_note)
        if note and self._target.exists() and self._target.stat().st_size == note.get("size"):
            request.add_header("If-None-Match", str(note.get("identity")))
        elif part and part.get("identity") and self._received():
            request.add_header("Range", f"bytes={self._received()}-")
        else:
            self._discard()
        return request

    def _answer(self, response: Any) -> _Answer:  # noqa: ANN401 - urllib gives one of several classes
        # ModelScope's CDN sends the file's SHA-256 besides its own ETag; modelscope-hub 0.5 reads it in this order.
        identity = response.headers.get("X-Linked-ETag") or response.headers.get("ETag", "")
        if response.status == HTTPStatus.PARTIAL_CONTENT:
            content_range = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers.get("Content-Range", ""))
            part = cache.read_json(self._part_note) or {}
            if content_range and int(content_range[1]) == self._received() and part.get("identity") == identity:
                return _Answer(int(content_range[2]), identity, continues=True)
            self._discard()
            raise _BrokenError("the file on the hub changed while it was fetched")
        length = response.headers.get("Content-Length", "")
        if not length.isdigit():
            raise ModelError(f"{self._name} cannot be fetched: the hub does not say how long it is; try again later")
        return _Answer(int(length), identity, continues=False)

    def _receive(self, response: Any, answer: _Answer) -> None:  # noqa: ANN401 - as above
        if not answer.continues:
            self._discard()
            cache.write_json(self._part_note, {"identity": answer.identity})
        sentence = f"fetching {self._name} ({answer.total / 1e9:.2f} GB)"
        with self._part.open("ab") as file:
            while block := response.read(_BLOCK):
                file.write(block)
                self._progress(sentence, min(file.tell() / max(answer.total, 1), 1.0))
        if self._received() < answer.total:
            raise _BrokenError(f"the answer ended early, at byte {self._received()} of {answer.total}")

    def _finish(self, answer: _Answer) -> None:
        if self._received() != answer.total:
            self._discard()
            raise ModelError(
                f"{self._name} came with more bytes than the hub announced; nothing was kept, run it again"
            )
        digest = answer.identity.strip('"')
        if re.fullmatch(r"[0-9a-f]{64}", digest) and sha256_of(self._part) != digest:
            self._discard()
            raise ModelError(
                f"{self._name} arrived damaged: its SHA-256 is not the hub's; nothing was kept, run it again"
            )
        with self._part.open("rb+") as file:
            os.fsync(file.fileno())
        self._part.replace(self._target)
        cache.write_json(self._note, {"identity": answer.identity, "size": answer.total})
        self._part_note.unlink(missing_ok=True)

    def _received(self) -> int:
        return self._part.stat().st_size if self._part.exists() else 0

    def _discard(self) -> None:
        self._part.unlink(missing_ok=True)
        self._part_note.unlink(missing_ok=True)

    def _raise_for(self, status: int) -> NoReturn:
        """Raise the error for an HTTP status; only a `_BrokenError` is tried again."""
        if status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            self._discard()
            raise _BrokenError("the hub has fewer bytes than were fetched")
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise _BrokenError(f"the hub answered with HTTP status {status}")
        if status == HTTPStatus.NOT_FOUND:
            raise ModelError(f"{self._name} does not exist on the hub; check the name on the model's page")
        if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            raise ModelError(f"{self._name} is not public; only public files are fetched from this hub")
        raise ModelError(
            f"{self._name} could not be fetched: the hub answered with HTTP status {status}; try again later"
        )
