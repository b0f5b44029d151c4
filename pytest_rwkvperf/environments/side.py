"""One side of an A/B run: an interpreter with an engine in it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Side:
    """An interpreter, and the variables that an engine under it gets beside its own."""

    python: str
    variables: Mapping[str, str | None] = field(default_factory=dict)
    """None as a value unsets the variable."""
