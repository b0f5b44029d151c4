"""Which step decides an item."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from pytest_rwkvperf.core.cases import Item, Workload
from pytest_rwkvperf.core.software import Software
from pytest_rwkvperf.stats.verdicts import Comparison, ErrorRates
from pytest_rwkvperf.verdict import accept, steps
from pytest_rwkvperf.verdict.judged import Judgement
from tests.unit.building import CASE, CPU, VERDICTS, record_of

if TYPE_CHECKING:
    from pytest_rwkvperf.store.baseline import StoredCase

HERE = Software("CPython 3.11.7", "linux-x86_64", libraries={"libllama.so": "1" * 64})
OTHER = replace(HERE, libraries={"libllama.so": "2" * 64})
RECORD = replace(record_of([[100], [100], [100]]), software=HERE)
COMPARISON = Comparison(0.8, 0.7, 0.9, 0.05, 0.01, 0.2)
JUDGED = Judgement(
    Item(CASE, Workload.parse("pp512")), "INCONCLUSIVE", "noise", 0.05, comparison=COMPARISON, step="stored"
)


def stored_with(software: Software, detail: str = "") -> StoredCase:
    (case,) = accept.stored_cases([replace(RECORD, software=software)], {CASE.key: {"pp512"}}, "2026-11-30T00:00:00Z")
    return replace(case, device=replace(CPU, detail=detail))


def test_software_is_the_same_by_what_was_loaded_and_by_the_driver() -> None:
    assert steps.same_software(JUDGED, RECORD, stored_with(HERE), None)
    assert not steps.same_software(JUDGED, RECORD, stored_with(OTHER), HERE)
    assert not steps.same_software(JUDGED, RECORD, stored_with(HERE, "driver 570.1"), HERE)


def test_the_recipe_counts_where_nothing_is_stored_of_the_case() -> None:
    unknown = replace(JUDGED, verdict="NO-BASELINE", comparison=None)
    assert steps.same_software(unknown, RECORD, None, HERE)
    assert not steps.same_software(unknown, RECORD, None, OTHER)
    assert not steps.same_software(unknown, RECORD, None, None)
    # Another model, for example, is stored under the case's key.
    assert not steps.same_software(unknown, RECORD, stored_with(HERE), HERE)


def test_a_voided_verdict_and_unknown_software_are_not_the_same_software() -> None:
    assert not steps.same_software(replace(JUDGED, voided="gpu"), RECORD, stored_with(HERE), HERE)
    assert not steps.same_software(JUDGED, replace(RECORD, software=None), stored_with(HERE), HERE)


@pytest.mark.parametrize(("ratio", "words"), [(0.8, "25.0% slower"), (1.25, "25.0% faster")])
def test_the_same_software_passes_and_the_machine_is_blamed(ratio: float, words: str) -> None:
    judged = steps.decided_by_identity(replace(JUDGED, comparison=replace(COMPARISON, ratio=ratio)))
    assert (judged.verdict, judged.step) == ("PASS", "identity")
    assert words in judged.reason


def test_what_stored_figures_leave_open_or_find_slower_is_open() -> None:
    open_ = {verdict for verdict in VERDICTS if steps.is_open(replace(JUDGED, verdict=verdict))}
    assert open_ == {"INCONCLUSIVE", "NO-BASELINE", "REGRESSION"}
    assert not steps.is_open(replace(JUDGED, voided="watched"))


def test_both_steps_share_the_risk_of_a_wrong_pass() -> None:
    rates = ErrorRates(0.01, 0.05)
    stored, ab = steps.rates_of_stored(rates), steps.rates_of_ab(rates)
    assert stored.wrong_pass + ab.wrong_pass == pytest.approx(rates.wrong_pass)
    assert ab.false_alarms == rates.false_alarms
