"""Faults are tried on the same engines and models as everything else, and in runs of a stage of their own."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from tests.faults.scene import Stage
from tests.integration.conftest import engine_cache, engines

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["engine_cache", "engines"]


@pytest.fixture(scope="session")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Where whole runs are played; its first one takes a few seconds."""
    folder = tmp_path_factory.mktemp("stage")
    yield Stage(folder / "stage")
    shutil.rmtree(folder, ignore_errors=True)
