"""This user's folders outside the repository: the cache, the data folder, and those of one run and one worker."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
import uuid
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from platformdirs import user_cache_path, user_data_path

from pytest_rwkvperf.core import clock, locks
from pytest_rwkvperf.core.atomic import short_name
from pytest_rwkvperf.core.errors import LockedError, RefusedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FolderKind = Literal["worker", "fleet", "ab", "bisect", "certify"]
"""What a temporary folder is for: the word in its name."""

_STARTING_SECONDS = 60.0
"""Younger folders are kept: their owner may not have locked them yet."""

_TEMPORARY = re.compile(rf"rwkvperf-({'|'.join(get_args(FolderKind))})-[a-z0-9_]{{8}}")
"""This project's temporary folders, as `tempfile` completes their names. Other folders called rwkvperf-… are the
user's."""

_OWNER = ".owner"

_PARTS = ("runs", "locks", "leases", "oracle", "parity", "models")
"""The folders of the cache that a run needs."""


def cache() -> Path:
    """The user's cache folder for this project.

    Raises:
        RefusedError: there is no home and no variable that names another folder.
    """
    return _user_folder(user_cache_path, "XDG_CACHE_HOME")


def data() -> Path:
    """The user's data folder for this project, for files that clearing the cache must not remove.

    Raises:
        RefusedError: there is no home and no variable that names another folder.
    """
    return _user_folder(user_data_path, "XDG_DATA_HOME")


def _user_folder(folder: Callable[..., Path], variable: str) -> Path:
    try:
        path = folder("pytest-rwkvperf", appauthor=False)
        if path.is_absolute():  # platformdirs before 4.1 gives `~/.cache` where there is no home
            return path
        reason = f"{path} is no full path"
    except RuntimeError as error:
        reason = str(error)
    raise RefusedError(f"this user has no home folder to keep files in ({reason}); set HOME, or {variable} on Linux")


def in_cache(name: str) -> Path:
    """A folder of the cache, made if need be.

    Raises:
        RefusedError: it cannot be made, or not written to.
    """
    folder = cache() / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RefusedError(f"{folder} cannot be made: {error.strerror}; {locks.ELSEWHERE}") from error
    _check_access(folder, os.R_OK | os.W_OK | os.X_OK)
    return folder


def check_cache() -> None:
    """Check what a run will need of the cache, so that a refusal costs no measurement.

    Raises:
        RefusedError: a folder or a device's lock cannot be used.
    """
    for part in _PARTS:
        in_cache(part)
    for file in (cache() / "leases").iterdir():
        _check_access(file, os.R_OK | os.W_OK)


def _check_access(path: Path, mode: int) -> None:
    if path.exists() and not os.access(path, mode):
        raise RefusedError(
            f"{path} cannot be written: it belongs to another user (a run under sudo?) or the disk is read-only; "
            f"chown it, or {locks.ELSEWHERE}"
        )


@dataclass(frozen=True, slots=True)
class OwnedFolder:
    """A folder of this process's, and the lock that tells other runs that it is in use."""

    path: Path
    _lock: ExitStack

    def remove(self) -> None:
        """Remove the folder, ignoring what the system refuses to delete."""
        self._lock.close()  # first: Windows does not delete open files
        remove(self.path)


def new_run_folder() -> OwnedFolder:
    """Make a folder in which the processes of one run share their records; remove what killed runs left.

    A killed run's folder is one that is older than a minute and whose lock nobody holds; dates alone say nothing of a
    long run, or of one whose clock was put right meanwhile.

    Raises:
        RefusedError: the cache takes no folder, or no lock.
    """
    runs = in_cache("runs")
    named_ours = Path(tempfile.gettempdir()).glob("rwkvperf-*/")
    for folder in (*runs.glob("*"), *(folder for folder in named_ours if _TEMPORARY.fullmatch(folder.name))):
        if _may_be_abandoned(folder) and not _is_owned(folder):
            remove(folder)
    path = runs / uuid.uuid4().hex
    try:
        path.mkdir()
    except OSError as error:
        raise RefusedError(f"{path} cannot be made: {error.strerror}; {locks.ELSEWHERE}") from error
    return _owned(path)


def new_temporary_folder(kind: FolderKind) -> OwnedFolder:
    """Make a temporary folder, closed to other users.

    It is marked as used by a lock and not by a process id, which says nothing about processes of other containers that
    share the temporary folder.

    Raises:
        RefusedError: there is no room for it, or no lock.
    """
    try:
        path = Path(tempfile.mkdtemp(prefix=f"rwkvperf-{kind}-"))
    except OSError as error:
        raise RefusedError(f"no temporary folder: {error}; make room or change TMPDIR") from error
    return _owned(path)


@contextmanager
def temporary(kind: FolderKind) -> Iterator[Path]:
    """A temporary folder for the length of a block; as `new_temporary_folder`."""
    folder = new_temporary_folder(kind)
    try:
        yield folder.path
    finally:
        folder.remove()


def _owned(path: Path) -> OwnedFolder:
    lock = ExitStack()
    try:
        lock.enter_context(locks.hold(path / _OWNER, timeout=0))
    except LockedError as error:  # nobody knows the folder yet but one who looks for abandoned ones
        remove(path)
        raise RefusedError(f"{path} was locked by {error} as soon as it was made; try again") from error
    except BaseException:
        remove(path)
        raise
    return OwnedFolder(path, lock)


def _may_be_abandoned(folder: Path) -> bool:
    """Whether a folder is this user's and older than a start takes. False if another run has removed it."""
    try:
        status = folder.lstat()
    except OSError:
        return False
    own = not hasattr(os, "getuid") or status.st_uid == os.getuid()
    return own and clock.time_of_day() - status.st_mtime > _STARTING_SECONDS


def _is_owned(folder: Path) -> bool:
    """Whether a process holds a folder's lock. If none does, the folder's owner was killed."""
    try:
        with locks.hold(folder / _OWNER, timeout=0):
            return False
    except (LockedError, RefusedError):
        return True


def remove(folder: Path) -> None:
    """Remove a folder, ignoring what the system refuses to delete."""
    shutil.rmtree(folder, ignore_errors=True)


def lock_for(path: Path) -> Path:
    """The lock file for a path. It is in the cache, so that no lock files appear in repositories.

    Raises:
        RefusedError: the cache cannot be used.
    """
    digest = hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:16]
    return in_cache("locks") / f"{short_name(path.name)}-{digest}.lock"
