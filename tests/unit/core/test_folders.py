"""Old temporary folders of this project are removed, and nothing else."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_rwkvperf.core import folders

if TYPE_CHECKING:
    import pytest

DAY_SECONDS = 24 * 3600


def test_a_run_removes_this_projects_old_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for kind in ("worker", "fleet", "ab", "bisect"):
        tempfile.mkdtemp(prefix=f"rwkvperf-{kind}-")
    kept = {"rwkvperf-models", "rwkvperf-fleet-results", "rwkvperf-worker-notes", "somebodys"}
    for name in kept:
        (tmp_path / name).mkdir()
    (tmp_path / "rwkvperf-ab-of_files").touch()
    for path in tmp_path.iterdir():
        os.utime(path, (time.time() - 2 * DAY_SECONDS,) * 2)
    today = tempfile.mkdtemp(prefix="rwkvperf-ab-")
    folders.new_run_folder()
    assert {path.name for path in tmp_path.iterdir()} == kept | {"rwkvperf-ab-of_files", Path(today).name}
