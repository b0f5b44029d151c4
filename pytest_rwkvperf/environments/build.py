"""Environments that differ from this one in some distributions: made by pip, content-addressed, complete or absent.

`cache()/environments/KEY` is a virtual environment that holds the asked distributions alone; everything else comes from
the environment that this process runs in, whose folders follow on the path. KEY is a hash of what was asked and of all
that changes the result, so an environment is never changed once it is complete. The folder may be kept between CI jobs
(actions/cache). Which are kept when there are many is said in kept.py.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import site
import subprocess
import sys
import sysconfig
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_rwkvperf.core import clock, folders, locks, subprocesses
from pytest_rwkvperf.core.errors import RwkvPerfError, StorageError
from pytest_rwkvperf.environments import kept

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from pytest_rwkvperf.environments.requirements import Requirement

    Say = Callable[[str], None]

BUILD_VARIABLES = (
    "CC", "CXX", "CFLAGS", "CXXFLAGS", "LDFLAGS", "CMAKE_ARGS", "CMAKE_GENERATOR", "CMAKE_BUILD_TYPE", "FORCE_CMAKE",
    "CUDACXX", "CUDAFLAGS", "RUSTFLAGS", "CARGO_BUILD_TARGET", "MACOSX_DEPLOYMENT_TARGET",
)  # fmt: skip
"""What compilers and build back ends read: part of an environment's key."""

_FOLDER = "environments"
"""The folder of all environments below the cache."""

_COMPLETE = "complete"
"""A file in an environment that nothing is missing from."""

_LAST_LINES = 12


class BuildError(RwkvPerfError):
    """An environment cannot be made; the message has pip's last lines and the place of the log."""


@dataclass(frozen=True, slots=True)
class PipInput:
    """What pip's processes get beside this process's own: variables for build back ends, and open descriptors."""

    variables: Mapping[str, str] = field(default_factory=dict)
    descriptors: tuple[int, ...] = ()


def location() -> Path:
    """The folder that holds every environment, each under its key."""
    return folders.cache() / _FOLDER


def key_of(requirements: Iterable[Requirement]) -> str:
    """The name of the environment with these requirements on top of this one."""
    base = [sys.prefix, sysconfig.get_platform(), sys.version]
    variables = {name: os.environ[name] for name in BUILD_VARIABLES if name in os.environ}
    asked = sorted(requirement.identity for requirement in requirements)
    return hashlib.sha256(json.dumps([base, variables, asked], sort_keys=True).encode()).hexdigest()[:24]


def is_made(requirements: Sequence[Requirement]) -> bool:
    """Whether the environment with these requirements is there."""
    return (location() / key_of(requirements) / _COMPLETE).exists()


def python_of(requirements: Sequence[Requirement], say: Say, given: PipInput | None = None) -> str:
    """The interpreter of the environment with these requirements, made now unless it is there.

    Args:
        requirements: what differs from this environment; nothing else is installed, not even what they require.
        say: told what is being made, and every 20 s that it still is.
        given: what pip's processes get; not part of the environment's key.

    Raises:
        BuildError: pip cannot install them.
        OptionError: `kept.VARIABLE` holds no number.
    """
    kept.limit()  # a mistake in it must not cost a build
    folder = folders.in_cache(_FOLDER) / key_of(requirements)
    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    names = ", ".join(str(requirement) for requirement in requirements)
    made = False
    with locks.hold(_lock_of(folder), on_wait=lambda who: say(f"waiting for {who}: it builds {names}")):
        if not (folder / _COMPLETE).exists():
            shutil.rmtree(folder, ignore_errors=True)
            _make(folder, python, requirements, _Installation(names, say, given or PipInput()))
            (folder / _COMPLETE).touch()
            made = True
        kept.use(folder)
    if made and (removed := kept.prune(folder.parent, lambda other: locks.hold(_lock_of(other), timeout=0))):
        say(f"removed environments that were not used lately: {removed} (more than {kept.VARIABLE}={kept.limit()})")
    return str(python)


def keep_in_use(python: str) -> None:
    """Keep the environment of an interpreter until this process ends, if it is one of these; see `kept.use`."""
    folder = Path(python).parents[1]
    if folder.parent == location():
        kept.use(folder)


def _lock_of(folder: Path) -> Path:
    """The lock under which an environment is made, and removed."""
    return folder.with_name(f"{folder.name}.lock")


@dataclass(frozen=True, slots=True)
class _Installation:
    """What an installation is called in messages, who is told of it, and what pip gets for it."""

    names: str
    say: Say
    given: PipInput


def _make(folder: Path, python: Path, requirements: Sequence[Requirement], installation: _Installation) -> None:
    """Make it; one that could not be made is removed, and its log is kept beside it."""
    log = folder.with_suffix(".log")
    try:
        _make_empty(folder, installation.names)
        _install(python, [requirement.argument for requirement in requirements], log, installation)
        _append_own_folders(python)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _make_empty(folder: Path, names: str) -> None:
    made = subprocesses.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], capture=True)
    if made.returncode:
        raise BuildError(f"no virtual environment for {names}: {last_lines(made.stderr)}; is venv installed?")


def _install(python: Path, arguments: Sequence[str], log: Path, installation: _Installation) -> None:
    started, names, say, given = clock.monotonic(), installation.names, installation.say, installation.given
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(python)]
    command = [*pip, "install", "--no-deps", "--no-input", *arguments]

    def still_running() -> None:
        say(f"building an environment with {names}: {clock.monotonic() - started:.0f} s so far")

    say(f"building an environment with {names} (log: {log})")
    code = subprocesses.run_into(
        log, command, still_running, environment={**os.environ, **given.variables}, descriptors=given.descriptors
    )
    if code:
        printed = log.read_text(encoding="utf-8", errors="replace")
        check_disk(printed, f"{names} was installed")
        raise BuildError(f"{names} cannot be installed: {last_lines(printed)}\n  everything that pip printed: {log}")


def check_disk(printed: str, what: str) -> None:
    """Check that a program that failed did not fail because of a full disk; `what` it did, for the message.

    Raises:
        StorageError: it did, by what it printed.
    """
    if "No space left on device" in printed:
        raise StorageError(f"the disk became full while {what}; make room and run this again")


def _append_own_folders(python: Path) -> None:
    """Let the new environment find what it does not hold in this one."""
    asked = subprocess.run(
        [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True,
        text=True,
        check=True,
    )
    # `addsitedir`, not the folder's name alone: what is installed here in editable mode has .pth files of its own.
    own = dict.fromkeys([*site.getsitepackages(), sysconfig.get_path("purelib")])
    lines = "".join(f"import site; site.addsitedir({folder!r})\n" for folder in own)
    Path(asked.stdout.strip(), "rwkvperf_base.pth").write_text(lines, encoding="utf-8")


def last_lines(text: str) -> str:
    """The end of what a program printed, as one line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return "; ".join(lines[-_LAST_LINES:]) or "it printed nothing"
