"""`rwkvperf compare`: verdicts and exit codes for two records or baselines."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from pytest_rwkvperf.cli.main import main
from pytest_rwkvperf.store import baseline as baselines
from pytest_rwkvperf.store import record as records
from pytest_rwkvperf.verdict.accept import stored_cases
from tests.unit.building import make_record, make_run, recorded, report_record, slower, throttled

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pytest_rwkvperf.measure.record import CaseRecord

    Writer = Callable[[Path, CaseRecord], str]

MEASURED = make_record(*(make_run(pp16=[10**7, 10**7 + 9, 10**7 + 5], tg4=[10**8 + index] * 3) for index in range(5)))
RECORD = report_record(recorded(MEASURED))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def as_record(path: Path, measured: CaseRecord) -> str:
    (case,) = RECORD.cases
    path.write_text(records.dumps(replace(RECORD, cases=(replace(case, measured=measured),))), encoding="utf-8")
    return str(path)


def as_baseline(path: Path, *measured: CaseRecord) -> str:
    baseline = baselines.Baseline(RECORD.fingerprint)
    for number, record in enumerate(measured):
        (stored,) = stored_cases([record], {record.case.key: {"pp16", "tg4"}}, f"2026-01-0{number + 1}T00:00:00Z")
        baseline = baseline.with_case(stored, replacing=False)
    path.write_text(baselines.dumps(baseline), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("old_kind", [as_record, as_baseline])
@pytest.mark.parametrize("new_kind", [as_record, as_baseline])
@pytest.mark.parametrize(("factor", "verdict", "status"), [(2.0, "REGRESSION", 1), (0.5, "IMPROVEMENT", 0)])
def test_records_and_baselines_can_be_compared(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    old_kind: Writer,
    new_kind: Writer,
    factor: float,
    verdict: str,
    status: int,
) -> None:
    old, new = old_kind(folder / "old.json", MEASURED), new_kind(folder / "new.json", slower(MEASURED, factor))
    before = [(folder / name).read_bytes() for name in ("old.json", "new.json")]
    assert main(["compare", old, new]) == status
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("llama-cpp")]
    assert [row.split()[-1] for row in rows] == [verdict] * 2
    assert [(folder / name).read_bytes() for name in ("old.json", "new.json")] == before


def test_explanations_name_the_threads_of_cases_that_differ_only_in_them(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = (replace(MEASURED, case=replace(MEASURED.case, threads=count)) for count in (1, 2))
    for name, record in (("old", second), ("new", slower(second, 2))):
        both = report_record(recorded(first), recorded(record))
        (folder / f"{name}.json").write_text(records.dumps(both), encoding="utf-8")
    assert main(["compare", "old.json", "new.json"]) == 1
    assert "REGRESSION: llama-cpp-q8_0-cpu-t2 pp16" in capsys.readouterr().out


@pytest.mark.parametrize(("side", "where"), [("new", "  NVIDIA"), ("old", "  in the old file NVIDIA")])
def test_figures_of_a_throttled_gpu_are_inconclusive(
    folder: Path, capsys: pytest.CaptureFixture[str], side: str, where: str
) -> None:
    sides = {"old": MEASURED, "new": slower(MEASURED, 2)}
    sides[side] = throttled(sides[side])
    files = [as_record(folder / f"{name}.json", record) for name, record in sides.items()]
    assert main(["compare", *files]) == 0
    assert main(["compare", *files, "--strict=inconclusive"]) == 1
    out = capsys.readouterr().out
    assert "REGRESSION" not in out
    assert f"{where} H200 was throttled (hardware slowdown) in 100% of the readings under load" in out


def test_the_newest_session_of_the_new_side_is_judged(folder: Path) -> None:
    old = as_baseline(folder / "old.json", MEASURED)
    assert main(["compare", old, as_baseline(folder / "new.json", MEASURED, slower(MEASURED, 2))]) == 1
    assert main(["compare", old, as_baseline(folder / "new.json", slower(MEASURED, 2), MEASURED)]) == 0
    by_hand = json.loads((folder / "new.json").read_text("utf-8"))
    (case,) = by_hand["cases"].values()
    case["sessions"].reverse()
    (folder / "new.json").write_text(json.dumps(by_hand), encoding="utf-8")
    assert main(["compare", old, str(folder / "new.json")]) == 0, "the newest by date, not by position"


def test_tolerance_and_strictness(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, new = as_record(folder / "old.json", MEASURED), as_record(folder / "new.json", slower(MEASURED, 1.5))
    assert main(["compare", old, new, "--tolerance", "90%"]) == 0
    assert main(["compare", old, new, "--tolerance", "50%"]) == 0
    assert "INCONCLUSIVE" in capsys.readouterr().out
    assert main(["compare", old, new, "--tolerance", "50%", "--strict", "inconclusive"]) == 1
    capsys.readouterr()
    assert main(["compare", old, new, "--tolerance", "much"]) == 2
    assert capsys.readouterr().err.startswith("rwkvperf: --tolerance='much' is not a share between 0 and 100 %")


def test_another_machine_is_not_compared(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    new = as_record(folder / "new.json", MEASURED)
    other = replace(RECORD, fingerprint=replace(RECORD.fingerprint, cores=99))
    (folder / "old.json").write_text(records.dumps(other), encoding="utf-8")
    assert main(["compare", "old.json", new]) == 0
    assert "the stored machines differ from this one in cores (99 stored" in capsys.readouterr().out
    assert main(["compare", "old.json", new, "--strict", "no-baseline"]) == 1


@pytest.mark.parametrize(
    ("text", "cause"),
    [(None, "cannot be read"), ("{", "is not valid JSON"), ("[]", "is neither a baseline nor a record; ")],
)
def test_other_files_are_refused(
    folder: Path, text: str | None, cause: str, capsys: pytest.CaptureFixture[str]
) -> None:
    new = as_record(folder / "new.json", MEASURED)
    if text is not None:
        (folder / "old.json").write_text(text, encoding="utf-8")
    assert main(["compare", "old.json", new]) == 1
    err = capsys.readouterr().err
    assert "old.json" in err
    assert cause in err
    assert err.endswith("; give what --rwkv-save-baseline or --rwkv-report=FILE.json wrote\n")


def test_an_invalid_stored_workload_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = as_baseline(folder / "stored.json", MEASURED)
    spoilt = (folder / "stored.json").read_text("utf-8").replace('"pp16"', '" pp16"')
    (folder / "stored.json").write_text(spoilt, "utf-8")
    assert main(["compare", name, name]) == 1
    assert "holds ' pp16', which names no workload; restore it" in capsys.readouterr().err
