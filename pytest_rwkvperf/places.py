"""Folders of this user that outlive a run: caches and locks."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from platformdirs import user_cache_path

if TYPE_CHECKING:
    from pathlib import Path


def cache() -> Path:
    """The user's cache folder for this project."""
    return user_cache_path("pytest-rwkvperf", appauthor=False)


def lock_for(path: Path) -> Path:
    """A lock file for a path, outside its folder so that nothing strange is left in a repository."""
    folder = cache() / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:16]
    return folder / f"{path.name}-{digest}.lock"
