"""The progress of one case's measurement, as those who measure report it."""

from __future__ import annotations

from typing import Protocol


class PacedProgress(Protocol):
    """Called with a sentence about what is being done; it writes nothing while a sample is taken."""

    def __call__(self, sentence: str, /) -> None:
        """Note what is being done from now on."""

    def pace(self, done: int, least: int) -> None:
        """Note that `done` processes, or pairs of processes, have ended, of at least `least` of the case."""
