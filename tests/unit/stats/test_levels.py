"""The fast and the mean level of a session: by hand, and what changes them."""

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
def test_the_quantile_equals_numpys(values: list[float], share: float) -> None:
    """Of anything but -0.0, which adding 0.0 makes a plain zero."""
    found = quantile(np.array(values), share)
    assert np.float64(found).tobytes() == np.float64(np.quantile(values, share)).tobytes()


@given(ROWS)
def test_the_mean_level_weighs_processes_equally(rows: list[list[float]]) -> None:
    expected = math.log(np.mean([np.mean(row) for row in rows]))
    assert level(SessionTimes(rows), "mean").value == pytest.approx(expected)
    assert level(SessionTimes([row * 3 for row in rows]), "mean").value == pytest.approx(expected)


def test_the_fast_level_ignores_some_slow_repetitions() -> None:
    calm = [[100.0 + index for index in range(10)] for _ in range(4)]
    disturbed = [[time * (3 if index > 5 else 1) for index, time in enumerate(row)] for row in calm]
    assert level(SessionTimes(disturbed), "fast").value == pytest.approx(
        level(SessionTimes(calm), "fast").value, abs=0.01
    )
    assert level(SessionTimes(disturbed), "mean").value > level(SessionTimes(calm), "mean").value + 0.4


def test_one_slow_process_barely_moves_the_fast_level() -> None:
    rows = [[100.0] * 5, [200.0] * 5, [100.5] * 5]
    assert math.exp(level(SessionTimes(rows), "fast").value) == pytest.approx(100, rel=0.01)


def test_the_error_of_a_mean_is_the_textbook_formula() -> None:
    """The jackknife of a mean is its standard error; on the log scale that holds where the spread is small."""
    rows = [[1.0], [1.001], [1.002], [0.999]]
    expected = np.std([row[0] for row in rows], ddof=1) / math.sqrt(4)
    assert level(SessionTimes(rows), "mean").error == pytest.approx(expected, rel=1e-2)


def test_repetitions_with_slow_handovers_are_dropped() -> None:
    timed = SessionTimes(
        [[1.0, 1.5], [2.0, 2.5], [3.0, 3.5]], [7.0, 8.0, 9.0], 0.1, [[70.0, 71.0], [105.0, 90.0], [83.0, 90.0]]
    )
    assert drop_slow_handovers(timed) == SessionTimes([[1.0, 1.5], [3.0]], [7.0, 9.0], 0.1, [[70.0, 71.0], [83.0]])
    assert drop_slow_handovers(replace(timed, handovers=())).times == timed.times


def test_sessions_with_similar_or_no_handovers_are_alike() -> None:
    near, same, apart = (
        SessionTimes([[1.0] * 3], (), 0.0, [one]) for one in ([70.0] * 3, [105.0, 83.0, 83.0], [83.0, 90.0, 99.0])
    )
    assert (near.handover, same.handover, apart.handover) == (70, 83, 90)
    assert same_placement(near, same)
    assert same_placement(same, near)
    assert not same_placement(near, apart)
    assert not same_placement(apart, near)
    assert same_placement(near, SessionTimes([[1.0]]))


def test_one_quick_handover_does_not_drop_the_others() -> None:
    assert SessionTimes([[1.0] * 12], (), 0.0, [[40.0] + [70.0] * 11]).handover == 70


def test_one_process_has_an_unknown_error() -> None:
    assert level(SessionTimes([[1.0, 2.0]]), "fast").error == math.inf


@pytest.mark.parametrize("statistic", ["fast", "mean"])
def test_each_process_has_its_level(statistic: Statistic) -> None:
    found = level(SessionTimes([[1.0, 1.0], [4.0]], [2.0, 8.0]), statistic)
    assert found.processes == pytest.approx((0.0, math.log(4)))
    assert found.probes == pytest.approx((math.log(2), math.log(8)))


def test_probes_of_another_count_are_dropped() -> None:
    assert level(SessionTimes([[1.0], [2.0]], [3.0]), "fast").probes == ()


@pytest.mark.parametrize("bad", [[], [[]], [[1.0], []], [[0.0]], [[math.nan]]])
def test_unusable_times_are_refused(bad: list[list[float]]) -> None:
    with pytest.raises(MeasurementError, match="measure again"):
        level(SessionTimes(bad), "fast")
