"""What witnesses say of an item: the same, more, less or other work than before."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pytest_rwkvperf.core.cases import Workload
from pytest_rwkvperf.core.work import Amount, Reading, WorkCount, WorkVerdict
from pytest_rwkvperf.verdict import work

PREFILL = Workload("prefill", 512)
OPERATORS = {"aten::mm 512x8": Amount(100, 6400), "aten::add 512x8": Amount(50, 3200)}


def reading(operators: dict[str, Amount], tokens: int = 512, **changed: object) -> Reading:
    made = Reading("operations", "operations", "a mode", {"pp512": WorkCount(tokens, operators)})
    return replace(made, **changed)  # type: ignore[arg-type]  # the reading's own fields


OLD = reading(OPERATORS)


@pytest.mark.parametrize(
    ("changed", "verdict", "told"),
    [
        ({}, "SAME WORK", "the same 150 operations for 512 tokens, by the same operators"),
        ({"aten::add 512x8": Amount(54, 3456)}, "MORE WORK", "154 operations for 512 tokens (+2.67%)"),
        ({"aten::add 512x8": Amount(54, 3456)}, "MORE WORK", "aten::add 512x8 50 → 54"),
        ({"aten::add 512x8": Amount(50, 6400)}, "MORE WORK", "aten::add 512x8 3200 → 6400 bytes"),
        ({"aten::mm 512x8": Amount(99, 6400)}, "LESS WORK", "aten::mm 512x8 100 → 99"),
        ({"aten::add 512x8": Amount(49, 3200), "aten::sub": Amount(1)}, "OTHER WORK", "aten::sub 0 → 1"),
    ],
)
def test_the_verdict_and_the_operators_that_changed(
    changed: dict[str, Amount], verdict: WorkVerdict, told: str
) -> None:
    """More operations, or as many with larger results, are more work."""
    judged = work.judge([reading({**OPERATORS, **changed})], [OLD], PREFILL)
    assert judged is not None
    assert judged.verdict == verdict
    assert told in judged.sentences[0]


def test_inexact_counts_may_differ_by_their_allowance() -> None:
    """Instructions of the same code differ by the addresses of its memory."""
    old = reading({"wkv": Amount(100_000)}, allowance=1e-3)
    for count, verdict in ((100_090, "SAME WORK"), (100_110, "MORE WORK"), (99_800, "LESS WORK")):
        judged = work.judge([reading({"wkv": Amount(count)}, allowance=1e-3)], [old], PREFILL)
        assert judged is not None
        assert judged.verdict == verdict


@pytest.mark.parametrize(
    "other",
    [
        replace(OLD, instrument="another"),
        replace(OLD, witness="graph"),
        reading(OPERATORS, tokens=128),
        replace(OLD, workloads={"tg128": OLD.workloads["pp512"]}),
    ],
)
def test_unlike_readings_say_nothing(other: Reading) -> None:
    """Of another instrument, witness, number of tokens or workload."""
    assert work.judge([OLD], [other], PREFILL) is None
    assert work.judge([], [OLD], PREFILL) is None


def test_the_gravest_of_several_witnesses_counts() -> None:
    """With a sentence of each."""
    graph = replace(OLD, witness="graph")
    more = replace(reading({**OPERATORS, "copy": Amount(1)}), witness="graph")
    judged = work.judge([OLD, more], [OLD, graph], PREFILL)
    assert judged is not None
    assert judged.verdict == "MORE WORK"
    assert ["copy 0 → 1" in each for each in judged.sentences] == [False, True]


def test_inexact_counts_that_moved_to_other_functions_are_other_work() -> None:
    """As many instructions in all, of which some are another function's."""
    old = reading({"dot": Amount(60_000), "copy": Amount(40_000)}, allowance=1e-3)
    new = reading({"dot": Amount(50_000), "copy": Amount(50_050)}, allowance=1e-3)
    judged = work.judge([new], [old], PREFILL)
    assert judged is not None
    assert judged.verdict == "OTHER WORK"


def test_device_time_comes_with_its_interval() -> None:
    """Of several repetitions on both sides; it decides nothing."""
    sides = [
        Reading("kernels", "kernels", "CUPTI", {"pp512": WorkCount(512, OPERATORS, nanoseconds=times)})
        for times in ((1030, 1031, 1029, 1030), (1000, 1001, 999, 1000))
    ]
    judged = work.judge([sides[0]], [sides[1]], PREFILL)
    assert judged is not None
    assert judged.verdict == "SAME WORK"
    assert "device time +3.0% (95 % interval +2.9% to +3.1%)" in judged.sentences[0]
