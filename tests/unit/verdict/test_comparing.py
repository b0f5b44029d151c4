"""Two stored files compared."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pytest_rwkvperf.core.software import Software
from pytest_rwkvperf.stats.verdicts import ALPHA
from pytest_rwkvperf.store import record as records
from pytest_rwkvperf.store.baseline import Baseline
from pytest_rwkvperf.store.record import OtherRun, RecordedItem
from pytest_rwkvperf.verdict.accept import stored_cases
from pytest_rwkvperf.verdict.comparing import ComparedFile, ComparedFiles, against, compare, compared_file
from tests.unit.building import CASE, make_record, make_run, recorded, report_record, slower


def test_undecided_items_share_the_error_rate() -> None:
    record = make_record(*(make_run(pp512=[10**7, 10**7 + index], tg128=[10**8 + index]) for index in range(3)))
    (stored,) = stored_cases([record], {CASE.key: {"pp512", "tg128"}}, "now")
    file = ComparedFile(Baseline(report_record().fingerprint).with_case(stored, replacing=False))
    judgements = compare(ComparedFiles(file, file), 0.01)
    assert [(each.verdict, each.comparison and each.comparison.alpha) for each in judgements] == [
        ("INCONCLUSIVE", ALPHA / 2)
    ] * 2


MEASURED = make_record(*(make_run(pp512=[10**7 + index, 10**7], tg128=[10**9 + index]) for index in range(6)))
OLD = report_record(recorded(MEASURED), id="0" * 32, commit="abc", started="2026-01-01T00:00:00Z")


def test_a_record_is_judged_by_an_older_one_and_has_the_samples_of_both() -> None:
    lost = RecordedItem("pp64", None, "the run ended before it", fails=False)
    case = recorded(slower(MEASURED, 3.0))
    new = report_record(replace(case, items=(*case.items, lost)))
    judged = against(new, OLD, 0.05)
    (case,) = judged.cases
    assert [(item.workload, item.verdict, item.fails, item.step) for item in case.items] == [
        ("pp512", "REGRESSION", True, "stored"), ("tg128", "REGRESSION", True, "stored"), ("pp64", None, False, ""),
    ]  # fmt: skip
    first = case.items[0]
    assert first.comparison is not None
    assert first.rate is not None
    assert first.baseline is not None
    assert 0.32 < first.comparison.ratio < 0.35
    assert first.rate.median / first.baseline.median == first.comparison.deciding.ratio
    assert case.sides(first) == (slower(MEASURED, 3.0), MEASURED)
    assert judged.against == OtherRun("0" * 32, "2026-01-01T00:00:00Z", "abc", OLD.fingerprint.id)
    assert records.loads(records.dumps(judged), Path("judged.json")) == judged


def test_the_speed_on_another_machine_is_shown_and_decides_nothing() -> None:
    other = replace(OLD, fingerprint=replace(OLD.fingerprint, cores=64))
    (case,) = against(report_record(recorded(slower(MEASURED, 3.0))), other, 0.05).cases
    assert [(item.verdict, item.comparison) for item in case.items] == [("NO-BASELINE", None)] * 2
    assert "the stored machines differ from this one in cores (64 stored" in case.items[0].reason
    assert [item.baseline for item in case.items] == [item.typical_rate for item in OLD.cases[0].items]


def test_a_regression_comes_with_what_differs() -> None:
    software = Software("Python 3.11", "linux", libraries={"libggml.so": "a"})
    measured = make_record(*(make_run(pp512=[10**9, 10**9 + index]) for index in range(8)))
    old = replace(measured, software=software)
    new = replace(slower(measured, 3.0), software=replace(software, libraries={"libggml.so": "b"}))
    files = ComparedFiles(*(compared_file(report_record(recorded(record))) for record in (old, new)))
    (judged,) = compare(files, 0.2)
    assert judged.verdict == "REGRESSION"
    assert list(map(str, judged.causes)) == ["libggml.so differs"]
