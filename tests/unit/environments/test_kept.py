"""Of many builds the most recently used ones are kept, and each that a living process uses."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from pytest_rwkvperf.core.errors import LockedError
from pytest_rwkvperf.environments import kept

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

USER = """
import sys
from pathlib import Path
from pytest_rwkvperf.environments import kept

kept.use(Path(sys.argv[1]))
print("used", flush=True)
sys.stdin.read()
"""
"""A process that uses a build until its stdin is closed."""


@pytest.fixture(autouse=True)
def nothing_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "_used", {})
    monkeypatch.setenv(kept.VARIABLE, "2")


@pytest.fixture
def made(tmp_path: Path) -> Callable[[str, int], Path]:
    """Makes a build with a log, last used so many seconds after 1970."""

    def make(name: str, used: int) -> Path:
        build = tmp_path / name
        build.mkdir()
        for file in (build / "libllama.so", build / "in-use", tmp_path / f"{name}.log"):
            file.touch()
        os.utime(build / "in-use", (used, used))
        return build

    return make


def there(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_most_recently_used_are_kept_with_their_logs(made: Callable[[str, int], Path], tmp_path: Path) -> None:
    for name, used in (("a", 3), ("b", 1), ("c", 2), ("d", 4)):
        made(name, used)
    assert kept.prune(tmp_path) == 2
    assert there(tmp_path) == ["a", "a.log", "d", "d.log"]
    assert kept.prune(tmp_path) == 0


def test_using_one_makes_it_the_most_recent(made: Callable[[str, int], Path], tmp_path: Path) -> None:
    for used, name in enumerate("abc"):
        made(name, used)
    kept.use(tmp_path / "a")
    assert kept.prune(tmp_path) == 1
    assert there(tmp_path) == ["a", "a.log", "c", "c.log"]


def test_none_that_a_living_process_uses_is_removed(made: Callable[[str, int], Path], tmp_path: Path) -> None:
    builds = [made(name, used) for used, name in enumerate("abcd")]
    command = [sys.executable, "-c", USER, str(builds[0])]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as user:
        assert user.stdout is not None
        assert user.stdin is not None
        assert user.stdout.readline() == b"used\n"
        os.utime(builds[0] / "in-use", (0, 0))
        assert kept.prune(tmp_path) == 1
        assert builds[0].is_dir()
        user.stdin.close()
    assert kept.prune(tmp_path) == 1
    assert not builds[0].exists()


def test_one_that_this_process_uses_stays_though_it_is_used_again(
    made: Callable[[str, int], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(kept.VARIABLE, "0")
    build = made("a", 1)
    for _ in range(2):
        kept.use(build)
        assert kept.prune(tmp_path) == 0
    assert len(kept._used) == 1


def test_one_that_another_process_makes_or_takes_stays(made: Callable[[str, int], Path], tmp_path: Path) -> None:
    @contextmanager
    def guard(build: Path) -> Iterator[None]:
        if build.name == "a":
            raise LockedError("process 1")
        yield

    for used, name in enumerate("abcd"):
        made(name, used)
    assert kept.prune(tmp_path, guard) == 1
    assert there(tmp_path) == ["a", "a.log", "c", "c.log", "d", "d.log"]


def test_what_a_killed_removal_left_goes_and_old_logs_of_failed_builds_too(
    made: Callable[[str, int], Path], tmp_path: Path
) -> None:
    (tmp_path / ".x.gone").mkdir()
    (tmp_path / ".y.part").mkdir()
    made("a", 1)
    for age, name in enumerate("pqr"):
        (tmp_path / f"{name}.log").touch()
        os.utime(tmp_path / f"{name}.log", (age, age))
    assert kept.prune(tmp_path) == 0
    assert there(tmp_path) == [".y.part", "a", "a.log", "q.log", "r.log"]


def test_a_build_that_has_been_removed_is_used_without_an_error(tmp_path: Path) -> None:
    kept.use(tmp_path / "gone")
    assert kept._used == {}


def test_without_the_variable_twenty_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(kept.VARIABLE)
    assert kept.limit() == 20
    monkeypatch.setenv(kept.VARIABLE, "")
    assert kept.limit() == 20
