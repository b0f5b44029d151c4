"""A bisection's answers as they come, one JSON object a line: an interrupted search goes on from them.

A line is on the disk before the next step begins. A killed process may leave half a line, which is not read.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from pytest_rwkvperf.bisect.outcome import Outcome
from pytest_rwkvperf.core.atomic import write_atomically
from pytest_rwkvperf.core.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@dataclass(slots=True)
class Journal:
    """The answers of one search, in a file."""

    path: Path
    _known: list[Outcome] = field(default_factory=list)
    """The answers of an earlier process, in order, that have not been asked for again."""

    @classmethod
    def open(cls, path: Path, *, resume: bool) -> Journal:
        """Begin a journal, or with `resume` go on with the one that is there.

        Raises:
            StorageError: it cannot be written.
        """
        known = _read(path) if resume else []
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, b"".join(msgspec.json.encode(outcome) + b"\n" for outcome in known))
        except OSError as error:
            raise StorageError(f"{path} cannot be written: {error}; make room, or point the cache elsewhere") from error
        return cls(path, known)

    @property
    def known(self) -> int:
        """How many answers an earlier process left."""
        return len(self._known)

    def outcome(self, state: str, against: str, find: Callable[[], Outcome]) -> Outcome:
        """The next answer about a state: an earlier process's, or the one that `find` gives, which is kept.

        A search asks in the same order whenever its answers are the same, so answers are taken in order.
        """
        for known in self._known:
            if (known.state, known.against) == (state, against):
                self._known.remove(known)
                return known
        found = find()
        try:
            with self.path.open("ab") as file:
                file.write(msgspec.json.encode(found) + b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise StorageError(f"{self.path} cannot be written: {error}; make room and run with --resume") from error
        return found


def _read(path: Path) -> list[Outcome]:
    try:
        lines = path.read_bytes().splitlines()
    except OSError:
        return []
    known = []
    # What was cut short when its writer was killed is the last line.
    with suppress(msgspec.MsgspecError):
        for line in lines:
            known.append(msgspec.json.decode(line, type=Outcome))  # noqa: PERF401 - those before the broken one count
    return known
