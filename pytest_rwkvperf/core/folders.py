"""Folders of this user that outlive a run: caches, locks, and data on their way elsewhere."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout
from platformdirs import user_cache_path, user_data_path

from pytest_rwkvperf.core.errors import StorageError

_STALE_SECONDS = 24 * 3600.0
_YOUNG_SECONDS = 60.0
_TEMPORARY = re.compile(r"rwkvperf-(worker|fleet|ab|bisect)-[a-z0-9_]{8}")
"""This project's folders among temporary files, as `tempfile` ends their names: whoever else calls a folder rwkvperf-…
means to keep it."""

_OWNER = ".owner"


def cache() -> Path:
    """The user's cache folder for this project."""
    return user_cache_path("pytest-rwkvperf", appauthor=False)


def data() -> Path:
    """The user's data folder for this project: what no cache cleaning may take."""
    return user_data_path("pytest-rwkvperf", appauthor=False)


def new_run_folder() -> Path:
    """Where the processes of one run share its records. Clears away what killed runs left behind.

    Their folders go after a day, those of their workers after a minute.
    """
    runs = cache() / "runs"
    beside = Path(tempfile.gettempdir()).glob("rwkvperf-*/")
    temporary = [folder for folder in beside if _TEMPORARY.fullmatch(folder.name)]
    for folder in (*runs.glob("*"), *temporary):
        if _is_stale(folder, _STALE_SECONDS):
            remove(folder)
    for folder in temporary:
        if _is_stale(folder, _YOUNG_SECONDS) and _is_abandoned(folder):
            remove(folder)
    return runs / uuid.uuid4().hex


def _is_stale(folder: Path, seconds: float) -> bool:
    """Whether a folder is this user's and that old; another run may remove it meanwhile."""
    try:
        found = folder.lstat()
    except OSError:
        return False
    own = not hasattr(os, "getuid") or found.st_uid == os.getuid()
    return own and time.time() - found.st_mtime > seconds


def _is_abandoned(folder: Path) -> bool:
    """Whether nobody holds the lock in a worker's folder any more: whoever started the worker has been killed."""
    owner = folder / _OWNER
    if not owner.is_file():
        return False
    lock = FileLock(owner)
    try:
        lock.acquire(timeout=0)
    except (Timeout, OSError):
        return False
    lock.release()
    return True


@dataclass(frozen=True, slots=True)
class WorkerFolder:
    """One worker's folder for temporary files, and the lock by which other runs see that it is in use."""

    path: Path
    _lock: FileLock

    def remove(self) -> None:
        """Remove it, as far as the system lets it go."""
        self._lock.release()  # first: Windows keeps files that are open
        remove(self.path)


def worker_folder() -> WorkerFolder:
    """A new folder for one worker's temporary files, which nobody else may enter.

    The lock is this process's and no process id: that says nothing about processes of other containers that share the
    temporary folder, and the system frees a lock however its holder ends.

    Raises:
        StorageError: there is no room for it.
    """
    try:
        path = Path(tempfile.mkdtemp(prefix="rwkvperf-worker-"))
    except OSError as error:
        raise _no_room(error) from error
    lock = FileLock(path / _OWNER, thread_local=False)  # whichever thread ends the worker removes it
    try:
        lock.acquire(timeout=0)
    except (Timeout, OSError) as error:
        remove(path)
        raise _no_room(error) from error
    return WorkerFolder(path, lock)


def _no_room(error: OSError) -> StorageError:
    return StorageError(f"no temporary folder for a worker: {error}; make room or change TMPDIR")


def remove(folder: Path) -> None:
    """Remove a folder, as far as the system lets it go."""
    shutil.rmtree(folder, ignore_errors=True)


def lock_for(path: Path) -> Path:
    """A lock file for a path, outside its folder so that nothing strange is left in a repository."""
    folder = cache() / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:16]
    return folder / f"{path.name}-{digest}.lock"
