"""The user's cache folder: derived model files, what is known of them, and how they are written whole or not at all."""

from __future__ import annotations

import json
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pytest_rwkvperf.core import atomic, folders, locks
from pytest_rwkvperf.core.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pytest_rwkvperf.models.streams import Progress

_SPARE_BYTES = 64 << 20  # left free beside a written file


def folder(cache: Path | None) -> Path:
    """Where models are cached: the folder given, else `models` in the user's cache folder of this system."""
    return cache if cache is not None else folders.cache() / "models"


@contextmanager
def locked(target: Path, progress: Progress, lock_file: Path | None = None) -> Iterator[None]:
    """One writer per file across processes; tells `progress` when it has to wait for another.

    The lock is a file beside `target` unless another is named.

    Raises:
        ModelError: the folder cannot be made.
        RefusedError: it takes no lock.
    """

    def wait(holder: str) -> None:
        progress(f"waiting for {holder} to finish {target.name}", 0.0)

    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        message = f"the model cache {str(target.parent)!r} cannot be written: {error}; {locks.ELSEWHERE}"
        raise ModelError(message) from None
    with locks.hold(lock_file or target.with_name(f"{target.name}.lock"), on_wait=wait):
        yield


@contextmanager
def replacing(target: Path, needed: int) -> Iterator[Path]:
    """`atomic.replacing` for a file of at most `needed` bytes; call it with `target` locked.

    Raises:
        ModelError: the disk has less than `needed` bytes free, or writing failed.
    """
    atomic.remove_leftovers(target)
    free = shutil.disk_usage(target.parent).free
    if free < needed + _SPARE_BYTES:
        raise ModelError(
            f"writing {str(target)!r} needs {needed} bytes and {_SPARE_BYTES} to spare, {free} are free;"
            f" free some space, or if it is in the model cache {locks.ELSEWHERE}"
        )
    try:
        with atomic.replacing(target) as temporary:
            yield temporary
    except OSError as error:
        raise ModelError(f"writing {str(target)!r} failed: {error}; make room, or name another place") from error


def read_json(path: Path) -> dict[str, Any] | None:
    """A record of the cache; None when it is absent, damaged or closed to this user: it will be made again."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) else None


def write_json(path: Path, record: dict[str, Any]) -> None:
    """Write a record of the cache, whole or not at all; call it with what the record is about locked."""
    with replacing(path, 0) as temporary:
        temporary.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
