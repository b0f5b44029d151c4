"""What a bisection searches: releases of a package on the index, or commits of an engine's repository."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from pytest_rwkvperf.environments import build, git, index, requirements, sources, trees

if TYPE_CHECKING:
    from pytest_rwkvperf.environments.build import Say


@dataclass(frozen=True, slots=True)
class Prepared:
    """A state that was built, and how pytest measures it."""

    python: str
    """The interpreter that runs pytest where this is the new side."""
    as_new: tuple[str, ...]
    """pytest's options that make it the new side; none where its interpreter does."""
    as_old: str
    """The value of `--rwkv-ab` that makes it the old side."""
    digest: str = ""
    """The same for two states whose code is the same to the byte; empty where that is not known."""
    seconds: float = 0.0
    notes: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()


class State(Protocol):
    """One release or commit."""

    @property
    def name(self) -> str:
        """Tells it from all others: a version, or a commit's whole name."""

    @property
    def label(self) -> str:
        """Its name for people."""

    def prepare(self, say: Say) -> Prepared:
        """Build it unless that has been done.

        Raises:
            BuildError: it cannot be built.
        """

    def command(self, older: State, options: str) -> str:
        """The shell command that compares it with an older one again."""


@dataclass(frozen=True, slots=True)
class Release:
    """A release on the package index, in an environment of its own."""

    package: str
    version: str

    @property
    def name(self) -> str:
        """The release's version."""
        return self.version

    @property
    def label(self) -> str:
        """The package with the version."""
        return f"{self.package} {self.version}"

    def prepare(self, say: Say) -> Prepared:
        """Install the release into an environment of its own."""
        python = build.python_of([requirements.of_text(f"{self.package}=={self.version}")], say)
        return Prepared(python, (), python)

    def command(self, older: State, options: str) -> str:
        """Compares both releases from the index."""
        return f"rwkvperf ab {self.package}=={older.name} {self.package}=={self.version} -- {options}".rstrip(" -")


@dataclass(frozen=True, slots=True)
class CommitState:
    """A commit of an engine's repository, built from source."""

    engine: str
    origin: str
    commit: git.Commit

    @property
    def name(self) -> str:
        """The commit's whole name."""
        return self.commit.name

    @property
    def label(self) -> str:
        """The commit's short name and subject."""
        return f"{self.commit.short} ({self.commit.subject})"

    @property
    def _text(self) -> str:
        return f"{self.origin}@{self.commit.name}"

    def prepare(self, say: Say) -> Prepared:
        """Build it in the engine's build tree."""
        made = trees.build(sources.Source(self.engine, self.origin, self.commit.name), say)
        return Prepared(
            sys.executable, (f"--rwkv-new={self._text}",), self._text, made.digest, made.seconds, made.notes, made.flags
        )

    def command(self, older: State, options: str) -> str:
        """Compares both commits of the repository."""
        revisions = f"{self.engine}@{older.name[:12]} {self.engine}@{self.commit.name[:12]}"
        return f"rwkvperf ab {revisions} --repo {self.origin} -- {options}".rstrip(" -")


def releases(package: str, oldest: str, newest: str) -> list[State]:
    """The index's releases from one to another; as `index.releases`."""
    return [Release(package, version) for version in index.releases(package, oldest, newest)]


def commits(engine: str, origin: str, good: str, bad: str) -> list[State]:
    """The commits of a repository from one to another, both included, oldest first.

    Raises:
        OptionError: a revision is unknown, or GOOD is no ancestor of BAD.
    """
    source = sources.Source(engine, origin, bad)
    repository = source.repository()
    first, last = (git.commit(repository, revision) for revision in (good, bad))
    place = origin if source.at_url else str(Path(repository))
    return [CommitState(engine, place, commit) for commit in git.commits(repository, first, last)]
