"""Reading and writing baseline files: failed reads and saves change nothing."""

from __future__ import annotations

import errno
import os
import re
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from pytest_rwkvperf.core import folders
from pytest_rwkvperf.core.errors import BaselineError, StorageError
from pytest_rwkvperf.machine.fingerprint import Fingerprint
from pytest_rwkvperf.stats.verdicts import MAX_SESSIONS
from pytest_rwkvperf.store import files
from pytest_rwkvperf.store.baseline import Noise

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_rwkvperf.store.baseline import StoredCase

    MakeStored = Callable[..., StoredCase]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a space and characters outside ASCII."""
    made = tmp_path / "meine Läufe 龙"
    made.mkdir()
    return made


@pytest.fixture
def saved(folder: Path, machine: Fingerprint, make_stored: MakeStored) -> Path:
    """A baseline with one case."""
    return files.save(folder, machine, [make_stored()], replacing=False)


def listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# Reading


def test_a_missing_file_is_none(tmp_path: Path) -> None:
    assert files.read(tmp_path / "nothing.json") is None


RESTORE = "restore it from version control"


@pytest.mark.parametrize(
    ("data", "advice"),
    [(b"\xff\xfe", RESTORE), (b"{", RESTORE), (b"", RESTORE), (b'{"schema": 99}', "upgrade pytest-rwkvperf")],
    ids=["bytes", "brace", "empty", "newer"],
)
def test_an_unusable_file_is_named_and_left_unchanged(
    data: bytes, advice: str, saved: Path, machine: Fingerprint, make_stored: MakeStored
) -> None:
    saved.write_bytes(data)
    message = f"{re.escape(str(saved))}.*{advice}"
    with pytest.raises(BaselineError, match=message):
        files.read(saved)
    with pytest.raises(BaselineError, match=message):
        files.save(saved.parent, machine, [make_stored("rwkv")], replacing=True)
    assert saved.read_bytes() == data
    assert listing(saved.parent) == [saved.name]


def test_a_folder_instead_of_a_file_is_refused(folder: Path) -> None:
    with pytest.raises(BaselineError, match="make that possible, or name another path") as caught:
        files.read(folder)
    assert str(folder) in str(caught.value)


def test_the_most_similar_machines_come_first(folder: Path, machine: Fingerprint, make_stored: MakeStored) -> None:
    near = replace(machine, cores=4)
    far = Fingerprint("Darwin", "arm64", "Apple M3", "", 8, 8)
    for fingerprint in (far, near, machine):
        files.save(folder, fingerprint, [make_stored()], replacing=False)
    assert files.others(folder, machine) == [near, far]
    assert files.others(folder / "missing", machine) == []


def test_other_files_in_the_folder_are_ignored(folder: Path, machine: Fingerprint, make_stored: MakeStored) -> None:
    """They are damaged baselines of other machines, or records."""
    near = replace(machine, cores=4)
    files.save(folder, near, [make_stored()], replacing=False)
    (folder / "a.json").write_text("{", "utf-8")
    (folder / "z.json").write_text('{"schema": 1, "cases": []}', "utf-8")
    assert files.others(folder, machine) == [near]


# Saving


def test_what_is_saved_is_read_again(saved: Path, machine: Fingerprint, make_stored: MakeStored) -> None:
    assert saved == files.path_for(saved.parent, machine)
    baseline = files.read(saved)
    assert baseline is not None
    assert baseline.fingerprint == machine
    assert baseline.cases == {make_stored().case.key: make_stored()}
    assert listing(saved.parent) == [saved.name]
    if os.name == "posix":
        assert stat.S_IMODE(saved.stat().st_mode) == 0o644


def test_saving_merges_with_what_is_there(saved: Path, machine: Fingerprint, make_stored: MakeStored) -> None:
    files.save(saved.parent, machine, [make_stored("rwkv"), make_stored(recorded="later")], replacing=False)
    files.save(saved.parent, machine, [make_stored("rwkv", tg128=((9,),), pp512=None)], replacing=True)
    baseline = files.read(saved)
    assert baseline is not None
    first, second = (baseline.cases[make_stored(name).case.key] for name in ("llama-cpp", "rwkv"))
    assert [session.recorded for session in first.sessions] == ["2026-01-01T00:00:00Z", "later"]
    assert [list(session.workloads) for session in second.sessions] == [["pp512"], ["tg128"]]


def test_a_run_is_stored_as_the_newest_where_stored_dates_are_later(
    folder: Path, machine: Fingerprint, make_stored: MakeStored
) -> None:
    dates = [f"2031-01-{day:02}T00:00:00Z" for day in range(1, MAX_SESSIONS + 1)]
    for date in dates:
        files.save(folder, machine, [make_stored(recorded=date)], replacing=False)
    for time in (7, 8):
        new = make_stored(recorded="2026-11-30T00:00:00Z", pp512=((time,),), version="2")
        files.save(folder, machine, [new], replacing=False)
    baseline = files.read(files.path_for(folder, machine))
    assert baseline is not None
    (stored,) = baseline.cases.values()
    assert [session.recorded for session in stored.sessions] == [*dates[2:], dates[-1], dates[-1]]
    assert [session.workloads["pp512"] for session in stored.comparable_sessions("pp512")] == [((7,),), ((8,),)]


@pytest.fixture
def link(saved: Path) -> Path:
    """A link to the baseline, in the baseline's place."""
    elsewhere = saved.parent.parent / "shared"
    elsewhere.mkdir()
    saved.rename(elsewhere / "machine.json")
    saved.symlink_to(Path("..", "shared", "machine.json"))
    return saved


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_saving_through_a_link_changes_its_target(link: Path, machine: Fingerprint, make_stored: MakeStored) -> None:
    assert files.save(link.parent, machine, [make_stored("rwkv")], replacing=False) == link
    assert link.is_symlink()
    assert not link.resolve().is_symlink()
    baseline = files.read(link.resolve())
    assert baseline is not None
    assert len(baseline.cases) == 2
    assert (listing(link.parent), listing(link.resolve().parent)) == ([link.name], ["machine.json"])


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_a_dangling_link_is_refused(link: Path, machine: Fingerprint, make_stored: MakeStored) -> None:
    target = link.resolve()
    target.unlink()
    with pytest.raises(BaselineError, match=r"is a link to .*, which is not there") as caught:
        files.read(link)
    assert str(link) in str(caught.value)
    with pytest.raises(BaselineError, match=r"is a link to .*, which is not there"):
        files.save(link.parent, machine, [make_stored()], replacing=True)
    assert not target.exists()
    assert link.is_symlink()


def test_the_folder_is_made(tmp_path: Path, machine: Fingerprint, make_stored: MakeStored) -> None:
    path = files.save(tmp_path / "a" / "b", machine, [make_stored()], replacing=False)
    assert path.parent == tmp_path / "a" / "b"


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path, machine: Fingerprint, make_stored: MakeStored) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BaselineError, match=r"cannot be written: .*as it is; make that possible") as caught:
        files.save(tmp_path / "file" / "baselines", machine, [make_stored()], replacing=False)
    assert str(tmp_path / "file") in str(caught.value)


@pytest.mark.parametrize("spread", [0.0, -0.1])
def test_a_value_that_could_not_be_read_again_is_not_written(saved: Path, machine: Fingerprint, spread: float) -> None:
    before = saved.read_bytes()
    advice = "nothing was saved, since it could not be read again"
    with pytest.raises(BaselineError, match=rf": {spread} from 3 is no spread of generation times; {advice}$"):
        files.save_noise(saved.parent, machine, {"generation": Noise("2026-01-01T00:00:00Z", spread, 3)})
    assert saved.read_bytes() == before


def test_a_large_spread_is_stored(saved: Path, machine: Fingerprint) -> None:
    noise = Noise("2026-01-01T00:00:00Z", 1.176, 3)
    files.save_noise(saved.parent, machine, {"generation": noise})
    baseline = files.read(saved)
    assert baseline is not None
    assert baseline.noise == {"generation": noise}
    assert baseline.cases


def test_a_name_that_is_not_unicode_is_refused(saved: Path, machine: Fingerprint, make_stored: MakeStored) -> None:
    before = saved.read_bytes()
    stored = make_stored()
    # How Python reads a file name on Linux that is not UTF-8 (PEP 383); `models.resolve` gives models no such name.
    broken = replace(stored, case=replace(stored.case, model=b"m\xff.pth".decode(errors="surrogateescape")))
    with pytest.raises(BaselineError, match="cannot be written"):
        files.save(saved.parent, machine, [broken], replacing=False)
    assert saved.read_bytes() == before
    assert listing(saved.parent) == [saved.name]


def test_files_of_a_killed_writer_are_removed_by_the_next_save(
    saved: Path, machine: Fingerprint, make_stored: MakeStored
) -> None:
    (saved.parent / f".{saved.name}.abc123.tmp").write_bytes(b"{")
    (saved.parent / ".other.json.abc123.tmp").write_bytes(b"{")
    files.save(saved.parent, machine, [make_stored()], replacing=False)
    assert listing(saved.parent) == [".other.json.abc123.tmp", saved.name]


def test_a_file_has_one_lock_outside_its_folder_however_its_path_is_written(folder: Path, own_cache: Path) -> None:
    path = folder / "here.json"
    lock = folders.lock_for(path)
    assert lock == folders.lock_for(folder / ".." / folder.name / "here.json")
    assert lock != folders.lock_for(folder / "there.json")
    assert not lock.is_relative_to(folder)
    if sys.platform == "linux":
        assert lock.is_relative_to(own_cache)


# Failing disks


@pytest.mark.parametrize(
    ("where", "name", "error"),
    [(os, "fsync", OSError), (Path, "chmod", OSError), (Path, "replace", OSError), (os, "fsync", KeyboardInterrupt)],
    ids=["fsync", "chmod", "replace", "interrupt"],
)
def test_a_failed_save_leaves_the_old_file_and_no_other(
    where: object, name: str, error: type[BaseException], saved: Path, machine: Fingerprint, make_stored: MakeStored
) -> None:
    def fail(*_: Any, **__: Any) -> NoReturn:  # noqa: ANN401 - in the place of several functions
        raise error(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before = saved.read_bytes()
    message = f"{re.escape(str(saved))} cannot be written: .*No space left on device"
    with (
        pytest.MonkeyPatch.context() as patch,
        pytest.raises(BaselineError, match=message) if error is OSError else pytest.raises(KeyboardInterrupt),
    ):
        patch.setattr(where, name, fail)
        files.save(saved.parent, machine, [make_stored("rwkv")], replacing=False)
    assert saved.read_bytes() == before
    assert listing(saved.parent) == [saved.name]


@pytest.mark.skipif(os.name == "nt", reason="folders are flushed on POSIX")
@pytest.mark.parametrize("number", [errno.EIO, errno.EINVAL])
def test_a_folder_that_cannot_be_flushed_is_an_error_after_the_file_was_written(
    saved: Path, machine: Fingerprint, make_stored: MakeStored, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    flush = os.fsync

    def refuse_folders(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(number, os.strerror(number))
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", refuse_folders)
    if number == errno.EINVAL:  # a file system without such a step
        files.save(saved.parent, machine, [make_stored("rwkv")], replacing=False)
    else:
        message = r"was written, but .* could not be flushed .*Input/output error"
        with pytest.raises(StorageError, match=message) as caught:
            files.save(saved.parent, machine, [make_stored("rwkv")], replacing=False)
        assert "left as it is" not in str(caught.value)
        assert str(saved) in str(caught.value)
    baseline = files.read(saved)
    assert baseline is not None
    assert len(baseline.cases) == 2
    assert listing(saved.parent) == [saved.name]


WITHOUT_ROOM = """
import resource, sys
from pathlib import Path
from pytest_rwkvperf.core.errors import BaselineError
from pytest_rwkvperf.store import files
path = Path(sys.argv[1])
baseline = files.read(path)
resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size // 2, resource.RLIM_INFINITY))
try:
    files.save(path.parent, baseline.fingerprint, baseline.cases.values(), replacing=False)
except BaselineError as error:
    print(error)
    sys.exit(3)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="limits on file sizes are POSIX's")
def test_a_file_size_limit_leaves_the_old_file(saved: Path) -> None:
    before = saved.read_bytes()
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_ROOM, str(saved)], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 3, done.stderr
    assert str(saved) in done.stdout
    assert "it was left as it is" in done.stdout
    assert saved.read_bytes() == before
    assert listing(saved.parent) == [saved.name]


def test_an_update_that_changes_nothing_writes_nothing(
    tmp_path: Path, machine: Fingerprint, make_stored: MakeStored
) -> None:
    assert not files.update(tmp_path, machine, lambda baseline: baseline)
    assert not [*tmp_path.glob("*.json")]
    path = files.save(tmp_path, machine, [make_stored()], replacing=False)
    before = path.stat()
    assert not files.update(tmp_path, machine, lambda baseline: baseline)
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
