"""Saves that are killed, compete or find a full disk leave the whole old file or the whole new one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pytest_rwkvperf.core import folders
from pytest_rwkvperf.core.errors import BaselineError, StorageError
from pytest_rwkvperf.store import files, versioned
from tests.faults.disks import small_disk
from tests.faults.sandbox import TIMEOUT
from tests.faults.savers import HOLDER, MACHINE, stored

SCRIPT = Path(__file__).with_name("savers.py")

posix = pytest.mark.skipif(os.name == "nt", reason="forks and signals of POSIX")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "meine Läufe 龙"
    made.mkdir()
    return made


def run_savers(*arguments: str | Path) -> dict[str, Any]:
    """Run `savers.py`; returns what it prints."""
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


@posix
def test_a_save_that_is_killed_at_any_step_leaves_the_old_file_or_the_new_one(folder: Path) -> None:
    result = run_savers("crash", folder)
    steps = " ".join(result["steps"])
    assert all(f"{when} {call}" in steps for when in ("call", "return") for call in ("write", "fsync", "replace"))
    assert result["problems"] == []
    assert min(result["seen"].values()) > 1, "some saves die before the rename, some after it"
    assert result["slowest_next_save"] < versioned.LOCK_SECONDS / 2, "a killed holder's lock is free"


@posix
@pytest.mark.parametrize("seconds", [2, pytest.param(240, marks=pytest.mark.prove)])
def test_sixteen_savers_at_once_lose_nothing(folder: Path, seconds: int) -> None:
    result = run_savers("race", folder, "16", str(seconds))
    assert result["exit_codes"] == [0] * 16
    assert result["failures"] == []
    assert result["lost"] == []
    assert result["saves"] >= 32
    assert result["shared"] == 10, "as many sessions as are kept"
    assert result["files"] == [files.path_for(folder, MACHINE).name]


@posix
def test_the_holder_of_the_lock_is_named_and_loses_it_when_killed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = files.save(folder, MACHINE, [stored("first")], replacing=False)
    before = path.read_bytes()
    monkeypatch.setattr(versioned, "LOCK_SECONDS", 0.1)
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        message = rf"locked by process {holder.pid} on .* since 20\d\d-.*Z"
        try:
            with pytest.raises(BaselineError, match=message) as caught:
                files.save(folder, MACHINE, [stored("second")], replacing=False)
        finally:
            holder.kill()
    assert str(path) in str(caught.value)
    assert path.read_bytes() == before
    files.save(folder, MACHINE, [stored("second")], replacing=False)


@pytest.mark.skipif(sys.platform != "linux", reason="tmpfs is Linux's")
def test_a_full_disk_leaves_the_old_file_and_nothing_else(folder: Path) -> None:
    with small_disk(folder, "64k"):
        path = files.save(folder, MACHINE, [stored("first")], replacing=False)
        before = path.read_bytes()
        with pytest.raises(BaselineError, match=r"cannot be written: .*No space left on device.*left as it is"):
            files.save(folder, MACHINE, [stored(f"engine-{number}") for number in range(200)], replacing=False)
        assert path.read_bytes() == before
        assert [item.name for item in folder.iterdir()] == [path.name]


@pytest.mark.skipif(sys.platform != "linux", reason="tmpfs is Linux's")
def test_a_full_temporary_folder_is_a_storage_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with small_disk(folder, "4k,nr_inodes=1"):
        monkeypatch.setattr("tempfile.tempdir", str(folder))
        with pytest.raises(StorageError, match=r"no temporary folder: .*TMPDIR"):
            folders.new_temporary_folder("worker")
