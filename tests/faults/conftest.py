"""Faults are tried on the same engines and models as everything else, and in runs of a stage of their own."""

from __future__ import annotations

import ctypes
import shutil
import sys
import time
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.faults.scene import WHOLE, Stage, allowed, living
from tests.integration.conftest import engine_cache, engines

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["engine_cache", "engines"]


@pytest.fixture(scope="session")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Where whole runs are played; its first one takes a few seconds."""
    folder = tmp_path_factory.mktemp("stage")
    yield Stage(folder / "stage")
    shutil.rmtree(folder, ignore_errors=True)


_ADOPT = 36
"""PR_SET_CHILD_SUBREAPER, prctl(2): what loses its parent becomes this process's child, and no longer the system's."""


@pytest.fixture(autouse=True)
def nothing_left(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """What every test of a fault shows beside its own: no process, no temporary file, and an end in time."""
    temporary = tmp_path_factory.mktemp("temporary")
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_ADOPT, 1, 0, 0, 0)
    before, started = children(), time.monotonic()
    yield
    seconds = time.monotonic() - started
    assert seconds < allowed(WHOLE)
    limit = time.monotonic() + allowed(0.5)
    while (left := children() - before) and time.monotonic() < limit:
        time.sleep(0.02)
    assert not left
    assert [*temporary.iterdir()] == []
    assert [*tmp_path.rglob(".*.tmp")] == []


def children() -> set[psutil.Process]:
    """This process's living descendants."""
    return {one for one in psutil.Process().children(recursive=True) if living(one)}
