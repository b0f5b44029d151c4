"""What a run set out to do, in its folder: an xdist controller collects nothing, and yet it writes the reports."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from pytest_rwkvperf.core.atomic import write_atomically
from pytest_rwkvperf.core.cases import Item
from pytest_rwkvperf.core.errors import StorageError
from pytest_rwkvperf.run.discovery import Missing

if TYPE_CHECKING:
    from pathlib import Path

_NAME = "outline"


@dataclass(frozen=True, slots=True)
class Outline:
    """The items to measure, the engines that cannot, and where each test measures."""

    items: tuple[Item, ...] = ()
    missing: tuple[Missing, ...] = ()
    hardware: dict[str, str] = field(default_factory=dict)
    """By a test's node id, the name of what it is measured on (launcher.hardware)."""


def write(folder: Path, outline: Outline) -> None:
    """Leave it in a run's folder; every process of the run leaves the same.

    Raises:
        StorageError: the folder cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / _NAME, msgspec.json.encode(outline))
    except OSError as error:
        raise StorageError(
            f"the run's folder {folder} cannot be written: {error}; make room, or point the cache elsewhere "
            "(XDG_CACHE_HOME on Linux)"
        ) from error


def read(folder: Path) -> Outline:
    """What was left in a run's folder; nothing when the run ended before."""
    path = folder / _NAME
    return msgspec.json.decode(path.read_bytes(), type=Outline) if path.exists() else Outline()
