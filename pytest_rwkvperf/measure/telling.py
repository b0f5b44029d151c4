"""What measuring tells while it runs."""

from __future__ import annotations

from typing import Protocol


class Telling(Protocol):
    """Called with a sentence about what is being done; nothing is written between two samples."""

    def __call__(self, sentence: str, /) -> None:
        """From now on."""

    def pace(self, done: int, least: int) -> None:
        """So many processes, or pairs of processes, of the case's least number are done."""


class Silence:
    """A `Telling` that nobody listens to."""

    def __call__(self, _sentence: str, /) -> None:
        """Say nothing."""

    def pace(self, done: int, least: int) -> None:
        """Say nothing."""
