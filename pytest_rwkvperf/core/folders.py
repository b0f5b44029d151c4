"""This user's folders outside the repository: the cache, the data folder, and those of one run and one worker."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
import time
import uuid
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from platformdirs import user_cache_path, user_data_path

from pytest_rwkvperf.core import locks
from pytest_rwkvperf.core.errors import LockedError, StorageError

_MAX_AGE_SECONDS = 24 * 3600.0
"""After this a folder is a killed run's: no run lasts so long."""

_STARTING_SECONDS = 60.0
"""Younger folders of workers are kept: their owner may not have locked them yet."""

_TEMPORARY = re.compile(r"rwkvperf-(worker|fleet|ab|bisect)-[a-z0-9_]{8}")
"""This project's temporary folders, as `tempfile` completes their names. Other folders called rwkvperf-… are the
user's."""

_OWNER = ".owner"


def cache() -> Path:
    """The user's cache folder for this project."""
    return user_cache_path("pytest-rwkvperf", appauthor=False)


def data() -> Path:
    """The user's data folder for this project, for files that clearing the cache must not remove."""
    return user_data_path("pytest-rwkvperf", appauthor=False)


def new_run_folder() -> Path:
    """A name for the folder in which the processes of one run share their records; removes what killed runs left.

    Folders of killed workers are removed after a minute, all others after a day.
    """
    runs = cache() / "runs"
    named_ours = Path(tempfile.gettempdir()).glob("rwkvperf-*/")
    temporary = [folder for folder in named_ours if _TEMPORARY.fullmatch(folder.name)]
    for folder in (*runs.glob("*"), *temporary):
        if _is_older(folder, _MAX_AGE_SECONDS):
            remove(folder)
    for folder in temporary:
        if _is_older(folder, _STARTING_SECONDS) and _is_abandoned(folder):
            remove(folder)
    return runs / uuid.uuid4().hex


def _is_older(folder: Path, seconds: float) -> bool:
    """Whether a folder is this user's and that old. False if another run has removed it."""
    try:
        status = folder.lstat()
    except OSError:
        return False
    own = not hasattr(os, "getuid") or status.st_uid == os.getuid()
    return own and time.time() - status.st_mtime > seconds


def _is_abandoned(folder: Path) -> bool:
    """Whether a folder is a worker's and no process holds its lock: the process that started the worker was killed."""
    try:
        if (folder / _OWNER).is_file():
            with locks.hold(folder / _OWNER, timeout=0):
                return True
    except (LockedError, OSError):
        pass
    return False


@dataclass(frozen=True, slots=True)
class WorkerFolder:
    """One worker's folder for temporary files, and the lock that tells other runs that it is in use."""

    path: Path
    _lock: ExitStack

    def remove(self) -> None:
        """Remove the folder, ignoring what the system refuses to delete."""
        self._lock.close()  # first: Windows does not delete open files
        remove(self.path)


def new_worker_folder() -> WorkerFolder:
    """Make a folder for one worker's temporary files, closed to other users.

    It is marked as used by a lock and not by a process id, which says nothing about processes of other containers that
    share the temporary folder.

    Raises:
        StorageError: there is no room for it.
    """
    try:
        path = Path(tempfile.mkdtemp(prefix="rwkvperf-worker-"))
    except OSError as error:
        raise _no_room(error) from error
    lock = ExitStack()
    try:
        lock.enter_context(locks.hold(path / _OWNER, timeout=0))
    except (LockedError, OSError) as error:
        remove(path)
        raise _no_room(error) from error
    return WorkerFolder(path, lock)


def _no_room(error: Exception) -> StorageError:
    return StorageError(f"no temporary folder for a worker: {error}; make room or change TMPDIR")


def remove(folder: Path) -> None:
    """Remove a folder, ignoring what the system refuses to delete."""
    shutil.rmtree(folder, ignore_errors=True)


def lock_for(path: Path) -> Path:
    """The lock file for a path. It is in the cache, so that no lock files appear in repositories."""
    folder = cache() / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:16]
    return folder / f"{path.name}-{digest}.lock"
