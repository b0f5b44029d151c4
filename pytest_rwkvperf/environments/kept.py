"""Which builds the cache keeps: the most recently used ones, and each that a living process uses.

A build is a folder. A process that uses one holds a shared lock of the operating system's on a file in it until it
ends, however it ends; the file's date is that of the last use. Windows has no such locks: there builds stay that were
used within a day.
"""

from __future__ import annotations

import os
import shutil
import sys
from contextlib import contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING

from pytest_rwkvperf.core import clock
from pytest_rwkvperf.core.errors import LockedError, OptionError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

VARIABLE = "RWKVPERF_KEPT_BUILDS"
"""How many builds of each kind are kept."""

DEFAULT = 20

_MARK = "in-use"
_GONE = ".gone"
_DAY_SECONDS = 24 * 3600.0

_used: dict[Path, int] = {}
"""The descriptor by which this process holds each build that it uses: never closed, so that the system does it."""


def use(folder: Path) -> None:
    """Keep a build until this process ends. What cannot be locked, as in a cache that is read-only, is used anyway.

    Another process may be removing it: look whether it is still there afterwards.
    """
    with suppress(OSError):
        held = os.open(folder / _MARK, os.O_RDWR | os.O_CREAT, 0o644)
        before = _used.get(folder)
        _used[folder] = held
        if before is not None:
            os.close(before)
        os.utime(folder / _MARK)
        if sys.platform != "win32":
            import fcntl

            fcntl.flock(held, fcntl.LOCK_SH)


def prune(parent: Path, guard: Callable[[Path], AbstractContextManager[object]] = nullcontext) -> int:
    """Remove the builds in a folder beyond the most recently used ones, and logs of as many that are not there.

    Args:
        parent: the folder; names that begin with a dot are no builds.
        guard: keeps others from making or taking the build meanwhile, or raises a LockedError.

    Returns: how many were removed.

    Raises:
        OptionError: the variable holds no number.
    """
    most = limit()
    for left in parent.glob(f".*{_GONE}"):  # by a process that was killed
        shutil.rmtree(left, ignore_errors=True)
    builds = [path for path in parent.iterdir() if path.is_dir() and not path.name.startswith(".")]
    removed = sum(_remove(build, guard) for build in sorted(builds, key=_last_use, reverse=True)[most:])
    logs = [log for log in parent.glob("*.log") if not log.with_suffix("").exists()]
    for log in sorted(logs, key=_date, reverse=True)[most:]:
        log.unlink(missing_ok=True)
    return removed


def limit() -> int:
    """How many builds are kept beside those in use.

    Raises:
        OptionError: the variable holds no number.
    """
    text = os.environ.get(VARIABLE, "").strip() or str(DEFAULT)
    if not text.isdecimal():
        raise OptionError(f"{VARIABLE}={text!r} is no number of builds to keep; write for example {DEFAULT}")
    return int(text)


def _remove(build: Path, guard: Callable[[Path], AbstractContextManager[object]]) -> bool:
    """Remove one unless it is in use. It is renamed first, so that no process takes a half-removed build for whole."""
    gone = build.with_name(f".{build.name}{_GONE}")
    try:
        with guard(build), _alone(build):
            build.rename(gone)
    except (LockedError, OSError):
        return False
    build.with_name(f"{build.name}.log").unlink(missing_ok=True)
    shutil.rmtree(gone, ignore_errors=True)
    return True


@contextmanager
def _alone(build: Path) -> Iterator[None]:
    """A block that runs while no process uses a build.

    Raises:
        OSError: one does, or the file system refuses to say.
    """
    if sys.platform == "win32":
        if clock.time_of_day() - _last_use(build) < _DAY_SECONDS:
            raise BlockingIOError(f"{build} was used within a day")
        yield
        return
    import fcntl

    held = os.open(build / _MARK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(held)


def _last_use(build: Path) -> float:
    """When a build was used last; the date of its folder, if it has not been used yet."""
    mark = build / _MARK
    return _date(mark) if mark.exists() else _date(build)


def _date(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # removed meanwhile
        return 0.0
