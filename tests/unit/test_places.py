"""What lies about is cleared away, and nothing else is."""

from __future__ import annotations

import os
import tempfile
import time
from typing import TYPE_CHECKING

from pytest_rwkvperf import places

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

DAY_SECONDS = 24 * 3600


def test_a_run_clears_this_projects_folders_of_yesterday(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    names = ("rwkvperf-fleet-a", "rwkvperf-worker-b", "rwkvperf-ab-today", "rwkvperf-is-a-file", "somebodys")
    for name in names:
        (tmp_path / name).mkdir() if "file" not in name else (tmp_path / name).touch()
        if "today" not in name:
            os.utime(tmp_path / name, (time.time() - 2 * DAY_SECONDS,) * 2)
    places.new_run_folder()
    assert {path.name for path in tmp_path.iterdir()} == {"rwkvperf-ab-today", "rwkvperf-is-a-file", "somebodys"}
