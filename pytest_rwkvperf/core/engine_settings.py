"""Settings of an engine's own that change its speed: what a backend declares of one, and how a case names its value."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_NUMBER = re.compile(r"0|-?[1-9][0-9]*", re.ASCII)

SWITCH = ("off", "on")
"""The words of a setting that is turned off and on."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting: its name after `--rwkv-set=BACKEND.`, and the values that it may have.

    A value has one spelling only, because it is part of the case's key: `8` and not `08`.
    """

    name: str
    help: str
    """What it changes, and the option of the engine's own tool, as a phrase."""
    words: tuple[str, ...] = ()
    numbers: tuple[int, int] | None = None
    """The least and the largest number."""
    pattern: str = ""
    """A regular expression that the whole value follows, for values that are neither words nor numbers."""
    example: str = ""
    """Such a value, for messages."""
    refused: str = ""
    """Why it can have no value, for a setting that people look for here."""

    def accepts(self, value: str) -> bool:
        """Whether this is one of its values."""
        if self.refused:
            return False
        if self.numbers is not None and _NUMBER.fullmatch(value):
            return self.numbers[0] <= int(value) <= self.numbers[1]
        return value in self.words or bool(self.pattern and re.fullmatch(self.pattern, value, re.ASCII))

    @property
    def allowed(self) -> str:
        """Its values, for messages and documentation."""
        parts = [*self.words]
        if self.numbers is not None:
            parts.append(f"a number from {self.numbers[0]} to {self.numbers[1]}")
        return ", ".join([*parts, *([f"such as {self.example}"] if self.example else [])])


def in_label(settings: Iterable[tuple[str, str]]) -> str:
    """Values in a test's id: `-mmap-off-ubatch128`."""
    return "".join(f"-{name}{value}" if _NUMBER.fullmatch(value) else f"-{name}-{value}" for name, value in settings)


def in_words(settings: Iterable[tuple[str, str]]) -> str:
    """Values in a key or a cell of a table: `mmap=off ubatch=128`."""
    return " ".join(f"{name}={value}" for name, value in settings)
