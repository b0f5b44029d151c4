"""Which of a run's figures are stored in the baseline."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from pytest_rwkvperf.core.cases import Item, Workload
from pytest_rwkvperf.store.baseline import BaselineEntry, StoredCase
from pytest_rwkvperf.verdict.accept import accepted, stored_cases
from pytest_rwkvperf.verdict.judged import Judgement
from tests.unit.building import CASE, CPU, MODEL, make_record, make_run

if TYPE_CHECKING:
    from pytest_rwkvperf.core.cases import Case
    from pytest_rwkvperf.stats.verdicts import Verdict

PREFILL, GENERATION = Workload("prefill", 512), Workload("generation", 128)
OTHER = replace(CASE, quant="f16")


def judged(verdict: Verdict, workload: Workload = PREFILL, case: Case = CASE) -> Judgement:
    return Judgement(Item(case, workload), verdict, "reason", 0.05)


@pytest.mark.parametrize(
    ("verdict", "appending", "replacing"),
    [
        ("PASS", True, True),
        ("IMPROVEMENT", True, True),
        ("INCONCLUSIVE", True, True),
        ("NO-BASELINE", True, True),
        ("REGRESSION", False, True),
        ("INVALID", False, False),
    ],
)
def test_a_regression_is_stored_only_by_replacing_and_an_invalid_item_never(
    verdict: Verdict, *, appending: bool, replacing: bool
) -> None:
    stored = {CASE.key: {"pp512"}}
    assert accepted([judged(verdict)], replacing=False) == (stored if appending else {})
    assert accepted([judged(verdict)], replacing=True) == (stored if replacing else {})


def test_other_workloads_of_a_case_with_a_regression_are_stored() -> None:
    keep = accepted([judged("REGRESSION"), judged("PASS", GENERATION), judged("PASS", case=OTHER)], replacing=False)
    assert keep == {CASE.key: {"tg128"}, OTHER.key: {"pp512"}}


RECORD = make_record(make_run(tg128=[300, 200], pp512=[10, 20]), make_run(pp512=[30], tg128=[400]))


def test_raw_times_of_each_process_are_stored_with_versions_and_conditions() -> None:
    (stored,) = stored_cases([RECORD], {CASE.key: {"pp512", "tg128"}}, "2026-01-01T00:00:00Z")
    times: dict[str, tuple[tuple[int, ...], ...]] = {"pp512": ((10, 20), (30,)), "tg128": ((300, 200), (400,))}
    session = BaselineEntry("2026-01-01T00:00:00Z", {"llama-cpp": "1"}, 1, 0.25, 0.01, times)
    assert stored == StoredCase(CASE, MODEL.content_hash, CPU, (session,))
    assert list(stored.sessions[0].workloads) == ["pp512", "tg128"]


def test_only_accepted_workloads_are_stored() -> None:
    other = replace(RECORD, case=OTHER)
    (stored,) = stored_cases([RECORD, other], {OTHER.key: {"tg128"}}, "now")
    assert stored.case == OTHER
    assert stored.sessions[0].workloads == {"tg128": ((300, 200), (400,))}
    assert stored_cases([RECORD], {}, "now") == []
    assert stored_cases([RECORD], {CASE.key: set()}, "now") == []


def test_a_handover_is_stored_for_each_repetition() -> None:
    record = make_record(
        replace(make_run(pp512=[10, 20]), handovers={"pp512": (70_000, 74_000)}),
        replace(make_run(pp512=[30]), handovers={"pp512": (105_000,)}),
    )
    (stored,) = stored_cases([record], {CASE.key: {"pp512"}}, "now")
    assert stored.sessions[0].handovers == {"pp512": ((70_000, 74_000), (105_000,))}
    assert stored.sessions[0].session_times("pp512", "").handovers == ((70_000, 74_000), (105_000,))
    assert stored.sessions[0].session_times("pp512", "other").handovers == ()
    assert record.session_times(PREFILL).handovers == ((70_000, 74_000), (105_000,))


def test_probes_are_stored_as_medians_where_every_process_was_probed() -> None:
    probes: list[dict[str, tuple[int, ...]]] = [{"pp512": (7, 9, 8), "tg128": (5, 6)}, {"pp512": (4,)}]
    runs = tuple(replace(run, probes=times) for run, times in zip(RECORD.runs, probes, strict=True))
    record = replace(RECORD, runs=runs, probe_version="v")
    (stored,) = stored_cases([record], {CASE.key: {"pp512", "tg128"}}, "2026-01-01T00:00:00Z")
    assert (stored.sessions[0].probe_version, stored.sessions[0].probes) == ("v", {"pp512": (8, 4)})
