"""Reading and writing baseline files: nothing lost, whatever the disk does and whoever else writes."""

from __future__ import annotations

import errno
import json
import os
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
from pytest_rwkvperf.store import files
from pytest_rwkvperf.store.baseline import Noise

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_rwkvperf.store.baseline import StoredCase

    MakeStored = Callable[..., StoredCase]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder such as people have."""
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


def test_no_file_is_no_baseline(tmp_path: Path) -> None:
    assert files.read(tmp_path / "nothing.json") is None


@pytest.mark.parametrize("data", [b"\xff\xfe", b"{", b""], ids=["bytes", "brace", "empty"])
def test_a_file_that_cannot_be_used_is_named_and_left_as_it_is(
    data: bytes, saved: Path, machine: Fingerprint, make_stored: MakeStored
) -> None:
    saved.write_bytes(data)
    with pytest.raises(BaselineError, match="restore it from version control") as caught:
        files.read(saved)
    assert str(saved) in str(caught.value)
    with pytest.raises(BaselineError) as caught:
        files.save(saved.parent, machine, [make_stored("rwkv")], replacing=True)
    assert str(saved) in str(caught.value)
    assert saved.read_bytes() == data
    assert listing(saved.parent) == [saved.name]


def test_a_newer_releases_file_is_left_as_it_is(saved: Path, machine: Fingerprint, make_stored: MakeStored) -> None:
    newer = json.dumps({**json.loads(saved.read_text("utf-8")), "schema": 2}).encode()
    saved.write_bytes(newer)
    with pytest.raises(BaselineError, match="upgrade pytest-rwkvperf"):
        files.save(saved.parent, machine, [make_stored()], replacing=True)
    assert saved.read_bytes() == newer


def test_a_folder_in_a_files_place_is_no_baseline(folder: Path) -> None:
    with pytest.raises(BaselineError, match="make that possible, or name another path") as caught:
        files.read(folder)
    assert str(folder) in str(caught.value)


def test_the_machines_most_alike_come_first(folder: Path, machine: Fingerprint, make_stored: MakeStored) -> None:
    near = replace(machine, cores=4)
    far = Fingerprint("Darwin", "arm64", "Apple M3", "", 8, 8)
    for one in (far, near, machine):
        files.save(folder, one, [make_stored()], replacing=False)
    assert files.others(folder, machine) == [near, far]
    assert files.others(folder / "missing", machine) == []


def test_what_is_no_baseline_beside_it_is_passed_over(
    folder: Path, machine: Fingerprint, make_stored: MakeStored
) -> None:
    """Another machine's damaged file is none of this run's business, nor is a record that lies there."""
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


def test_saving_merges_with_what_is_there(saved: Path, machine: Fingerprint, make_stored: MakeStored) -> None:
    files.save(saved.parent, machine, [make_stored("rwkv"), make_stored(recorded="later")], replacing=False)
    files.save(saved.parent, machine, [make_stored("rwkv", tg128=((9,),), pp512=None)], replacing=True)
    baseline = files.read(saved)
    assert baseline is not None
    first, second = (baseline.cases[make_stored(name).case.key] for name in ("llama-cpp", "rwkv"))
    assert [session.recorded for session in first.sessions] == ["2026-01-01T00:00:00Z", "later"]
    assert [list(session.workloads) for session in second.sessions] == [["pp512"], ["tg128"]]


@pytest.fixture
def link(saved: Path) -> Path:
    """The baseline's place, from which a link leads to the file."""
    elsewhere = saved.parent.parent / "shared"
    elsewhere.mkdir()
    saved.rename(elsewhere / "machine.json")
    saved.symlink_to(Path("..", "shared", "machine.json"))
    return saved


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_a_link_stays_one_and_its_target_gets_what_is_saved(
    link: Path, machine: Fingerprint, make_stored: MakeStored
) -> None:
    assert files.save(link.parent, machine, [make_stored("rwkv")], replacing=False) == link
    assert link.is_symlink()
    assert not link.resolve().is_symlink()
    baseline = files.read(link.resolve())
    assert baseline is not None
    assert len(baseline.cases) == 2
    assert (listing(link.parent), listing(link.resolve().parent)) == ([link.name], ["machine.json"])


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_a_link_that_leads_nowhere_is_named_and_nothing_is_made_there(
    link: Path, machine: Fingerprint, make_stored: MakeStored
) -> None:
    target = link.resolve()
    target.unlink()
    with pytest.raises(BaselineError, match=r"is a link to .*, which is not there") as caught:
        files.read(link)
    assert str(link) in str(caught.value)
    with pytest.raises(BaselineError, match=r"is a link to .*, which is not there"):
        files.save(link.parent, machine, [make_stored()], replacing=True)
    assert not target.exists()
    assert link.is_symlink()


def test_saving_leaves_one_file_that_others_may_read(saved: Path) -> None:
    assert listing(saved.parent) == [saved.name]
    if os.name == "posix":
        assert stat.S_IMODE(saved.stat().st_mode) == 0o644


def test_the_folder_is_made(tmp_path: Path, machine: Fingerprint, make_stored: MakeStored) -> None:
    path = files.save(tmp_path / "a" / "b", machine, [make_stored()], replacing=False)
    assert path.parent == tmp_path / "a" / "b"


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path, machine: Fingerprint, make_stored: MakeStored) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BaselineError, match=r"cannot be written: .*as it is; make that possible") as caught:
        files.save(tmp_path / "file" / "baselines", machine, [make_stored()], replacing=False)
    assert str(tmp_path / "file") in str(caught.value)


@pytest.mark.parametrize("spread", [0.0, -0.1])
def test_what_could_not_be_read_again_is_not_written(saved: Path, machine: Fingerprint, spread: float) -> None:
    before = saved.read_bytes()
    advice = "nothing was saved, since it could not be read again"
    with pytest.raises(BaselineError, match=rf": {spread} from 3 is no spread of generation times; {advice}$"):
        files.save_noise(saved.parent, machine, {"generation": Noise("2026-01-01T00:00:00Z", spread, 3)})
    assert saved.read_bytes() == before


def test_a_machine_whose_processes_differ_threefold_keeps_that(saved: Path, machine: Fingerprint) -> None:
    noise = Noise("2026-01-01T00:00:00Z", 1.176, 3)
    files.save_noise(saved.parent, machine, {"generation": noise})
    baseline = files.read(saved)
    assert baseline is not None
    assert baseline.noise == {"generation": noise}
    assert baseline.cases


def test_a_name_that_is_no_text_is_refused(saved: Path, machine: Fingerprint, make_stored: MakeStored) -> None:
    before = saved.read_bytes()
    stored = make_stored()
    # How Python reads a file name on Linux that is not UTF-8 (PEP 383); `models.resolve` gives models no such name.
    broken = replace(stored, case=replace(stored.case, model=b"m\xff.pth".decode(errors="surrogateescape")))
    with pytest.raises(BaselineError, match="cannot be written"):
        files.save(saved.parent, machine, [broken], replacing=False)
    assert saved.read_bytes() == before
    assert listing(saved.parent) == [saved.name]


def test_what_a_killed_writer_left_is_removed_by_the_next_save(
    saved: Path, machine: Fingerprint, make_stored: MakeStored
) -> None:
    (saved.parent / f".{saved.name}.abc123.tmp").write_bytes(b"{")
    (saved.parent / ".other.json.abc123.tmp").write_bytes(b"{")
    files.save(saved.parent, machine, [make_stored()], replacing=False)
    assert listing(saved.parent) == [".other.json.abc123.tmp", saved.name]


def test_one_file_has_one_lock_outside_its_folder_however_it_is_spelt(folder: Path, own_cache: Path) -> None:
    path = folder / "here.json"
    lock = folders.lock_for(path)
    assert lock == folders.lock_for(folder / ".." / folder.name / "here.json")
    assert lock != folders.lock_for(folder / "there.json")
    assert not lock.is_relative_to(folder)
    if sys.platform == "linux":
        assert lock.is_relative_to(own_cache)


# The disk refuses


def no_space(*_: Any, **__: Any) -> NoReturn:  # noqa: ANN401 - in the place of several functions
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def interrupted(*_: Any, **__: Any) -> NoReturn:  # noqa: ANN401 - as above
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("where", "name"), [(os, "fsync"), (Path, "chmod"), (Path, "replace")], ids=["fsync", "chmod", "replace"]
)
def test_a_disk_that_refuses_leaves_the_old_file_and_nothing_else(
    where: object,
    name: str,
    saved: Path,
    machine: Fingerprint,
    make_stored: MakeStored,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = saved.read_bytes()
    monkeypatch.setattr(where, name, no_space)
    with pytest.raises(BaselineError, match=r"cannot be written: .*No space left on device") as caught:
        files.save(saved.parent, machine, [make_stored("rwkv")], replacing=False)
    assert str(saved) in str(caught.value)
    assert saved.read_bytes() == before
    assert listing(saved.parent) == [saved.name]


@pytest.mark.skipif(os.name == "nt", reason="folders are flushed on POSIX")
@pytest.mark.parametrize("number", [errno.EIO, errno.EINVAL])
def test_a_folder_that_cannot_be_flushed_is_told_with_the_new_file_in_place(
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
        with pytest.raises(
            StorageError, match=r"was written, but .* could not be flushed .*Input/output error"
        ) as told:
            files.save(saved.parent, machine, [make_stored("rwkv")], replacing=False)
        assert "left as it is" not in str(told.value)
        assert str(saved) in str(told.value)
    baseline = files.read(saved)
    assert baseline is not None
    assert len(baseline.cases) == 2
    assert listing(saved.parent) == [saved.name]


def test_an_interrupt_in_the_middle_leaves_the_old_file_and_nothing_else(
    saved: Path, machine: Fingerprint, make_stored: MakeStored, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = saved.read_bytes()
    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        files.save(saved.parent, machine, [make_stored("rwkv")], replacing=False)
    assert saved.read_bytes() == before
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
def test_a_file_that_the_system_will_not_let_grow_leaves_the_old_one(saved: Path) -> None:
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
