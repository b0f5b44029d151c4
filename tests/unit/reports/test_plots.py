from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_rwkvperf.reports import plots

POSITIVE = st.floats(1e-9, 1e9)
RATIOS = st.floats(1e-3, 1e3)


def test_positions_are_in_percent_and_end_at_the_ends() -> None:
    linear, log = plots.Scale(0, 200), plots.Scale(0.5, 2, logarithmic=True)
    assert [linear.at(value) for value in (-1, 0, 50, 200, 300)] == [0, 0, 25, 100, 100]
    assert [log.at(value) for value in (0, 0.5, 1, 2, math.inf)] == [0, 0, 50, 100, 100]
    assert [linear.side(value) for value in (-1, 0, 200, 300)] == ["below", "", "", "above"]


def test_a_mark_says_what_lies_beyond_the_scale() -> None:
    scale = plots.Scale(0.5, 2, logarithmic=True)
    assert plots.mark(scale, 1, 0.8, math.inf) == plots.Mark(50, "", scale.at(0.8), 100, high_beyond=True)
    assert plots.mark(scale, 3.8, 0.0, 6.1).beyond == "above"
    assert plots.mark(scale, 3.8, 0.0, 6.1).low_beyond
    assert plots.mark(scale, 1, None, None, reference=2) == plots.Mark(50, "", reference=100)


@given(st.lists(POSITIVE, min_size=1, max_size=9))
def test_amounts_begin_at_zero_and_hold_every_value(values: list[float]) -> None:
    scale = plots.amounts(values, [100 * value for value in values])
    assert scale.low == 0
    assert max(values) <= scale.high <= 1.5 * max(values)


@given(st.lists(RATIOS, max_size=9), st.floats(0.001, 0.5))
def test_a_scale_of_ratios_holds_the_tolerance_and_every_ratio_up_to_its_end(
    found: list[float], tolerance: float
) -> None:
    scale = plots.ratios([(ratio, ratio / 2, ratio * 2) for ratio in found], tolerance)
    assert 1 / plots.MAX_RATIO <= scale.low <= 1 / (1 + tolerance)
    assert 1 + tolerance <= scale.high <= plots.MAX_RATIO
    assert all(not scale.side(ratio) for ratio in found if 1 / plots.MAX_RATIO < ratio < plots.MAX_RATIO)


def test_close_ratios_get_a_scale_of_their_own_size() -> None:
    scale = plots.ratios([(1.01, 1.0, 1.02), (0.99, 0.98, 1.0)], 0.05)
    assert scale.low > 0.85
    assert scale.high < 1.18


@given(st.lists(RATIOS, max_size=9), st.floats(0.001, 0.5))
def test_labels_of_ratios_do_not_overlap(found: list[float], tolerance: float) -> None:
    ticks = plots.ratio_ticks(plots.ratios([(ratio, ratio, None) for ratio in found], tolerance))
    assert 1.0 in [tick.value for tick in ticks]
    assert all(after.at - before.at >= 13 for before, after in pairwise(ticks))


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6), st.integers(3, 6))
def test_labels_are_few_round_and_on_the_scale(low: float, span: float, most: int) -> None:
    scale = plots.Scale(low, low + span)
    ticks = plots.ticks(scale, most)
    assert 1 <= len(ticks) <= most or span < 1e-9 * abs(low)
    assert all(low - 1e-6 * span <= tick.value <= low + span * (1 + 1e-6) for tick in ticks)


@pytest.mark.parametrize(
    ("high", "expected"),
    [(6100, [0, 2000, 4000, 6000]), (1.0, [0, 0.25, 0.5, 0.75, 1.0]), (893, [0, 200, 400, 600, 800])],
)
def test_six_thousand_is_not_drawn_on_a_decade(high: float, expected: list[float]) -> None:
    assert [tick.value for tick in plots.ticks(plots.Scale(0, high))] == expected


def test_a_scale_that_does_not_begin_at_zero_has_several_labels() -> None:
    assert [tick.value for tick in plots.ticks(plots.Scale(457, 531), 4)] == [460, 480, 500, 520]


def test_points_are_drawn_in_order_and_gaps_left_out() -> None:
    plot = plots.dots([10.0, None, 20.0, 15.0], ["a", "a", "b", "a"], starts=[2])
    assert plot.width == 4
    assert plot.paths == {"a": "M0 94.6h0M3 50.0h0", "b": "M2 5.4h0"}
    assert plot.dividers == "M1.5 0v100"
