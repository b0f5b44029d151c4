"""File systems that lack something: modes, flushing, long names, letters of two cases, links."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from pytest_rwkvperf.core import atomic, folders, locks
from pytest_rwkvperf.core.errors import BaselineError
from pytest_rwkvperf.store import files
from tests.faults.savers import MACHINE, stored

LONGEST = 255
"""Bytes of a file's name on ext4, APFS and NTFS."""


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "baselines"
    made.mkdir()
    return made


def refuse(number: int) -> object:
    """A system call that a file system refuses."""

    def refused(*_arguments: object, **_settings: object) -> None:
        raise OSError(number, os.strerror(number))

    return refused


def is_saved(folder: Path) -> bool:
    path = files.save(folder, MACHINE, [stored("first")], replacing=False)
    assert files.read(path) is not None
    return [item.name for item in folder.iterdir()] == [path.name]


@pytest.mark.parametrize("number", [errno.EPERM, errno.EACCES])
def test_without_modes_a_baseline_is_saved(folder: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setattr(Path, "chmod", refuse(number))  # vfat, and mounts of other users' files
    assert is_saved(folder)


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.ENOSYS])
def test_without_flushing_a_baseline_is_saved(folder: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setattr("os.fsync", refuse(number))
    assert is_saved(folder)


def test_a_disk_that_fails_to_flush_keeps_the_old_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = files.save(folder, MACHINE, [stored("first")], replacing=False)
    before = path.read_bytes()
    monkeypatch.setattr("os.fsync", refuse(errno.EIO))
    with pytest.raises(BaselineError, match=r"cannot be written: .*left as it is"):
        files.save(folder, MACHINE, [stored("second")], replacing=False)
    assert path.read_bytes() == before
    assert [*folder.iterdir()] == [path]


@pytest.mark.parametrize("refused", ["os.link", "os.symlink"])
def test_without_links_a_baseline_is_saved_and_a_folder_locked(
    folder: Path, monkeypatch: pytest.MonkeyPatch, refused: str
) -> None:
    monkeypatch.setattr(refused, refuse(errno.EPERM))  # vfat, exFAT and some network mounts
    assert is_saved(folder)
    with locks.hold(folder / "device.lock"):
        pass
    folders.new_run_folder().remove()


@pytest.mark.parametrize("name", ["n" * LONGEST, "龙" * (LONGEST // 3), "x" * 250 + ".json"])
def test_a_name_as_long_as_the_file_system_allows_is_written_and_locked(folder: Path, name: str) -> None:
    target = folder / name
    atomic.write_atomically(atomic.check_replaceable(target), b"1")
    with locks.hold(folders.lock_for(target)):
        atomic.write_atomically(target, b"2")
    assert target.read_bytes() == b"2"
    assert [*folder.iterdir()] == [target]


def test_leftovers_of_long_names_that_begin_alike_are_told_apart(folder: Path) -> None:
    mine, other = (folder / f"{'n' * 200}{end}" for end in ("1", "2"))
    for target in (mine, other):
        folder.joinpath(f".{atomic.short_name(target.name)}.4711.tmp").touch()
    assert folders.lock_for(mine) != folders.lock_for(other)
    atomic.remove_leftovers(mine)
    (left,) = folder.iterdir()
    assert left.name.startswith(f".{atomic.short_name(other.name)}.")
    left.unlink()


def test_what_is_written_beside_a_file_is_short_enough_for_every_usual_file_system() -> None:
    for name in ("n" * 99, "n" * 100, "n" * 101, "龙" * 85, "reference.json"):
        assert len(os.fsencode(f".{atomic.short_name(name)}.xxxxxxxx.tmp")) <= 143  # eCryptfs
    assert atomic.short_name("reference.json") == "reference.json"


def test_names_that_differ_only_in_case_have_locks_that_differ_in_more(folder: Path) -> None:
    """On a file system that folds case, one lock file for two targets would be safe, two for one would not."""
    upper, lower = (folders.lock_for(folder / name).name for name in ("Model.gguf", "model.gguf"))
    assert upper.lower() != lower.lower()


def test_machines_baselines_never_differ_only_in_case() -> None:
    assert files.path_for(Path(), MACHINE).name == files.path_for(Path(), MACHINE).name.lower()
