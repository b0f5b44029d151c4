"""`baselines/reference.json`: the software that the baselines were measured with, so that it can be installed again.

It is apart from the machines' figures: a machine of which nothing is stored can still be given the same software.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pytest_rwkvperf.core.errors import BaselineError
from pytest_rwkvperf.core.software import Software
from pytest_rwkvperf.store.versioned import VersionedFormat

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


VERSION = 1


@dataclass(frozen=True, slots=True)
class Recipe:
    """The software that each backend's newest stored figures were measured with."""

    backends: dict[str, Software] = field(default_factory=dict)
    schema: int = VERSION


FORMAT = VersionedFormat(
    "recipe", Recipe, VERSION, BaselineError, "restore it from version control or save a new baseline", lambda _: ""
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
        BaselineError: as `VersionedFormat.update`.
        StorageError: as `VersionedFormat.update`.
    """
    path = path_in(folder)
    FORMAT.update(path, Recipe(), lambda recipe: Recipe({**recipe.backends, **software}))
    return path
