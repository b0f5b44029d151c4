"""Two groups of processes: what is one, and how often chance makes some."""

from __future__ import annotations

import random

import pytest

from pytest_rwkvperf.stats.modes import FEWEST, two_levels


@pytest.mark.parametrize(
    ("speeds", "found"),
    [
        ([100, 101, 99, 100, 150, 151, 149, 150], (100, 150, 4)),
        ([100, 101, 99, 100, 102, 101, 151, 149], (100.5, 150, 6)),
        ([100, 101, 99, 100, 102, 101, 100, 150], None),  # one process alone was disturbed
        ([100, 110, 120, 130, 140, 150, 160, 170], None),
        ([100, 100, 100, 100, 102, 102, 102, 102], None),  # less than the tolerance
        ([100, 150] * (FEWEST // 2 - 1), None),
    ],
)
def test_two_groups_are_two_in_number_apart_and_tight(
    speeds: list[float], found: tuple[float, float, int] | None
) -> None:
    levels = two_levels(speeds, 0.05)
    assert (levels is None) == (found is None)
    if levels and found:
        assert levels == pytest.approx(found, rel=0.002)


def test_chance_hardly_makes_two_groups() -> None:
    source = random.Random(7)
    runs = [[source.lognormvariate(0, 0.1) for _ in range(FEWEST)] for _ in range(4000)]
    assert sum(two_levels(speeds, 0.0) is not None for speeds in runs) <= 16
