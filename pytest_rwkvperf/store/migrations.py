"""Older baseline files in today's form. Done in memory when a file is read; only a save writes the new form."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Step = Callable[[dict[str, Any]], dict[str, Any]]

STEPS: Mapping[int, Step] = {}
"""What makes a file of one schema version one of the next; `tests/unit/store/versions` has a file of each.

A field that is new and may be absent needs no step here, but the version is raised for it all the same: an earlier
release would otherwise call it a stray key where it should ask to be upgraded.
"""


def migrated(raw: dict[str, Any], version: int, current: int, steps: Mapping[int, Step] = STEPS) -> dict[str, Any]:
    """A file's content as the current schema has it; `raw` is left as it is.

    Raises:
        KeyError, TypeError: the content is not what its version says.
    """
    for number in range(version, current):
        if number in steps:
            raw = steps[number](dict(raw))
    return {**raw, "schema": current}
