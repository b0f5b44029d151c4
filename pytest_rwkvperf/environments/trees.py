"""Builds of engines from source: one build tree for each engine, and what was built, complete or absent.

`cache()/sources/ENGINE/` has `objects.git` (git.py), the `files` of one state, the build tree `work`, and in
`built/KEY` what was built of each state. The same two folders serve every state of an engine, so the next commit
compiles only what differs from the one before; other flags or compilers begin a new build tree. KEY is a hash of the
files' content, the flags, the compilers and this environment. A build that was interrupted is absent; it goes on from
the files that are compiled where Ninja keeps account of them.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import sys
import sysconfig
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_rwkvperf.core import clock, folders, locks
from pytest_rwkvperf.core.digest import sha256_of
from pytest_rwkvperf.core.errors import OptionError, StorageError
from pytest_rwkvperf.environments import git, kept, sources
from pytest_rwkvperf.environments.build import BUILD_VARIABLES, BuildError, keep_in_use
from pytest_rwkvperf.environments.builders.builder import Place, is_library
from pytest_rwkvperf.environments.builders.registry import BUILDERS, recognised
from pytest_rwkvperf.environments.git import Commit, Store
from pytest_rwkvperf.environments.side import Side

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_rwkvperf.environments.build import Say
    from pytest_rwkvperf.environments.builders.builder import Builder
    from pytest_rwkvperf.environments.sources import Source

_FACTS = "build.json"
"""A file in a build's folder; written last, so that a folder with it is complete."""

_RUNNING, _SETTINGS = ".rwkvperf-running", ".rwkvperf-settings"
"""Two files in the build tree: the first is there while a build runs; the second has a hash of what the tree was
configured with."""


@dataclass(frozen=True, slots=True)
class Build:
    """What was built of one state."""

    label: str
    """The engine and its state for people."""
    side: Side
    flags: tuple[str, ...]
    notes: tuple[str, ...]
    """Where the build differs from what the flags say; empty for most."""
    seconds: float
    """How long building took; 0 where the build was there already."""
    digest: str
    """A hash of the built libraries, equal for two states whose code is the same to the byte; empty without any."""


@dataclass(frozen=True, slots=True)
class _State:
    """A source, resolved: its engine, and the commit, or the folder that it is."""

    builder: Builder
    origin: str
    repository: Path
    """The origin's repository on this machine: itself, or a mirror of a URL."""
    commit: Commit | None

    @property
    def at_url(self) -> bool:
        return git.is_url(self.origin)

    @property
    def label(self) -> str:
        if self.commit is None:
            return f"{self.builder.name} in {self.origin}"
        return f"{self.builder.name} {self.commit.short}"


def engine_of(source: Source) -> Builder:
    """The builder of a source's engine.

    Raises:
        OptionError: the repository cannot be reached, has no such revision, or is another project's.
    """
    return _resolved(source).builder


def build(source: Source, say: Say) -> Build:
    """What was built of a source, made now unless it is there.

    Raises:
        OptionError: as `engine_of`.
        BuildError: this state cannot be built, or does not know RWKV-7.
        BackendMissingError: this machine lacks what building needs.
        StorageError: the disk is full.
    """
    kept.limit()  # a mistake in it must not cost a build
    state = _resolved(source)
    flags = state.builder.flags()
    folder = folders.in_cache(sources.FOLDER) / state.builder.name
    folder.mkdir(exist_ok=True)
    try:
        with locks.hold(folder / "lock", on_wait=lambda who: say(f"waiting for {who}: it builds {state.builder.name}")):
            return _find_or_build(state, flags, folder, say)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise StorageError(
                f"the disk became full while {state.label} was built; make room below {folder}"
            ) from None
        raise


def _resolved(source: Source) -> _State:
    if not source.revision:
        return _State(BUILDERS[source.engine], source.origin, Path(source.origin), None)
    repository = source.repository()
    commit = git.commit(repository, source.revision)
    builder = BUILDERS.get(source.engine) or recognised(lambda path: git.has_file(repository, commit.name, path))
    if builder is None:
        known = ", ".join(BUILDERS)
        raise OptionError(f"{source} is no source of an engine that can be built from it; known: {known}")
    return _State(builder, source.origin, repository, commit)


def _find_or_build(state: _State, flags: tuple[str, ...], folder: Path, say: Say) -> Build:
    store = Store(folder / "objects.git", folder / "files")
    parts = list(_parts(state, store, folder))
    settings = _settings(state.builder, flags)
    identity = _hash([settings, [tree for _, tree in parts]])
    final = folder / "built" / identity
    kept.use(final)
    if (found := _read_build(final, state.label)) is not None:
        return found
    killed = "waiting for the compilers of a build that was killed"
    with locks.held_by_children(folder / "work.lock", lambda: say(killed)) as descriptors:
        say(f"building {state.label} (log: {final.with_suffix('.log')}; {' '.join(flags)})")
        _prepare_tree(folder / "work", settings)
        for part, tree in parts:
            part.check_out(tree)
        _check_rwkv7(state, store.files)
        place = Place(
            label=state.label,
            sources=store.files,
            work=folder / "work",
            target=folder / "built" / f".{identity}.part",
            final=final,
            identity=identity,
            log=final.with_suffix(".log"),
            descriptors=descriptors,
            say=say,
        )
        made = _build(state, flags, place)
    kept.use(final)
    if removed := kept.prune(final.parent):
        say(f"removed builds that were not used lately: {removed} (more than {kept.VARIABLE}={kept.limit()})")
    return made


def _build(state: _State, flags: tuple[str, ...], place: Place) -> Build:
    started = clock.monotonic()
    shutil.rmtree(place.target, ignore_errors=True)
    shutil.rmtree(place.final, ignore_errors=True)
    place.target.mkdir(parents=True)
    place.log.unlink(missing_ok=True)
    running = place.work / _RUNNING
    running.touch()
    try:
        side, notes = state.builder.build(place)
    except BuildError:
        running.unlink()  # it ended by itself, and left no file half written
        raise
    running.unlink()
    seconds = round(clock.monotonic() - started, 1)
    facts = Build(state.label, side, flags, notes, seconds, _digest(place.target))
    (place.target / _FACTS).write_text(json.dumps(asdict(facts)), encoding="utf-8")
    place.target.rename(place.final)
    return facts


def _prepare_tree(work: Path, settings: str) -> None:
    """Make the build tree, or remove what is in it where that would go into a build of these settings wrongly.

    CMake's cache keeps an option that is no longer given. Of an interrupted build, make takes a half-written file for
    whole; Ninja notes a file when its command has ended, and makes it again otherwise.
    """
    noted = work / _SETTINGS
    others = not noted.exists() or noted.read_text(encoding="utf-8") != settings
    if others or ((work / _RUNNING).exists() and not any(work.rglob(".ninja_log"))):
        shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True, exist_ok=True)
    noted.write_text(settings, encoding="utf-8")


def _parts(state: _State, store: Store, folder: Path) -> Iterator[tuple[Store, str]]:
    """The store and the tree of the source, then those of each submodule, inner ones after outer ones."""
    if state.commit is None:
        tree = store.snapshot(Path(state.origin))
    else:
        store.use(state.repository, mirror=state.at_url)
        tree = state.commit.tree
    yield store, tree
    for path, commit in store.submodules(tree).items():
        inner = Store(folder / f"objects-{path.replace('/', '-')}.git", store.files / path)
        here = None if state.at_url else Path(state.origin, path)
        if here and state.commit is None:
            yield inner, inner.snapshot(here)
            continue
        if here and git.is_repository(here):
            inner.use(here, mirror=False)
        else:
            inner.use(sources.mirror_of(store.submodule_url(tree, path)), mirror=True)
        yield inner, inner.tree_of(commit)


def _check_rwkv7(state: _State, files: Path) -> None:
    folder, word = state.builder.rwkv7
    texts = (path.read_bytes() for path in (files / folder).rglob("*") if path.is_file())
    if not any(word.encode() in text for text in texts):
        raise BuildError(f"{state.label} does not know RWKV-7 yet (no {word!r} in {folder}); name a later revision")


def _settings(builder: Builder, flags: tuple[str, ...]) -> str:
    """A hash of what a build depends on beside the source."""
    variables = {name: os.environ[name] for name in BUILD_VARIABLES if name in os.environ}
    return _hash([builder.name, flags, variables, sys.prefix, sysconfig.get_platform(), sys.version])


def _hash(parts: list[Any]) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:24]


def _read_build(folder: Path, label: str) -> Build | None:
    """What a folder says was built; None where it is absent, or its interpreter has been removed."""
    try:
        facts = json.loads((folder / _FACTS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    side = Side(**facts["side"])
    keep_in_use(side.python)
    if not Path(side.python).exists():
        return None
    return Build(label, side, tuple(facts["flags"]), tuple(facts["notes"]), 0.0, facts["digest"])


def _digest(folder: Path) -> str:
    """A hash of the names and contents of the libraries in a folder; empty without any."""
    rows = [f"{file.name} {sha256_of(file)}\n" for file in sorted(folder.glob("*")) if is_library(file)]
    return hashlib.sha256("".join(rows).encode()).hexdigest() if rows else ""
