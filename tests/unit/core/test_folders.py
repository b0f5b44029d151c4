"""What killed runs left is removed, and nothing else; and what is said where the system gives no folder."""

from __future__ import annotations

import errno
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Literal, get_args

import pytest

from pytest_rwkvperf.core import folders
from pytest_rwkvperf.core.errors import RefusedError

DAY_SECONDS = 24 * 3600


@pytest.fixture(autouse=True)
def own_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))


def age(path: Path, seconds: float) -> None:
    os.utime(path, (time.time() - seconds,) * 2)


def test_a_run_removes_old_folders_that_nobody_owns(tmp_path: Path) -> None:
    for kind in get_args(folders.FolderKind):
        tempfile.mkdtemp(prefix=f"rwkvperf-{kind}-")
    kept = {"rwkvperf-models", "rwkvperf-fleet-results", "rwkvperf-worker-notes", "somebodys"}
    for name in kept:
        (tmp_path / "temporary" / name).mkdir()
    (tmp_path / "temporary" / "rwkvperf-ab-of_files").touch()
    for path in (tmp_path / "temporary").iterdir():
        age(path, 2 * DAY_SECONDS)
    today = tempfile.mkdtemp(prefix="rwkvperf-ab-")
    folders.new_run_folder()
    left = {path.name for path in (tmp_path / "temporary").iterdir()}
    assert left == kept | {"rwkvperf-ab-of_files", Path(today).name}


@pytest.mark.parametrize("kind", ["run", "worker", "certify"])
def test_a_living_owners_folder_stays_whatever_its_age(kind: Literal["run", "worker", "certify"]) -> None:
    living, killed = (
        folders.new_run_folder() if kind == "run" else folders.new_temporary_folder(kind) for _ in range(2)
    )
    killed._lock.close()  # as the system does
    for folder in (living, killed):
        age(folder.path, 2 * DAY_SECONDS)
    folders.new_run_folder()
    assert living.path.is_dir()
    assert not killed.path.exists()
    living.remove()
    assert not living.path.exists()


def test_a_user_without_a_home_is_told_which_variable_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home(*_: str, **__: object) -> Path:
        raise RuntimeError("could not determine the home directory")

    for place in (no_home, lambda *_, **__: Path("~/.cache/pytest-rwkvperf")):
        monkeypatch.setattr(folders, "user_cache_path", place)
        monkeypatch.setattr(folders, "user_data_path", place)
        with pytest.raises(RefusedError, match=r"no home folder .* set HOME, or XDG_CACHE_HOME on Linux"):
            folders.new_run_folder()
        with pytest.raises(RefusedError, match="XDG_DATA_HOME"):
            folders.data()


@pytest.mark.filterwarnings("error")
@pytest.mark.skipif(sys.platform == "win32", reason="flock is POSIX")
@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EROFS])
def test_a_file_system_without_locks_is_refused_with_the_file_and_a_remedy(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    def refuse(*_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(RefusedError, match=r"cache/.*\.owner.* cannot be locked: .*XDG_CACHE_HOME"):
        folders.new_run_folder()
    assert not [*(tmp_path / "cache/pytest-rwkvperf/runs").iterdir()]


def test_a_part_of_the_cache_of_another_user_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    folders.check_cache()
    lock = folders.cache() / "leases" / "cpu.lock"
    lock.touch()
    for place in (lock, lock.parent, folders.cache() / "oracle"):
        monkeypatch.setattr(os, "access", lambda path, _, place=place: path != place)
        with pytest.raises(RefusedError, match=f"{place} cannot be written: .*sudo.*chown"):
            folders.check_cache()
