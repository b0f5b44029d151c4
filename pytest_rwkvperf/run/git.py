"""What git knows of the code under test and of the baseline's file."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_SECONDS = 10.0


def commit(folder: Path) -> str:
    """The revision under test; empty without git or outside a repository."""
    return _answer(folder, "rev-parse", "HEAD")


def last_commit(file: Path) -> str:
    """The short name of the commit that a file last changed in; empty if it is in none."""
    return _answer(file.parent, "log", "-1", "--format=%h", "--", file.name)


def _answer(folder: Path, *arguments: str) -> str:
    try:
        answer = subprocess.run(
            ["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout.strip() if answer.returncode == 0 else ""
