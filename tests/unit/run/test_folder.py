"""A run's folder: what is measured is kept, on the disk or, where that refuses, in the process."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_rwkvperf.core.errors import StorageError, WorkerError
from pytest_rwkvperf.measure.record import CaseRecord
from pytest_rwkvperf.run import folder as run_folder
from pytest_rwkvperf.run.folder import RunFolder
from tests.unit.building import CASE, make_record, make_run

if TYPE_CHECKING:
    from pathlib import Path

RECORD = make_record(make_run(pp16=[10**7] * 3))


def test_another_process_reads_what_was_kept(tmp_path: Path) -> None:
    assert RunFolder(tmp_path / "run").keep(CASE, RECORD) == ""
    assert RunFolder(tmp_path / "run").measured(CASE, CaseRecord) == RECORD


def test_figures_that_the_disk_refuses_stay_in_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(run_folder, "write_atomically", full)
    folder = RunFolder(tmp_path / "run")
    assert not folder.anything_measured()
    assert "No space left on device; make room" in folder.keep(CASE, RECORD)
    assert folder.measured(CASE, CaseRecord) == RECORD
    assert folder.records() == [RECORD]
    assert folder.anything_measured()
    assert RunFolder(tmp_path / "run").records() == []
    with pytest.raises(StorageError):
        folder.keep_failure(CASE, CaseRecord, WorkerError("x"))
