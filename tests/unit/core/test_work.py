"""Counts of work: totals, differences by operator, and what is refused in stored ones."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pytest_rwkvperf.core.work import Amount, Reading, WorkCount, differences, problem

COUNT = WorkCount(16, {"aten::mm 1x8 8x8": Amount(32, 1024), "aten::mm 1x8 8x4": Amount(2, 32), "aten::add": Amount(5)})
READING = Reading("operations", "operations", "a mode", {"tg128": COUNT, "pp512": COUNT})


def test_totals_are_of_all_operators() -> None:
    """And operators of one name are added up over their shapes."""
    assert (COUNT.count, COUNT.bytes) == (39, 1056)
    assert COUNT.by_name() == {"aten::mm": Amount(34, 1056), "aten::add": Amount(5)}


def test_differences_come_largest_first() -> None:
    """New and vanished operators among them; those that are unchanged are left out."""
    new = WorkCount(16, {"aten::mm 1x8 8x8": Amount(33, 1056), "aten::mm 1x8 8x4": Amount(2, 32), "new": Amount(7)})
    found = differences(COUNT, new)
    assert [(each.operator, each.old.number, each.new.number) for each in found] == [
        ("new", 0, 7),
        ("aten::add", 5, 0),
        ("aten::mm 1x8 8x8", 32, 33),
    ]
    assert differences(COUNT, COUNT) == []


def test_more_bytes_alone_are_a_difference() -> None:
    """An operator that is called as often and writes more."""
    new = WorkCount(16, {**COUNT.operators, "aten::add": Amount(5, 64)})
    assert [each.operator for each in differences(COUNT, new)] == ["aten::add"]


def test_an_allowance_is_a_share_of_all() -> None:
    """Of inexact counts, an operator's difference counts beyond it alone."""
    new = WorkCount(16, {**COUNT.operators, "aten::add": Amount(6)})
    assert [each.operator for each in differences(COUNT, new, 0.02)] == ["aten::add"]
    assert differences(COUNT, new, 0.03) == []


@pytest.mark.parametrize(
    "other",
    [
        replace(READING, instrument="another"),
        replace(READING, instruction_set="AVX2"),
        replace(READING, witness="graph"),
    ],
)
def test_only_like_readings_are_compared(other: Reading) -> None:
    """The same witness, instrument and instruction set."""
    assert READING.like(replace(READING, workloads={}))
    assert not READING.like(other)


def test_a_reading_without_a_workload_keeps_the_others() -> None:
    """As a baseline drops the sessions of single workloads."""
    assert READING.without({"tg128"}).workloads == {"pp512": COUNT}


@pytest.mark.parametrize("count", [replace(COUNT, tokens=0), WorkCount(1, {"aten::mm": Amount(-1)})])
def test_unusable_stored_counts_are_refused(count: WorkCount) -> None:
    """A file that was edited by hand."""
    assert problem((READING,)) == ""
    assert "unusable count of tg128" in problem((replace(READING, workloads={"tg128": count}),))
