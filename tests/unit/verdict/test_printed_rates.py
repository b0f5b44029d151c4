"""What is printed as t/s and baseline has the printed ratio as its quotient, wherever it is printed."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_rwkvperf.core.cases import Item, Workload
from pytest_rwkvperf.machine.fingerprint import Fingerprint
from pytest_rwkvperf.measure.measurement import Measurement
from pytest_rwkvperf.measure.record import CaseRecord, Pairing
from pytest_rwkvperf.reports import figures, headline
from pytest_rwkvperf.run import recording
from pytest_rwkvperf.store.baseline import Baseline, Noise
from pytest_rwkvperf.verdict.accept import stored_cases
from pytest_rwkvperf.verdict.judged import Judgement, Reference, junit_properties, recorded_item
from pytest_rwkvperf.verdict.judgement import judge, judge_pairs
from pytest_rwkvperf.verdict.reasons import describe
from tests.unit.building import CASE, make_run, record_of, recorded, report_record, slower

HERE = Fingerprint("Linux", "x86_64", "AMD EPYC", "family 25", 2, 1)
PREFILL = Workload("prefill", 512)
ITEM = Item(CASE, PREFILL)
STEADY = [[1_000_000 + 1000 * process + 100 * number for number in range(10)] for process in range(5)]

TIMES = st.integers(10**5, 10**7)
ROWS = st.lists(st.lists(TIMES, min_size=1, max_size=6), min_size=2, max_size=5)
FACTORS = st.floats(0.5, 2.0)


def probed(record: CaseRecord, probe: float) -> CaseRecord:
    """The record with this probe time beside each sample."""
    runs = (replace(run, probes={"pp512": (round(probe * 10**6),) * len(run.samples["pp512"])}) for run in record.runs)
    return replace(record, runs=tuple(runs), probe_version="p")


def against(*sessions: CaseRecord) -> Reference:
    """A baseline of these sessions, in order."""
    baseline = Baseline(HERE, noise={"prefill": Noise("then", 0.01, 20)})
    for day, session in enumerate(sessions):
        (case,) = stored_cases([session], {CASE.key: {"pp512"}}, f"2026-01-{day + 1:02}T00:00:00Z")
        baseline = baseline.with_case(case, replacing=False)
    return Reference(HERE, baseline, None)


def printed(judged: Judgement, measured: CaseRecord) -> None:
    """Check every place where the three figures are printed."""
    new, old, comparison = judged.new, judged.old, judged.comparison
    assert new is not None
    assert old is not None
    assert comparison is not None
    ratio = comparison.deciding.ratio
    assert old.median * ratio == pytest.approx(new.median, rel=1e-9)
    rounding = 1e-3 + 5e-4 / ratio  # four digits of a speed, three of a ratio
    item = recording.with_figures(recorded_item(judged, fails=False), Measurement(measured, PREFILL))
    case = recorded(measured, item)
    cells = figures.item_cells(case, item)  # of the terminal and of markdown
    assert float(cells["baseline"]) * float(cells["ratio"]) == pytest.approx(float(cells["t/s"]), rel=rounding)
    given = {name: float(value) for name, value in junit_properties(judged) if re.fullmatch(r"[\d.e+-]+|inf", value)}
    quotient = given["rwkv_tokens_per_second"] / given["rwkv_baseline_tokens_per_second"]
    assert quotient == pytest.approx(given["rwkv_ratio"], rel=1e-4)
    words = re.findall(r"(?:new|old|ratio) {2,4}([\d.]+)", describe(judged))
    assert float(words[0]) / float(words[1]) == pytest.approx(float(words[2]), rel=rounding)
    assert headline.ratio_of((case, item)) == ratio  # of the page
    # The record, from which the pages are made, and whose median is the one for other cases and runs.
    assert item.rate == new
    assert item.baseline == old
    assert item.typical_rate == Measurement(measured, PREFILL).tokens_per_second


@given(ROWS, st.lists(ROWS, min_size=1, max_size=3), st.lists(FACTORS, min_size=4, max_size=4))
def test_stored_figures_have_the_ratio_as_their_quotient(
    new: list[list[int]], old: list[list[list[int]]], probes: list[float]
) -> None:
    fresh = probed(record_of(new), probes[0])
    sessions = [probed(record_of(rows), probe) for rows, probe in zip(old, probes[1:], strict=False)]
    printed(judge(fresh, ITEM, against(*sessions), 0.05, items=1), fresh)


@given(st.integers(4, 6), st.data())
def test_pairs_have_the_ratio_as_their_quotient(count: int, data: st.DataObject) -> None:
    rows = st.lists(st.lists(TIMES, min_size=4, max_size=4), min_size=count, max_size=count)
    sides = [record_of(data.draw(rows)) for _ in range(2)]
    printed(judge_pairs(Pairing(*sides), ITEM, 0.05, items=1), sides[0])


def test_drift_is_in_the_printed_baseline_and_not_in_what_was_measured() -> None:
    def session(speed: float) -> CaseRecord:
        # Processes follow their probes wholly, so that nearly all of the drift is explained.
        runs = []
        for process in range(8):
            factor = speed * (1 + 0.02 * process)
            run = make_run(pp512=[round(factor * 10**6)] * 3)
            runs.append(replace(run, probes={"pp512": (round(factor * 10**6),) * 3}))
        return replace(record_of(STEADY), runs=tuple(runs), probe_version="p")

    slow = session(1.1)
    judged = judge(slow, ITEM, against(session(1.0)), 0.05, items=1)
    assert judged.comparison is not None
    assert judged.comparison.drift == pytest.approx(0.0953, abs=2e-3)
    assert judged.new is not None
    assert judged.old is not None
    assert judged.new.median == pytest.approx(512e9 / 1.1e6, rel=1e-3)
    assert judged.old.median == pytest.approx(512e9 / 1.1e6, rel=3e-3), "the stored speed, on the machine of now"
    printed(judged, slow)


def test_where_only_the_mean_regressed_it_is_what_is_printed() -> None:
    tail = [[time * (3 if number % 2 else 1) for number, time in enumerate(row)] for row in STEADY]
    fresh = record_of(tail)
    judged = judge(fresh, ITEM, against(record_of(STEADY), record_of(STEADY)), 0.25, items=1)
    assert judged.comparison is not None
    assert judged.comparison.only_mean_regressed
    assert judged.new is not None
    assert judged.new.statistic == "mean"
    assert "of all repetitions' mean" in describe(judged)
    assert judged.comparison.deciding.ratio == pytest.approx(0.5, rel=1e-3)
    printed(judged, fresh)


def test_where_nothing_is_compared_the_median_is_printed() -> None:
    record = record_of(STEADY)
    judged = judge(record, ITEM, Reference(HERE, None, None), 0.05, items=1)
    assert judged.new == Measurement(record, PREFILL).tokens_per_second


def test_a_table_with_both_kinds_of_speed_says_so() -> None:
    record, others = record_of(STEADY), replace(CASE, quant="f16")
    compared = judge(slower(record, 2), ITEM, against(record), 0.05, items=1)
    alone = judge(record, ITEM, Reference(HERE, None, None), 0.05, items=1)
    cases = [
        recorded(replace(record, case=case), recorded_item(judged, fails=False))
        for case, judged in ((CASE, compared), (others, alone))
    ]
    assert figures.mixed_rates(report_record(*cases)).startswith("In a row with a ratio, t/s and baseline are")
    assert [figures.mixed_rates(report_record(case)) for case in cases] == ["", ""]


def test_speeds_of_pairs_are_those_of_the_repetitions_that_the_ratio_is_of() -> None:
    # Of each side's eight repetitions the fastest two, which nothing disturbed.
    new, old = [2000, 2000, 9000, 2000, 2000, 2000, 9000, 2000], [1000, 8000, 1000, 1000, 1000, 8000, 1000, 1000]
    judged = judge_pairs(Pairing(record_of([new] * 4), record_of([old] * 4)), ITEM, 0.05, items=1)
    assert judged.new is not None
    assert judged.old is not None
    assert (judged.new.statistic, judged.old.statistic) == ("fast", "fast")
    assert judged.new.median == pytest.approx(512e9 / 2000)
    assert judged.old.median == pytest.approx(512e9 / 1000)
