from __future__ import annotations

import errno
import os
import pathlib
import shutil
import threading
from typing import TYPE_CHECKING, NamedTuple

import platformdirs
import pytest

from pytest_rwkvperf.core.errors import ModelError
from pytest_rwkvperf.models import cache

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_rwkvperf.models.streams import Progress


class Usage(NamedTuple):
    total: int
    used: int
    free: int


def test_the_default_folder_is_the_users_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.folder(None) == platformdirs.user_cache_path("pytest-rwkvperf") / "models"
    assert cache.folder(tmp_path / "own") == tmp_path / "own"


def test_a_file_appears_whole(tmp_path: Path) -> None:
    target = tmp_path / "model.st"
    with cache.replacing(target, 10) as temporary:
        temporary.write_bytes(b"new")
        assert not target.exists()
        assert temporary.parent == target.parent
    assert target.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("error", [ValueError("bad"), KeyboardInterrupt(), SystemExit(1), ModelError("no")])
def test_a_failed_write_leaves_what_was_there(error: BaseException, tmp_path: Path) -> None:
    target = tmp_path / "model.st"
    target.write_bytes(b"old")

    def fail() -> None:
        with cache.replacing(target, 10) as temporary:
            temporary.write_bytes(b"half")
            raise error

    with pytest.raises(type(error)):
        fail()
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_disk_that_fails_while_writing_is_named(tmp_path: Path) -> None:
    target = tmp_path / "model.st"

    def fail() -> None:
        with cache.replacing(target, 10):
            raise OSError(28, "No space left on device")

    with pytest.raises(ModelError, match=r"model\.st.*No space left"):
        fail()


def test_a_read_only_disk_is_told_by_the_files_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, *_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr(pathlib.Path, "unlink", refuse)
    monkeypatch.setattr(pathlib.Path, "write_bytes", refuse)

    def fail() -> None:
        with cache.replacing(tmp_path / "model.st", 10) as temporary:
            temporary.write_bytes(b"new")

    with pytest.raises(ModelError, match=r"writing '.*/model\.st' failed: .*Read-only file system"):
        fail()


def test_too_little_space_names_needed_and_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: Usage(10**9, 10**9 - 12345, 12345))
    with (
        pytest.raises(ModelError, match=r"needs 5000000 bytes.*12345 are free"),
        cache.replacing(tmp_path / "m", 5_000_000),
    ):
        pytest.fail("nothing may be written")
    assert list(tmp_path.iterdir()) == []


def test_leftovers_of_a_killed_process_go(tmp_path: Path) -> None:
    target = tmp_path / "a[b]*.st"
    leftover = tmp_path / ".a[b]*.st.4711.tmp"
    other = tmp_path / ".ab.st.4711.tmp"
    leftover.write_bytes(b"half")
    other.write_bytes(b"someone else's")
    with cache.replacing(target, 10) as temporary:
        temporary.write_bytes(b"new")
    assert sorted(tmp_path.iterdir()) == sorted([target, other])


def test_a_second_writer_waits_and_says_so(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "model.st"
    told: list[str] = []
    order: list[str] = []
    inside, release = threading.Event(), threading.Event()

    def first() -> None:
        with cache.locked(target, lambda _sentence, _fraction: None):
            inside.set()
            release.wait(60)
            order.append("first")

    thread = threading.Thread(target=first)
    thread.start()
    inside.wait(60)

    def tell(sentence: str, _fraction: float) -> None:
        told.append(sentence)
        release.set()

    with cache.locked(target, tell):
        order.append("second")
    thread.join()
    assert order == ["first", "second"]
    (sentence,) = told
    assert sentence.startswith(f"waiting for process {os.getpid()} on ")
    assert sentence.endswith(" to finish model.st")


def test_a_cache_that_cannot_be_made_is_named(tmp_path: Path, quiet: Progress) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ModelError, match=r"cache.*cannot be written"), cache.locked(tmp_path / "file" / "m", quiet):
        pytest.fail("there is no such folder")


@pytest.mark.parametrize("content", ["", "{", "[1]", "nonsense \udcff"])
def test_a_damaged_record_is_as_good_as_none(content: str, tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    path.write_bytes(content.encode(errors="surrogateescape"))
    assert cache.read_json(path) is None
    assert cache.read_json(tmp_path / "absent.json") is None


def test_a_record_comes_back(tmp_path: Path) -> None:
    cache.write_json(tmp_path / "record.json", {"name": "模型"})
    assert cache.read_json(tmp_path / "record.json") == {"name": "模型"}


def test_a_record_of_another_user_is_as_good_as_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.write_json(tmp_path / "record.json", {"name": "x"})

    def refuse(path: Path, *_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(pathlib.Path, "read_text", refuse)
    assert cache.read_json(tmp_path / "record.json") is None
