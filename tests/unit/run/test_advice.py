"""What a run without a verdict advises: what would bring one, by what hid it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from pytest_rwkvperf.core.samples import Sample
from pytest_rwkvperf.run import advice
from pytest_rwkvperf.stats.estimates import Rate
from pytest_rwkvperf.stats.paired import LOOKS
from pytest_rwkvperf.verdict import steps
from tests.unit.building import make_record, make_run, recorded, report_record, with_verdict

if TYPE_CHECKING:
    from pytest_rwkvperf.measure.record import CaseRecord
    from pytest_rwkvperf.store.record import RecordedItem

NAME = "tg128@d4096"


def measured(*milliseconds: float) -> CaseRecord:
    """A case with a process for each time of a repetition."""
    runs = [replace(make_run(), samples={NAME: (Sample(0.0, round(each * 1e6), ()),)}) for each in milliseconds]
    return make_record(*runs)


STEADY = measured(100, 101, 99, 100, 101, 99, 100, 102)
TWO_SPEEDS = measured(100, 150, 101, 151, 99, 149, 100, 100)


def undecided(**changed: Any) -> RecordedItem:  # noqa: ANN401 - of the comparison
    item = with_verdict("INCONCLUSIVE", workload=NAME)
    assert item.comparison is not None
    return replace(item, comparison=replace(item.comparison, **changed))


def paired() -> RecordedItem:
    return replace(undecided(paired=True), step="ab")


def advised(item: RecordedItem, case: CaseRecord = STEADY) -> str:
    (sentence,) = advice.inconclusive(report_record(recorded(case, item)))
    return sentence


def test_neighbours_go_before_everything_that_they_explain() -> None:
    crowded = replace(TWO_SPEEDS, conditions=replace(TWO_SPEEDS.conditions, foreign=0.3))
    for item in (undecided(), paired(), undecided(detectable=None, high=None)):
        assert advised(item, crowded).startswith("Other processes took more of the processors")


def test_too_few_sessions_are_counted() -> None:
    sentence = advised(undecided(settled_by=4))
    assert sentence.startswith("Too few stored sessions: 4 would suffice")
    assert "--rwkv-budget" not in sentence


def test_sessions_that_differ_are_no_matter_of_the_budget() -> None:
    assert advised(undecided()).endswith("a larger budget does not help.")


def test_a_short_budget_is_the_cause_where_a_runs_own_figures_are_uncertain() -> None:
    wide = replace(undecided(settled_by=4), rate=Rate(100, 80, 120, 3, 9))
    assert "raise --rwkv-budget" in advised(wide, replace(STEADY, ended_by="budget"))
    assert "--rwkv-budget" not in advised(wide, replace(STEADY, ended_by="precision"))


def test_pairs_that_the_budget_ended_want_more_of_it_and_no_more_than_there_can_be() -> None:
    assert advised(paired()) == "The budget ended A/B after 8 pairs: raise --rwkv-budget, or --rwkv-tolerance."
    sentence = advised(paired(), measured(*([100, 101] * (LOOKS[-1] // 2))))
    assert sentence.startswith("40 pairs, the most that are measured, leave it open")
    assert "--rwkv-budget" not in sentence


@pytest.mark.parametrize("item", [undecided(settled_by=4), paired()], ids=["stored", "A/B"])
def test_an_engine_with_two_speeds_is_named_with_both(item: RecordedItem) -> None:
    sentence = advised(item, TWO_SPEEDS)
    assert sentence.startswith(
        "llama-cpp-q8_0-cpu tg128@d4096 runs at two speeds, 853.3 t/s in 3 of 8 processes and 1280"
    )
    assert "--rwkv-budget" not in sentence


def test_ab_that_could_not_be_asked_is_no_advice_to_use_it() -> None:
    item = replace(undecided(), reason=f"open; {steps.NOT_ASKED}: it is on no index")
    assert advised(item) == "Stored figures leave it open, and A/B could not be asked: the test's reason says why."


def test_each_cause_has_one_sentence_the_most_frequent_first() -> None:
    items = [undecided(settled_by=4), replace(undecided(), workload="pp16"), replace(undecided(), workload="pp32")]
    runs = [replace(run, samples=dict.fromkeys((NAME, "pp16", "pp32"), run.samples[NAME])) for run in STEADY.runs]
    told = advice.inconclusive(report_record(recorded(replace(STEADY, runs=tuple(runs)), *items)))
    assert [sentence.split()[0] for sentence in told] == ["Sessions", "Too"]
