"""`rwkvperf compare`: the verdicts and exit codes of a run, from stored files of either kind."""

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

TAKEN = make_record(*(make_run(pp16=[10**7, 10**7 + 9, 10**7 + 5], tg4=[10**8 + index] * 3) for index in range(5)))
RECORD = report_record(recorded(TAKEN))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def as_record(path: Path, taken: CaseRecord) -> str:
    (case,) = RECORD.cases
    path.write_text(records.dumps(replace(RECORD, cases=(replace(case, measured=taken),))), encoding="utf-8")
    return str(path)


def as_baseline(path: Path, *taken: CaseRecord) -> str:
    baseline = baselines.Baseline(RECORD.fingerprint)
    for number, one in enumerate(taken):
        (stored,) = stored_cases([one], {one.case.key: {"pp16", "tg4"}}, f"2026-01-0{number + 1}T00:00:00Z")
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
    old, new = old_kind(folder / "old.json", TAKEN), new_kind(folder / "new.json", slower(TAKEN, factor))
    before = [(folder / name).read_bytes() for name in ("old.json", "new.json")]
    assert main(["compare", old, new]) == status
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("llama-cpp")]
    assert [row.split()[-1] for row in rows] == [verdict] * 2
    assert [(folder / name).read_bytes() for name in ("old.json", "new.json")] == before


def test_explanations_name_the_threads_where_they_tell_cases_apart(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = (replace(TAKEN, case=replace(TAKEN.case, threads=count)) for count in (1, 2))
    for name, second in (("old", two), ("new", slower(two, 2))):
        both = report_record(recorded(one), recorded(second))
        (folder / f"{name}.json").write_text(records.dumps(both), encoding="utf-8")
    assert main(["compare", "old.json", "new.json"]) == 1
    assert "REGRESSION: llama-cpp-q8_0-cpu-t2 pp16" in capsys.readouterr().out


@pytest.mark.parametrize(("side", "where"), [("new", "  NVIDIA"), ("old", "  in the old file NVIDIA")])
def test_no_verdict_rests_on_what_a_throttled_gpu_was_measured_at(
    folder: Path, capsys: pytest.CaptureFixture[str], side: str, where: str
) -> None:
    taken = {"old": TAKEN, "new": slower(TAKEN, 2)}
    taken[side] = throttled(taken[side])
    files = [as_record(folder / f"{name}.json", one) for name, one in taken.items()]
    assert main(["compare", *files]) == 0
    assert main(["compare", *files, "--strict=inconclusive"]) == 1
    told = capsys.readouterr().out
    assert "REGRESSION" not in told
    assert f"{where} H200 was throttled (hardware slowdown) in 100% of the readings under load" in told


def test_the_newest_session_of_the_new_side_is_judged(folder: Path) -> None:
    old = as_baseline(folder / "old.json", TAKEN)
    assert main(["compare", old, as_baseline(folder / "new.json", TAKEN, slower(TAKEN, 2))]) == 1
    assert main(["compare", old, as_baseline(folder / "new.json", slower(TAKEN, 2), TAKEN)]) == 0
    by_hand = json.loads((folder / "new.json").read_text("utf-8"))
    (case,) = by_hand["cases"].values()
    case["sessions"].reverse()
    (folder / "new.json").write_text(json.dumps(by_hand), encoding="utf-8")
    assert main(["compare", old, str(folder / "new.json")]) == 0, "newest by its date, wherever it stands"


def test_tolerance_and_strictness(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, new = as_record(folder / "old.json", TAKEN), as_record(folder / "new.json", slower(TAKEN, 1.5))
    assert main(["compare", old, new, "--tolerance", "90%"]) == 0
    assert main(["compare", old, new, "--tolerance", "50%"]) == 0
    assert "INCONCLUSIVE" in capsys.readouterr().out
    assert main(["compare", old, new, "--tolerance", "50%", "--strict", "inconclusive"]) == 1
    capsys.readouterr()
    assert main(["compare", old, new, "--tolerance", "much"]) == 2
    assert capsys.readouterr().err.startswith("rwkvperf: --tolerance='much' is not a share between 0 and 100 %")


def test_another_machine_is_no_baseline(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    new = as_record(folder / "new.json", TAKEN)
    other = replace(RECORD, fingerprint=replace(RECORD.fingerprint, cores=99))
    (folder / "old.json").write_text(records.dumps(other), encoding="utf-8")
    assert main(["compare", "old.json", new]) == 0
    assert "the stored machines differ from this one in cores (99 stored" in capsys.readouterr().out
    assert main(["compare", "old.json", new, "--strict", "no-baseline"]) == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [(None, "cannot be read"), ("{", "is not valid JSON"), ("[]", "is neither a baseline nor a record; ")],
)
def test_other_files_are_refused(folder: Path, text: str | None, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    new = as_record(folder / "new.json", TAKEN)
    if text is not None:
        (folder / "old.json").write_text(text, encoding="utf-8")
    assert main(["compare", "old.json", new]) == 1
    told = capsys.readouterr().err
    assert "old.json" in told
    assert said in told
    assert told.endswith("; give what --rwkv-save-baseline or --rwkv-report=FILE.json wrote\n")


def test_an_invalid_stored_workload_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = as_baseline(folder / "stored.json", TAKEN)
    spoilt = (folder / "stored.json").read_text("utf-8").replace('"pp16"', '" pp16"')
    (folder / "stored.json").write_text(spoilt, "utf-8")
    assert main(["compare", name, name]) == 1
    assert "holds ' pp16', which names no workload; restore it" in capsys.readouterr().err
