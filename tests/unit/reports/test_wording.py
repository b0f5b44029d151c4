from __future__ import annotations

import pytest

from pytest_rwkvperf.reports import wording
from pytest_rwkvperf.stats.estimates import Rate


@pytest.mark.parametrize(
    ("ratio", "expected"),
    [
        (0.8, "25 % slower"), (1.25, "25 % faster"), (0.99, "1 % slower"), (1.0042, "0.4 % faster"),
        (1.0, "same speed"), (0.9999, "same speed"), (0.26, "3.8 times slower"),
        (6.1, "6.1 times faster"), (1e9, "many times faster"),
    ],
)  # fmt: skip
def test_a_ratio_in_words(ratio: float, expected: str) -> None:
    assert wording.change(ratio).replace(wording.SPACE, " ") == expected


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.71, 0.78, "28 % to 41 % slower"), (0.98, 1.02, "2 % slower to 2 % faster"),
        (1.02, 1.5, "2 % to 50 % faster"), (0.0, None, "no bounds"),
        (0.8, None, "25 % slower at most"), (0.0, 0.8, "25 % slower at least"),
        (1.0, 1.0, "same speed"),
    ],
)  # fmt: skip
def test_bounds_in_words(low: float, high: float | None, expected: str) -> None:
    assert wording.changes(low, high).replace(wording.SPACE, " ") == expected


def test_counts_have_the_right_number() -> None:
    assert [wording.count(1, "workload"), wording.count(2, "workload")] == ["1 workload", "2 workloads"]
    assert wording.count(12345, "process", "processes") == "12\u00a0345 processes"


def test_long_lists_are_shortened() -> None:
    assert wording.names(["a"]) == "a"
    assert wording.names(["a", "b"]) == "a and b"
    assert wording.names(["a", "b", "c"]) == "a, b and c"
    assert wording.names(["a", "b", "c", "d"]) == "a, b and 2 more"


def test_intervals_that_say_nothing_say_so() -> None:
    rates = [Rate(100, 0, None, 1, 9), Rate(100, 10, 960, 3, 9), Rate(100, 98.58, 101.42, 3, 9)]
    texts = [wording.plus_minus(rate) for rate in rates]
    assert texts == ["one process", "interval unusable", "±\u00a01.4\u00a0%"]
