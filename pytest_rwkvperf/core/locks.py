"""Locks between processes that name their holder. They are the operating system's: it frees a killed holder's lock."""

from __future__ import annotations

import errno
import json
import os
import platform
import sys
import time
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from typing import TYPE_CHECKING

import psutil
from filelock import FileLock, Timeout

from pytest_rwkvperf.core import clock
from pytest_rwkvperf.core.errors import LockedError, RefusedError
from pytest_rwkvperf.core.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

ELSEWHERE = "point the cache elsewhere (XDG_CACHE_HOME on Linux; TMPDIR for temporary files)"
"""What to do where the disk refuses something below the user's folders."""

_STEP_SECONDS = 1.0
"""How often a waiting process checks whether the holder has changed."""

_NOTE_SECONDS = 0.5
"""A holder notes itself right after it has the lock. Who has no note for this long is called another process."""


class _SystemLock(FileLock):
    """A lock of the operating system's, or none: a mere file would stay locked when its holder is killed."""

    def _fallback_to_soft_lock(self) -> None:
        raise OSError(errno.ENOSYS, "this file system has no locks")


@contextmanager
def hold(lock_file: Path, timeout: float | None = None, on_wait: Callable[[str], None] | None = None) -> Iterator[None]:
    """Hold a lock while a `with` block runs.

    The operating system gives a free lock to whichever process asks first, and waiting processes ask only now and
    then: a process that takes the lock again and again would starve them. So there is a second lock, the queue: only
    the process that holds it may wait for the first one. Mutual exclusion rests on the first lock alone.

    Args:
        lock_file: the lock. The queue and a note about the holder are files beside it.
        timeout: seconds to wait for one and the same holder; None waits for ever.
        on_wait: called once with the holder's description if the lock is not free.

    Raises:
        LockedError: one holder kept the lock for `timeout` seconds; the message is the holder.
        RefusedError: the file system refuses; the message names the file.
    """
    # Not thread_local: a block may be left by another thread than the one that entered it.
    lock = _SystemLock(lock_file, thread_local=False)
    queue = _SystemLock(_beside(lock_file, "queue"), thread_local=False)
    try:
        if not _acquire_at_once(lock, queue, lock_file):
            if on_wait is not None:
                on_wait(holder(lock_file))
            _wait(lock, queue, lock_file, timeout)
    finally:
        queue.release()
    note = _beside(lock_file, "holder")
    try:
        _write_holder(note)
        yield
    finally:
        with suppress(OSError):
            note.unlink(missing_ok=True)
        lock.release()


def _acquire_at_once(lock: FileLock, queue: FileLock, lock_file: Path) -> bool:
    """Take both locks if they are free. A holder without a note gets a moment to write it, or to leave."""
    ends = clock.monotonic() + _NOTE_SECONDS
    while not ((queue.is_locked or _acquire(queue, 0)) and _acquire(lock, 0)):
        if _note(lock_file)[0] or clock.monotonic() >= ends:
            return False
        time.sleep(0.01)
    return True


def _wait(lock: FileLock, queue: FileLock, lock_file: Path, timeout: float | None) -> None:
    """Wait in the queue and then for the lock; the timeout begins anew with each new holder."""
    current, since = _hold_id(lock_file), clock.monotonic()
    while True:
        left = _STEP_SECONDS if timeout is None else since + timeout - clock.monotonic()
        step = max(0.0, min(_STEP_SECONDS, left))
        first = queue.is_locked or _acquire(queue, step)
        # Try the lock once a step without being first too: the first one may be stopped (Ctrl-Z) with the lock free.
        if _acquire(lock, step if first else 0):
            return
        if (now := _hold_id(lock_file)) != current:
            current, since = now, clock.monotonic()
        elif left <= 0:
            raise LockedError(holder(lock_file))


@contextmanager
def held_by_children(lock_file: Path, on_wait: Callable[[], None]) -> Iterator[tuple[int, ...]]:
    """Hold a lock that programs hold too which are started with these descriptors (`pass_fds`).

    A process that is killed leaves what it has started running. flock(2) belongs to the open file that they share, so
    the lock is free when the last of them has ended. Windows has no such lock, and gives no descriptors.
    """
    if sys.platform == "win32":
        yield ()
        return
    import fcntl

    with lock_file.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_wait()
            fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield (file.fileno(),)
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)


def _acquire(lock: FileLock, seconds: float) -> bool:
    try:
        lock.acquire(timeout=seconds)
    except Timeout:
        return False
    except (OSError, NotImplementedError) as error:  # NotImplementedError: filelock of a time before soft locks
        raise RefusedError(f"{lock.lock_file} cannot be locked: {_refusal(error)}") from error
    return True


def _refusal(error: Exception) -> str:
    if isinstance(error, PermissionError):
        return f"{error.strerror}; it belongs to another user (a run under sudo?): chown or remove it, or {ELSEWHERE}"
    return f"{getattr(error, 'strerror', None) or error}; {ELSEWHERE}"


def _hold_id(lock_file: Path) -> int | None:
    """A number that differs from one hold to the next: when the holder's note was written."""
    try:
        return _beside(lock_file, "holder").stat().st_mtime_ns
    except OSError:
        return None


def holder(lock_file: Path) -> str:
    """Describe a lock's holder by its note: `process 4711 on build-7 since 2026-11-23T17:03:00Z`."""
    pid, host, since = _note(lock_file)
    return printable(f"process {pid} on {host} since {since}") if pid else "another process"


def holding_process(lock_file: Path) -> int:
    """The id of the process on this machine that holds a lock, by its note; 0 where that is not known."""
    pid, host, _ = _note(lock_file)
    return pid if host == platform.node() else 0


def _note(lock_file: Path) -> tuple[int, str, str]:
    """The holder's process, machine and time; 0 and nothing where there is no note, or a killed process left it."""
    try:
        note = json.loads(_beside(lock_file, "holder").read_text(encoding="utf-8"))
        pid, host, since = int(note["pid"]), str(note["host"]), str(note["since"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0, "", ""
    return (0, "", "") if host == platform.node() and not psutil.pid_exists(pid) else (pid, host, since)


def _beside(lock_file: Path, suffix: str) -> Path:
    return lock_file.with_name(f"{lock_file.name}.{suffix}")


def _write_holder(note: Path) -> None:
    """Describe this process as the holder. A full disk must not prevent holding the lock."""
    now = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    with suppress(OSError):
        note.write_text(json.dumps({"pid": os.getpid(), "host": platform.node(), "since": now}), encoding="utf-8")
