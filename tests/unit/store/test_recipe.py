"""The recipe of a folder of baselines: merged, kept when a save fails, and not rewritten without a change."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_rwkvperf.core import locks
from pytest_rwkvperf.core.errors import BaselineError
from pytest_rwkvperf.core.folders import lock_for
from pytest_rwkvperf.core.software import Distribution, Software
from pytest_rwkvperf.store import recipe, versioned

if TYPE_CHECKING:
    from pathlib import Path

OLD, NEW = (Software("CPython 3.11.7", "linux-x86_64", (Distribution("rwkv", version, "d" * 64),)) for version in "12")


def test_a_saved_backend_replaces_its_own_software_and_no_other(tmp_path: Path) -> None:
    folder = tmp_path / "baselines"
    recipe.save(folder, {"rwkv": OLD, "llama-cpp": OLD})
    path = recipe.save(folder, {"rwkv": NEW})
    assert recipe.read(folder).backends == {"rwkv": NEW, "llama-cpp": OLD}
    assert [*folder.iterdir()] == [path]


def test_files_of_a_killed_writer_are_removed(tmp_path: Path) -> None:
    (tmp_path / ".reference.json.abc123.tmp").write_bytes(b"{")
    path = recipe.save(tmp_path, {"rwkv": OLD})
    assert [*tmp_path.iterdir()] == [path]


def test_the_same_software_writes_nothing(tmp_path: Path) -> None:
    before = recipe.save(tmp_path, {"rwkv": OLD}).stat()
    after = recipe.save(tmp_path, {"rwkv": OLD}).stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_an_unusable_recipe_is_named_and_left_unchanged(tmp_path: Path) -> None:
    path = recipe.path_in(tmp_path)
    path.write_text("{", encoding="utf-8")
    with pytest.raises(BaselineError, match=r"recipe .*reference\.json is not valid JSON"):
        recipe.save(tmp_path, {"rwkv": OLD})
    assert path.read_text(encoding="utf-8") == "{"


def test_a_locked_recipe_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versioned, "LOCK_SECONDS", 0.1)
    with (
        locks.hold(lock_for(recipe.path_in(tmp_path))),
        pytest.raises(BaselineError, match=r"recipe .* has been locked by process \d+ on .*try again when"),
    ):
        recipe.save(tmp_path, {"rwkv": OLD})
    assert [*tmp_path.iterdir()] == []
