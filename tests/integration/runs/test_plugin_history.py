"""`--rwkv-history` in whole pytest runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_rwkvperf.history import address, spool
from pytest_rwkvperf.history.database import Database
from pytest_rwkvperf.store import record as records

if TYPE_CHECKING:
    from tests.conftest import Runs


@pytest.fixture(autouse=True)
def data_home(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(pytester.path / "data"))


def test_the_stored_run_equals_its_record(runs: Runs) -> None:
    runs.pytester.makeini("[pytest]\nrwkv_history = sub/history.db")
    result = runs.measuring("--rwkv-workload=pp16,tg4", "--rwkv-report=run.json")
    assert result.ret == 0
    place = address.parse("sub/history.db", runs.pytester.path)
    result.stdout.fnmatch_lines([f"Stored in the history {place.shown}."])
    database = Database(place)
    (run,) = database.runs()
    assert run.figures == 2
    assert database.record(run.id) == records.read(runs.pytester.path / "run.json")


def test_an_unreachable_server_loses_no_verdict_and_no_record(runs: Runs) -> None:
    url = "postgresql://me:hush-hush@127.0.0.1:1/team"
    result = runs.measuring(f"--rwkv-history={url}", "--rwkv-report=run.json")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["Not stored yet: the history postgresql://me:[*][*][*]@127.0.0.1:1/team failed: *"])
    (kept,) = spool.waiting(address.parse(url, Path()))
    report = (runs.pytester.path / "run.json").read_text(encoding="utf-8")
    assert kept.read_text(encoding="utf-8") == report
    assert "hush" not in report + str(result.stdout) + str(result.stderr)


def test_an_unusable_address_is_a_usage_error(runs: Runs) -> None:
    result = runs.measuring("--rwkv-history=oracle://me:hush-hush@host/db")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: the history's database 'oracle' is unknown; allowed: sqlite, postgresql;*"])
    assert "hush" not in str(result.stdout) + str(result.stderr)
    assert not (runs.pytester.path / "data").exists()
