"""What names a state of an engine's source code: `ENGINE@REVISION`, `REPOSITORY@REVISION`, or a folder as it is."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from pytest_rwkvperf.core import folders
from pytest_rwkvperf.core.errors import OptionError
from pytest_rwkvperf.environments import git
from pytest_rwkvperf.environments.builders.registry import BUILDERS, recognised

FOLDER = "sources"
"""The folder below the cache that has, for each engine, git objects, the files of one state, the build tree, and what
was built."""


@dataclass(frozen=True, slots=True)
class Source:
    """A state of an engine's source code, as the user named it."""

    engine: str
    """The builder's name; empty where the revision itself tells."""
    origin: str
    """A repository's path or URL, or a folder's path."""
    revision: str
    """A name of a commit; empty for the folder as it is, uncommitted changes included."""

    def __str__(self) -> str:
        return f"{self.origin}@{self.revision}" if self.revision else self.origin

    @property
    def at_url(self) -> bool:
        """Whether the repository is not on this machine."""
        return git.is_url(self.origin)

    def repository(self) -> Path:
        """A local repository with the revision: the user's own, or a mirror of the one at a URL, brought up to date.

        Raises:
            OptionError: it cannot be reached.
        """
        if not self.at_url:
            return Path(self.origin)
        return mirror_of(self.origin)


def mirror_of(url: str) -> Path:
    """A local repository with the history of one at a URL, brought up to date.

    Raises:
        OptionError: it cannot be reached.
    """
    name = hashlib.sha256(url.encode()).hexdigest()[:16]
    return git.mirror(url, folders.in_cache(FOLDER) / f"mirror-{name}.git")


def of_text(text: str) -> Source | None:
    """The state that a text names; None where it is nothing of the kind.

    Args:
        text: `llama.cpp@REVISION`, `PATH@REVISION`, `URL@REVISION`, or the path of a folder with an engine's source.

    Raises:
        OptionError: a folder before `@` is no repository, a URL holds a password, or nothing follows `@`.
    """
    place, at, revision = text.rpartition("@")
    if not at:
        return _folder(Path(text).expanduser())
    if " " in place or "git+" in text or "://" in revision:
        return None  # a requirement of PEP 508
    path = Path(place).expanduser()
    known = place in BUILDERS or git.is_url(place)
    if not known and not path.is_dir():
        return None
    if git.is_url(place):
        git.check_url(place)
    if not revision:
        raise OptionError(f"{text} lacks a revision after the @; write a commit, a tag or a branch")
    if known:
        return Source(place, BUILDERS[place].upstream, revision) if place in BUILDERS else Source("", place, revision)
    if not git.is_repository(path):
        raise OptionError(f"{path} is no git repository, so it has no revisions; name the folder alone for its files")
    return Source("", str(path.resolve()), revision)


def in_repository(text: str, repository: str) -> str:
    """`ENGINE@REVISION` with another repository in the place of the engine's own; any other text as it is."""
    place, at, revision = text.rpartition("@")
    return f"{repository}@{revision}" if at and place in BUILDERS else text


def _folder(path: Path) -> Source | None:
    builder = recognised(lambda name: (path / name).exists()) if path.is_dir() else None
    return Source(builder.name, str(path.resolve()), "") if builder else None
