"""Folders of this user that outlive a run: caches and locks."""

from __future__ import annotations

import hashlib
import shutil
import time
import uuid
from typing import TYPE_CHECKING

from platformdirs import user_cache_path

if TYPE_CHECKING:
    from pathlib import Path

_STALE_SECONDS = 24 * 3600.0


def cache() -> Path:
    """The user's cache folder for this project."""
    return user_cache_path("pytest-rwkvperf", appauthor=False)


def new_run_folder() -> Path:
    """Where the processes of one run share its records. Folders that killed runs left behind go after a day."""
    runs = cache() / "runs"
    for folder in runs.glob("*"):
        if time.time() - folder.stat().st_mtime > _STALE_SECONDS:
            shutil.rmtree(folder, ignore_errors=True)
    return runs / uuid.uuid4().hex


def lock_for(path: Path) -> Path:
    """A lock file for a path, outside its folder so that nothing strange is left in a repository."""
    folder = cache() / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:16]
    return folder / f"{path.name}-{digest}.lock"
