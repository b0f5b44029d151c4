"""`rwkvperf explain`: two records, in words and as JSON."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from pytest_rwkvperf.cli.main import main
from pytest_rwkvperf.store.record import dumps
from tests.unit.building import CASE, make_record, make_run, recorded, report_record, slower

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_rwkvperf.measure.record import CaseRecord

MEASURED = make_record(*(make_run(pp512=(10**9, 10**9), tg128=(128 * 10**7,) * 2) for _ in range(4)))


def write(folder: Path, name: str, *measured: CaseRecord) -> str:
    path = folder / name
    path.write_text(dumps(report_record(*map(recorded, measured))), encoding="utf-8")
    return str(path)


def test_every_workload_is_told_with_its_speeds_and_what_differs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = replace(slower(MEASURED, 1.25), versions={"llama-cpp": "2"})
    assert main(["explain", write(tmp_path, "old.json", MEASURED), write(tmp_path, "new.json", new)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "llama-cpp-q8_0-cpu pp512: 25.0% slower (512.0 → 409.6 tokens/s)" in lines
    assert "llama-cpp-q8_0-cpu tg128: 25.0% slower (100.0 → 80.0 tokens/s)" in lines
    assert lines.count("  software  llama-cpp 1 → 2") == 2


def test_the_same_twice_differs_in_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path, "run.json", MEASURED)
    assert main(["explain", path, path]) == 0
    assert capsys.readouterr().out.count("  nothing differs that was recorded") == 2


def test_json_has_every_cause(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    new = replace(slower(MEASURED, 2.0), case=replace(CASE, threads=1))
    assert main(["explain", write(tmp_path, "old.json", MEASURED), write(tmp_path, "new.json", new), "--json"]) == 0
    first = json.loads(capsys.readouterr().out)[0]
    assert first["ratio"] == pytest.approx(0.5)
    (cause,) = first["causes"]
    assert {name: cause[name] for name in ("kind", "what", "old", "new")} == {
        "kind": "settings",
        "what": "threads",
        "old": "2",
        "new": "1",
    }


def test_of_several_alike_only_the_same_settings_are_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    several = [MEASURED, replace(MEASURED, case=replace(CASE, threads=1))]
    old = write(tmp_path, "old.json", *several)
    assert main(["explain", old, write(tmp_path, "new.json", replace(MEASURED, case=replace(CASE, threads=8)))]) == 1
    assert "have no workload in common" in capsys.readouterr().err
    assert main(["explain", old, write(tmp_path, "new.json", MEASURED)]) == 0
