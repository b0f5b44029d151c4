"""Folders of this user that outlive a run: caches, locks, and data on their way elsewhere."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import time
import uuid
from pathlib import Path

from platformdirs import user_cache_path, user_data_path

from pytest_rwkvperf.errors import StorageError

_STALE_SECONDS = 24 * 3600.0
_WORKER_PREFIX = "rwkvperf-worker-"


def cache() -> Path:
    """The user's cache folder for this project."""
    return user_cache_path("pytest-rwkvperf", appauthor=False)


def data() -> Path:
    """The user's data folder for this project: what no cache cleaning may take."""
    return user_data_path("pytest-rwkvperf", appauthor=False)


def new_run_folder() -> Path:
    """Where the processes of one run share its records. Folders that killed runs left behind go after a day."""
    runs = cache() / "runs"
    for folder in (*runs.glob("*"), *Path(tempfile.gettempdir()).glob(f"{_WORKER_PREFIX}*")):
        if _is_stale(folder):
            remove(folder)
    return runs / uuid.uuid4().hex


def _is_stale(folder: Path) -> bool:
    """Whether a folder is this user's and a day old; another run may remove it meanwhile."""
    try:
        found = folder.lstat()
    except OSError:
        return False
    own = not hasattr(os, "getuid") or found.st_uid == os.getuid()
    return own and time.time() - found.st_mtime > _STALE_SECONDS


def worker_folder() -> Path:
    """A new folder for one worker's temporary files, which nobody else may enter.

    Raises:
        StorageError: there is no room for it.
    """
    try:
        return Path(tempfile.mkdtemp(prefix=_WORKER_PREFIX))
    except OSError as error:
        raise StorageError(f"no temporary folder for a worker: {error}; make room or change TMPDIR") from error


def remove(folder: Path) -> None:
    """Remove a folder, as far as the system lets it go."""
    shutil.rmtree(folder, ignore_errors=True)


def lock_for(path: Path) -> Path:
    """A lock file for a path, outside its folder so that nothing strange is left in a repository."""
    folder = cache() / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:16]
    return folder / f"{path.name}-{digest}.lock"
