"""Fixtures of the fault tests: sandboxes, and the check that no test leaves a process or a file."""

from __future__ import annotations

import ctypes
import shutil
import sys
import time
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.faults.sandbox import RUN_SECONDS, SandboxFactory, allowed, is_running
from tests.integration.conftest import engine_cache, engines

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["engine_cache", "engines"]


@pytest.fixture(scope="session")
def new_sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SandboxFactory]:
    """Makes sandboxes; preparing the first takes a few seconds."""
    folder = tmp_path_factory.mktemp("sandboxes")
    yield SandboxFactory(folder / "sandboxes")
    shutil.rmtree(folder, ignore_errors=True)


_SET_CHILD_SUBREAPER = 36
"""prctl(2): orphans become children of this process instead of init's."""


@pytest.fixture(autouse=True)
def nothing_left(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Assert after each test that it ended in time and left no process and no temporary file."""
    temporary = tmp_path_factory.mktemp("temporary")
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    before, started = children(), time.monotonic()
    yield
    seconds = time.monotonic() - started
    assert seconds < allowed(RUN_SECONDS)
    limit = time.monotonic() + allowed(0.5)
    while (left := children() - before) and time.monotonic() < limit:
        time.sleep(0.02)
    assert not left
    assert [*temporary.iterdir()] == []
    assert [*tmp_path.rglob(".*.tmp")] == []


def children() -> set[psutil.Process]:
    """This process's running descendants."""
    return {child for child in psutil.Process().children(recursive=True) if is_running(child)}
