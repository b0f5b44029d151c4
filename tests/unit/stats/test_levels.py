"""Levels: what a session says of a time, by hand, and what moves it and what does not."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_rwkvperf.core.errors import MeasurementError
from pytest_rwkvperf.stats.levels import (
    FAST_QUANTILE,
    SessionTimes,
    Statistic,
    drop_slow_handovers,
    level,
    quantile,
    same_placement,
)

ROWS = st.lists(st.lists(st.floats(1e3, 1e12), min_size=1, max_size=6), min_size=2, max_size=6)


@given(ROWS)
def test_the_fast_level_is_a_low_quantile_of_all_repetitions(rows: list[list[float]]) -> None:
    everything = [time for row in rows for time in row]
    assert level(SessionTimes(rows), "fast").value == pytest.approx(math.log(np.quantile(everything, FAST_QUANTILE)))


@given(st.lists(st.floats(-1e300, 1e300).map(lambda value: value + 0.0), min_size=1, max_size=50), st.floats(0, 1))
def test_a_quantile_is_numpy_s_to_the_last_bit(values: list[float], share: float) -> None:
    """Of anything but -0.0, which adding 0.0 makes a plain zero."""
    found = quantile(np.array(values), share)
    assert np.float64(found).tobytes() == np.float64(np.quantile(values, share)).tobytes()


@given(ROWS)
def test_the_mean_level_counts_each_process_the_same(rows: list[list[float]]) -> None:
    expected = math.log(np.mean([np.mean(row) for row in rows]))
    assert level(SessionTimes(rows), "mean").value == pytest.approx(expected)
    assert level(SessionTimes([row * 3 for row in rows]), "mean").value == pytest.approx(expected)


def test_neighbours_slow_some_repetitions_and_the_fast_level_stays() -> None:
    calm = [[100.0 + index for index in range(10)] for _ in range(4)]
    disturbed = [[time * (3 if index > 5 else 1) for index, time in enumerate(row)] for row in calm]
    assert level(SessionTimes(disturbed), "fast").value == pytest.approx(
        level(SessionTimes(calm), "fast").value, abs=0.01
    )
    assert level(SessionTimes(disturbed), "mean").value > level(SessionTimes(calm), "mean").value + 0.4


def test_a_whole_process_in_a_slow_mode_moves_the_fast_level_little() -> None:
    rows = [[100.0] * 5, [200.0] * 5, [100.5] * 5]
    assert math.exp(level(SessionTimes(rows), "fast").value) == pytest.approx(100, rel=0.01)


def test_the_error_of_a_mean_is_the_textbooks() -> None:
    """The jackknife of a mean is its standard error; on the log scale that holds where the spread is small."""
    rows = [[1.0], [1.001], [1.002], [0.999]]
    expected = np.std([row[0] for row in rows], ddof=1) / math.sqrt(4)
    assert level(SessionTimes(rows), "mean").error == pytest.approx(expected, rel=1e-2)


def test_repetitions_on_processors_further_apart_than_the_nearest_are_left_out() -> None:
    timed = SessionTimes(
        [[1.0, 1.5], [2.0, 2.5], [3.0, 3.5]], [7.0, 8.0, 9.0], 0.1, [[70.0, 71.0], [105.0, 90.0], [83.0, 90.0]]
    )
    assert drop_slow_handovers(timed) == SessionTimes([[1.0, 1.5], [3.0]], [7.0, 9.0], 0.1, [[70.0, 71.0], [83.0]])
    assert drop_slow_handovers(replace(timed, handovers=())).times == timed.times


def test_sessions_are_alike_within_the_margin_and_where_nothing_was_looked_at() -> None:
    near, same, apart = (
        SessionTimes([[1.0] * 3], (), 0.0, [one]) for one in ([70.0] * 3, [105.0, 83.0, 83.0], [83.0, 90.0, 99.0])
    )
    assert (near.handover, same.handover, apart.handover) == (70, 83, 90)
    assert same_placement(near, same)
    assert same_placement(same, near)
    assert not same_placement(near, apart)
    assert not same_placement(apart, near)
    assert same_placement(near, SessionTimes([[1.0]]))


def test_one_lucky_hand_over_does_not_make_all_others_look_apart() -> None:
    assert SessionTimes([[1.0] * 12], (), 0.0, [[40.0] + [70.0] * 11]).handover == 70


def test_one_process_says_nothing_of_its_error() -> None:
    assert level(SessionTimes([[1.0, 2.0]]), "fast").error == math.inf


@pytest.mark.parametrize("statistic", ["fast", "mean"])
def test_processes_have_levels_of_their_own(statistic: Statistic) -> None:
    found = level(SessionTimes([[1.0, 1.0], [4.0]], [2.0, 8.0]), statistic)
    assert found.processes == pytest.approx((0.0, math.log(4)))
    assert found.probes == pytest.approx((math.log(2), math.log(8)))


def test_probes_that_do_not_fit_the_processes_are_none() -> None:
    assert level(SessionTimes([[1.0], [2.0]], [3.0]), "fast").probes == ()


@pytest.mark.parametrize("bad", [[], [[]], [[1.0], []], [[0.0]], [[math.nan]]])
def test_times_that_are_none_are_refused(bad: list[list[float]]) -> None:
    with pytest.raises(MeasurementError, match="measure again"):
        level(SessionTimes(bad), "fast")
