"""What a run prints, read back."""

from __future__ import annotations

from itertools import takewhile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def verdict_rows(lines: Iterable[str]) -> list[str]:
    """The rows of a run's first table, which has the verdicts."""
    rest = iter(lines)
    if any(line.startswith("backend ") and "verdict" in line for line in rest):
        return [*takewhile(lambda line: line.startswith("scripted "), rest)]
    return []
