"""Locks between processes whose holder can be named. They are the operating system's: a killed holder frees them."""

from __future__ import annotations

import json
import os
import platform
import time
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from typing import TYPE_CHECKING

import psutil
from filelock import FileLock, Timeout

from pytest_rwkvperf.core.errors import LockedError
from pytest_rwkvperf.core.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


_STEP_SECONDS = 1.0
"""How often whoever waits looks whether the holder is another one by now."""


@contextmanager
def held(lock_file: Path, seconds: float, waiting: Callable[[str], None] | None = None) -> Iterator[None]:
    """Hold a lock for the length of a block.

    A lock of the operating system goes to whoever asks first once it is free, and those who wait ask only now and
    then: a process that takes it again and again would keep them out for ever. So there is a queue, a second lock
    whose holder is the next: whoever comes has to get that one before they may ask. What protects is the lock alone.

    Args:
        lock_file: the lock; a note on its holder and the queue lie beside it.
        seconds: how long one and the same holder is waited for; negative for ever.
        waiting: told who holds it, when it has to be waited for.

    Raises:
        LockedError: one holder kept it that long; the message is who.
        OSError: the file system refuses.
    """
    lock, queue = FileLock(lock_file), FileLock(lock_file.with_name(f"{lock_file.name}.queue"))
    try:
        if not (_taken(queue, 0) and _taken(lock, 0)):
            if waiting is not None:
                waiting(holder(lock_file))
            _wait(lock, queue, lock_file, seconds)
    finally:
        queue.release()
    note = _note(lock_file)
    try:
        _sign(note)
        yield
    finally:
        with suppress(OSError):
            note.unlink(missing_ok=True)
        lock.release()


def _wait(lock: FileLock, queue: FileLock, lock_file: Path, seconds: float) -> None:
    """Wait in the queue and then for the lock; each new holder is given the whole time.

    Raises:
        LockedError: one holder kept it for `seconds`.
    """
    seen, since = _identity(lock_file), time.monotonic()
    while True:
        left = since + seconds - time.monotonic() if seconds >= 0 else _STEP_SECONDS
        step = max(0.0, min(_STEP_SECONDS, left))
        first = queue.is_locked or _taken(queue, step)
        # Also without being first, once a step: whoever is may have been stopped (Ctrl-Z) while the lock is free.
        if _taken(lock, step if first else 0):
            return
        if (now := _identity(lock_file)) != seen:
            seen, since = now, time.monotonic()
        elif left <= 0:
            raise LockedError(holder(lock_file))


def _taken(lock: FileLock, seconds: float) -> bool:
    try:
        lock.acquire(timeout=seconds)
    except Timeout:
        return False
    return True


def _identity(lock_file: Path) -> int | None:
    """What differs from one hold to the next: when its note was written."""
    try:
        return _note(lock_file).stat().st_mtime_ns
    except OSError:
        return None


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
