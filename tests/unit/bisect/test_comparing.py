"""What a run's record answers: by its verdicts, or by what a witness counted."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from pytest_rwkvperf.bisect import comparing
from pytest_rwkvperf.core.work import Amount, Reading, WorkCount
from tests.unit import building

if TYPE_CHECKING:
    from pytest_rwkvperf.store.record import Record

MEASURED = building.make_record(building.make_run(pp512=(10**9,) * 3))


def record_of(verdict: str, *, old: int = 0, new: int = 0) -> Record:
    """A record of one workload with a verdict, and what instructions were counted on the sides."""
    item = building.with_verdict(verdict, workload="pp512", tolerance=0.25)  # type: ignore[arg-type]
    sides = [
        replace(MEASURED, witnesses=(Reading("instructions", "instructions", "x", {"pp512": count}),))
        for number in (new, old)
        for count in [WorkCount(32, {"wkv7": Amount(number)})]
    ]
    return building.report_record(building.recorded(sides[0], item, old=sides[1]))


@pytest.mark.parametrize(
    ("verdict", "kind"),
    [
        ("REGRESSION", "slower"),
        ("PASS", "same"),
        ("IMPROVEMENT", "same"),
        ("INCONCLUSIVE", "undecided"),
        ("INVALID", "invalid"),
    ],
)
def test_a_verdict_is_an_answer(verdict: str, kind: str) -> None:
    assert comparing._answer(record_of(verdict), [], "time").kind == kind


@pytest.mark.parametrize(("new", "kind"), [(1000, "same"), (1240, "same"), (1260, "slower"), (900, "same")])
def test_counts_beyond_the_tolerance_are_slower_whatever_the_times_say(new: int, kind: str) -> None:
    outcome = comparing._answer(record_of("INCONCLUSIVE", old=1000, new=new), [], "instructions")
    assert outcome.kind == kind
    assert outcome.figures[0].ratio == 1000 / new


def test_wrong_answers_go_before_counts_and_no_counts_are_no_answer() -> None:
    assert comparing._answer(record_of("INVALID", old=1, new=1), [], "instructions").kind == "invalid"
    without = building.report_record(building.recorded(MEASURED, building.with_verdict("PASS", workload="pp512")))
    assert comparing._answer(without, [], "instructions").kind == "broken"
