"""`baselines/reference.json`: with which software the baselines were measured, so that it can be had again.

It is apart from the machines' figures: a machine of which nothing is stored can still be given the same software.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from pytest_rwkvperf.core import locks, strict_json
from pytest_rwkvperf.core.atomic import destination, write_atomically
from pytest_rwkvperf.core.errors import BaselineError, LockedError
from pytest_rwkvperf.core.folders import lock_for
from pytest_rwkvperf.core.software import Software
from pytest_rwkvperf.store.versioned import Format

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


VERSION = 1
LOCK_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Recipe:
    """The software that each backend's newest stored figures were measured with."""

    backends: dict[str, Software] = field(default_factory=dict)
    schema: int = VERSION


FORMAT = Format(
    "recipe", Recipe, VERSION, BaselineError, "restore it from version control or save a baseline anew", lambda _: ""
)


def path_in(folder: Path) -> Path:
    """The recipe's path in a folder of baselines."""
    return folder / "reference.json"


def read(folder: Path) -> Recipe:
    """The recipe of a folder of baselines; an empty one where there is none.

    Raises:
        BaselineError: the file is unusable; the message names it.
    """
    return FORMAT.read(path_in(folder)) or Recipe()


def save(folder: Path, software: Mapping[str, Software]) -> Path:
    """Store the software of these backends in place of what was stored of them.

    Raises:
        BaselineError: the lock is taken, the file is unusable, or the disk refuses; the file is unchanged.
        StorageError: the new file is in place, and its folder cannot be flushed to the disk.
    """
    path = path_in(folder)
    try:
        with locks.hold(lock_for(path), LOCK_SECONDS):
            recipe = Recipe({**read(folder).backends, **software})
            text = strict_json.dumps(msgspec.to_builtins(recipe), sort_keys=True)
            write_atomically(destination(path), text.encode())
    except LockedError as error:
        raise BaselineError(f"recipe {path} is locked by {error}; try again when that has ended") from error
    except OSError as error:
        raise BaselineError(f"recipe {path} cannot be written: {error}; it was left as it is") from error
    return path
