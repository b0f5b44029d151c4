"""What a builder of an engine is (`Builder`), and what it is given to build with (`Place`)."""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from pytest_rwkvperf.core import clock, subprocesses
from pytest_rwkvperf.core.errors import BackendMissingError
from pytest_rwkvperf.environments import build
from pytest_rwkvperf.environments.build import BuildError, PipInput, check_disk, last_lines
from pytest_rwkvperf.environments.requirements import Requirement
from pytest_rwkvperf.environments.side import Side

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

_COUNTED = re.compile(r"\[\s*\d+(/\d+|%)\]")
"""How Ninja and make begin the line of a step."""

_LIBRARY = re.compile(r".*\.(so|dylib|dll)(\.\d+)?")


@dataclass(frozen=True, slots=True)
class Place:
    """Where one state of an engine is built."""

    label: str
    """The engine and its state for people."""
    sources: Path
    """A folder with the files of the state."""
    work: Path
    """The build tree. It is kept from one state to the next, so that only what differs is compiled."""
    target: Path
    """An empty folder for what is built; it is renamed to `final` when the builder returns."""
    final: Path
    identity: str
    """Tells this state, built with these flags, from all others."""
    log: Path
    descriptors: tuple[int, ...]
    """Open descriptors of the build tree's lock: programs that are started with them hold it."""
    say: Callable[[str], None]
    """Told what happens, and every 20 s that it still does."""

    def run(self, command: Sequence[str | Path], *, environment: Mapping[str, str] | None = None) -> str:
        """Run a step of the build with its output added to the log; returns the output.

        Raises:
            BuildError: it failed; with its last lines.
            StorageError: the disk is full.
        """
        step = self.log.with_suffix(".step.log")
        started = clock.monotonic()
        words = list(map(str, command))

        def still_running() -> None:
            last = progress_of(step.read_text(encoding="utf-8", errors="replace"))
            self.say(f"building {self.label}: {clock.monotonic() - started:.0f} s so far, {last[:80]}")

        code = subprocesses.run_into(
            step, words, still_running, environment={**os.environ, **(environment or {})}, descriptors=self.descriptors
        )
        printed = step.read_text(encoding="utf-8", errors="replace")
        with self.log.open("a", encoding="utf-8") as log:
            log.write(f"$ {' '.join(words)}\n{printed}\n")
        step.unlink()
        if code:
            check_disk(printed, f"{self.label} was built")
            failed = [line.strip() for line in printed.splitlines() if " error: " in line or line.startswith("error")]
            reason = failed[0] if failed else last_lines(printed)
            raise BuildError(f"{self.label} does not build: {reason}\n  everything that was printed: {self.log}")
        return printed


class Builder(Protocol):
    """How one engine is built from a state of its source code."""

    @property
    def name(self) -> str:
        """The word before `@`."""

    @property
    def backend(self) -> str:
        """The backend that measures it."""

    @property
    def upstream(self) -> str:
        """The URL of its repository, used where the user names none."""

    @property
    def marks(self) -> tuple[str, ...]:
        """Paths that a folder with its source has, all of them, and that none of another engine has."""

    @property
    def rwkv7(self) -> tuple[str, str]:
        """A folder of the source, and a word that some file in it has since the engine knows RWKV-7."""

    def flags(self) -> tuple[str, ...]:
        """The build's options, the same for every state: part of the identity, and shown.

        Raises:
            BackendMissingError: this machine has no compiler; the message says how to get one.
        """

    def build(self, place: Place) -> tuple[Side, tuple[str, ...]]:
        """Build it; returns how workers reach it, and in what the build differs from what the flags say.

        Raises:
            BuildError: this state cannot be built.
            StorageError: the disk is full.
        """


def installed(place: Place, name: str, project: Path, variables: Mapping[str, str] | None = None) -> Side:
    """The interpreter of an environment into which pip has installed a project, with these variables for its build.

    Raises:
        BuildError: pip cannot install it.
    """
    requirement = Requirement(place.label, str(project), f"{name} {place.identity}")
    return Side(build.python_of([requirement], place.say, PipInput(variables or {}, place.descriptors)))


def program(name: str, install: str) -> str:
    """The path of a program that a build needs.

    Raises:
        BackendMissingError: it is not on PATH.
    """
    found = shutil.which(name)
    if found is None:
        raise BackendMissingError(f"there is no {name} on PATH, which building from source needs; {install}")
    return found


def is_library(file: Path) -> bool:
    """Whether a file is a shared library, by its name."""
    return _LIBRARY.fullmatch(file.name) is not None


def progress_of(text: str) -> str:
    """How far a build has come by what it printed: the last step that it counts, else its last line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    counted = [line for line in lines if _COUNTED.match(line)]
    return (counted or lines or ["nothing printed yet"])[-1]
