"""Locks between processes whose holder can be named. They are the operating system's: a killed holder frees them."""

from __future__ import annotations

import json
import os
import platform
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from typing import TYPE_CHECKING

import psutil
from filelock import FileLock, Timeout

from pytest_rwkvperf.errors import LockedError
from pytest_rwkvperf.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@contextmanager
def held(lock_file: Path, seconds: float, waiting: Callable[[str], None] | None = None) -> Iterator[None]:
    """Hold a lock for the length of a block.

    Args:
        lock_file: the lock; a note on its holder lies beside it.
        seconds: how long to wait for it; negative for ever.
        waiting: told who holds it, when it has to be waited for.

    Raises:
        LockedError: it was not free in time; the message is who holds it.
        OSError: the file system refuses.
    """
    lock = FileLock(lock_file)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        if waiting is not None:
            waiting(holder(lock_file))
        try:
            lock.acquire(timeout=seconds)
        except Timeout as error:
            raise LockedError(holder(lock_file)) from error
    note = _note(lock_file)
    try:
        _sign(note)
        yield
    finally:
        with suppress(OSError):
            note.unlink(missing_ok=True)
        lock.release()


def holder(lock_file: Path) -> str:
    """Who holds a lock, as far as their note tells: `process 4711 on build-7 since 2026-11-23T17:03:00Z`."""
    try:
        told = json.loads(_note(lock_file).read_text(encoding="utf-8"))
        pid, host, since = int(told["pid"]), str(told["host"]), str(told["since"])
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
    if host == platform.node() and not psutil.pid_exists(pid):
        return "another process"  # the note of one that was killed
    return printable(f"process {pid} on {host} since {since}")


def _note(lock_file: Path) -> Path:
    return lock_file.with_name(f"{lock_file.name}.holder")


def _sign(note: Path) -> None:
    """Say who holds the lock. A full disk must not keep anyone from holding it."""
    now = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    with suppress(OSError):
        note.write_text(json.dumps({"pid": os.getpid(), "host": platform.node(), "since": now}), encoding="utf-8")
