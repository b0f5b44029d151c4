"""`rwkvperf compare`: verdicts and exit codes for two records or baselines."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_rwkvperf.cli.main import main
from pytest_rwkvperf.reports import formats
from pytest_rwkvperf.store import baseline as baselines
from pytest_rwkvperf.store import record as records
from pytest_rwkvperf.verdict.accept import stored_cases
from tests.unit.building import make_record, make_run, recorded, report_record, slower, throttled

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_rwkvperf.measure.record import CaseRecord

    Writer = Callable[[Path, CaseRecord], str]

EXCHANGED = Path(__file__).parent.parent / "store" / "exchanged"
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
    assert "-50 % (1600 → 800 t/s, limit 5 %) llama-cpp q8_0 cpu-t2 pp16\n" in capsys.readouterr().out


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


# Two conventions


@pytest.mark.parametrize("changed", [{"chunk": 128}, {"protocol": "native"}], ids=str)
def test_two_conventions_are_refused(folder: Path, capsys: pytest.CaptureFixture[str], changed: dict[str, Any]) -> None:
    other = replace(MEASURED, case=replace(MEASURED.case, **changed))
    old, new = (
        str(folder / f"{name}.json")
        for name, record in (("old", MEASURED), ("new", other))
        if (folder / f"{name}.json").write_text(records.dumps(report_record(recorded(record))), encoding="utf-8")
    )
    assert main(["compare", old, new]) == 1
    told = capsys.readouterr().err
    assert "llama-cpp synthetic:nano q8_0 cpu t2 was measured in two ways" in told
    assert "rwkvperf:uniform:v1:steady:c512 in the old file" in told


def test_two_versions_of_the_protocol_are_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = as_baseline(folder / "old.json", MEASURED)
    assert main(["compare", old, as_record(folder / "new.json", replace(MEASURED, protocol=2))]) == 1
    assert "rwkvperf:uniform:v2:steady:c512 in the new one" in capsys.readouterr().err


def test_a_second_convention_beside_the_common_one_is_no_obstacle(folder: Path) -> None:
    native = replace(MEASURED, case=replace(MEASURED.case, protocol="native"))
    (folder / "new.json").write_text(records.dumps(report_record(recorded(MEASURED), recorded(native))), "utf-8")
    assert main(["compare", as_record(folder / "old.json", MEASURED), "new.json"]) == 0


# Files without samples


def as_export(path: Path, form: str, measured: CaseRecord = MEASURED) -> str:
    (text,) = formats.load(form).render(report_record(recorded(measured)), "en").values()
    path.write_text(text, encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("form", ["bencher", "github-benchmark", "otava", "openmetrics"])
def test_exports_are_compared_without_a_verdict(folder: Path, capsys: pytest.CaptureFixture[str], form: str) -> None:
    old, new = as_export(folder / "old", form), as_export(folder / "new", form, slower(MEASURED, 2))
    assert main(["compare", old, new]) == 0
    _, first, second, told, *_ = capsys.readouterr().out.splitlines()
    assert first.split()[5:11] == ["pp16", "1600", "tokens/s", "800.0", "tokens/s", "0.500"]
    assert second.split()[5] == "tg4"
    assert len(first.split()) == (11 if form == "otava" else 12), "Otava's CSV has no intervals"
    assert told.startswith("Measured as rwkvperf:uniform:v1:steady:c512. These files contain no samples")
    assert main(["compare", old, new, "--strict=inconclusive"]) == 1
    assert main(["compare", old, as_record(folder / "new.json", MEASURED)]) == 0, "a record has speeds too"
    capsys.readouterr()
    assert main(["compare", as_baseline(folder / "b.json", MEASURED), old]) == 1
    assert "b.json holds no speeds to set beside" in capsys.readouterr().err


def test_exports_under_two_conventions_are_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = replace(MEASURED, case=replace(MEASURED.case, chunk=64))
    old, new = as_export(folder / "old", "bencher"), as_export(folder / "new", "openmetrics", other)
    assert main(["compare", old, new]) == 1
    assert "everything was measured in two ways, which are not compared" in capsys.readouterr().err
    operations = (EXCHANGED / "backend_ops.sql", EXCHANGED / "batched_bench.jsonl")
    assert main(["compare", *map(str, operations)]) == 1
    assert "test-backend-ops:native:v1:once:c0 in the old file" in capsys.readouterr().err


def test_files_without_a_common_series_are_an_error(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = replace(MEASURED, case=replace(MEASURED.case, quant="f16"))
    old, new = as_export(folder / "old", "bencher"), as_export(folder / "new", "bencher", other)
    assert main(["compare", old, new]) == 1
    assert "no series in common; the old one begins with 'llama-cpp synthetic:nano q8_0" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "unit"), [("backend_ops.sql", "runs/s"), ("batched_bench.jsonl", "tokens/s")])
def test_output_of_llama_cpps_tools_is_compared(
    folder: Path, capsys: pytest.CaptureFixture[str], name: str, unit: str
) -> None:
    text = (EXCHANGED / name).read_text(encoding="utf-8")
    slow = text.replace("'250.000000'", "'500.000000'").replace('"speed_tg": 200.0', '"speed_tg": 100.0')
    (folder / name).write_text(slow, encoding="utf-8")
    assert main(["compare", str(EXCHANGED / name), name]) == 0
    out = capsys.readouterr().out
    assert min(line.split()[-1] for line in out.splitlines() if f" {unit} " in line) == "0.500"
