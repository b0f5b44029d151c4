"""Estimates and their intervals: by hand, against SciPy's t distribution, and in a seeded simulation."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from pytest_rwkvperf.core.errors import MeasurementError
from pytest_rwkvperf.stats.estimates import (
    CONFIDENCE,
    MAX_NANOSECONDS,
    LogTimes,
    estimate_rate,
    interval_reach,
    log_times,
)
from pytest_rwkvperf.stats.spread import Spread

NOTHING_KNOWN = Spread(1e-12, 1e-6)
"""A prior that counts for nothing, so that the interval is Student's."""

NANOSECONDS = st.integers(1, MAX_NANOSECONDS)
PROCESSES = st.lists(st.lists(NANOSECONDS, min_size=1, max_size=5), min_size=1, max_size=6)


def test_an_example_by_hand() -> None:
    # Medians 1, 2 and 4 s, whose logarithms are 0, ln 2 and 2 ln 2: mean ln 2, sample variance (ln 2)^2.
    times = [[3_000_000_000, 1_000_000_000, 900_000_000], [2_000_000_000], [3_500_000_000, 4_500_000_000]]
    assert estimate_rate(times, 100).median == pytest.approx(50.0)
    # t of two degrees of freedom at 97.5 %: 4.302653 in every printed table.
    reach = math.exp(4.302653 * math.log(2) / math.sqrt(3))
    estimate = estimate_rate(times, 100, NOTHING_KNOWN)
    assert estimate.low == pytest.approx(50 / reach, rel=1e-4)
    assert estimate.high == pytest.approx(50 * reach, rel=1e-4)
    assert (estimate.processes, estimate.samples) == (3, 6)
    assert estimate.half_width == pytest.approx((reach - 1 / reach) / 2, rel=1e-4)


@given(st.lists(NANOSECONDS, min_size=2, max_size=20))
def test_the_interval_equals_scipys(times: list[int]) -> None:
    logs = np.log(np.array(times, float))
    assume(logs.std() > 1e-6)  # with less, both would compare rounding errors
    low, high = stats.t.interval(CONFIDENCE, len(logs) - 1, loc=logs.mean(), scale=stats.sem(logs))
    moments = log_times([[time] for time in times])
    assert moments.mean == pytest.approx(logs.mean())
    assert interval_reach(moments, NOTHING_KNOWN) == pytest.approx((high - low) / 2, rel=1e-4)


def coverage(processes: int, simulations: int, seed: int) -> float:
    """Share of simulated measurements whose interval holds the truth."""
    random = np.random.default_rng(seed)
    # Truth: a median of 1e9 ns. Processes differ by 3 %; five repetitions in each spread by 1 % around its level.
    levels = random.normal(0, 0.03, (simulations, processes, 1))
    times = 1e9 * np.exp(levels + random.normal(0, 0.01, (simulations, processes, 5)))
    estimates = (estimate_rate(measurement, 1, NOTHING_KNOWN) for measurement in times.tolist())
    return sum(estimate.low <= 1.0 <= (estimate.high or 0) for estimate in estimates) / simulations


@pytest.mark.parametrize("processes", [3, 5])
def test_the_interval_covers_the_truth_95_times_in_100(processes: int) -> None:
    simulations = 2000
    # The share's own standard error is sqrt(0.95 * 0.05 / 2000) = 0.49 %; three of them are allowed either way.
    error = 3 * math.sqrt(CONFIDENCE * (1 - CONFIDENCE) / simulations)
    assert coverage(processes, simulations, seed=processes) == pytest.approx(CONFIDENCE, abs=error)


def test_repetitions_of_one_process_do_not_narrow_the_interval() -> None:
    few = [[1_000_000], [1_010_000], [1_020_000]]
    many = [row * 50 for row in few]
    assert estimate_rate(few, 1).half_width == pytest.approx(estimate_rate(many, 1).half_width)


def test_one_slow_repetition_does_not_move_a_process() -> None:
    calm = [[100, 101, 102], [103, 104, 105]]
    shaken = [[100, 101, 10_000], [103, 104, 105]]
    assert estimate_rate(calm, 1) == estimate_rate(shaken, 1)


@given(PROCESSES, st.integers(1, 10_000))
def test_an_estimate_lies_in_its_interval_and_scales_with_the_tokens(times: list[list[int]], tokens: int) -> None:
    estimate, single = estimate_rate(times, tokens), estimate_rate(times, 1)
    assert 0 <= estimate.low <= estimate.median <= (math.inf if estimate.high is None else estimate.high)
    assert estimate.median == pytest.approx(tokens * single.median)
    assert estimate.samples == sum(map(len, times))
    slowest, fastest = max(map(max, times)), min(map(min, times))
    assert tokens * 1e9 / slowest * (1 - 1e-9) <= estimate.median <= tokens * 1e9 / fastest * (1 + 1e-9)


@given(PROCESSES, st.randoms(use_true_random=False))
def test_the_order_of_processes_and_repetitions_does_not_matter(times: list[list[int]], random: Any) -> None:  # noqa: ANN401 - hypothesis's own Random
    shuffled = [random.sample(row, len(row)) for row in times]
    random.shuffle(shuffled)
    before, after = estimate_rate(times, 1), estimate_rate(shuffled, 1)
    assert after.median == pytest.approx(before.median)
    assert after.high == pytest.approx(before.high)


def test_one_process_has_no_bounds() -> None:
    estimate = estimate_rate([[1_000_000_000, 1_000_000_001]], 5)
    assert estimate.median == pytest.approx(5)
    assert (estimate.low, estimate.high, estimate.half_width) == (0, None, None)
    assert interval_reach(LogTimes(0.0, math.inf, 1)) == math.inf


def test_equal_processes_have_the_interval_that_the_prior_gives() -> None:
    estimate = estimate_rate([[1000]] * 4, 1, Spread(0.01**2, 3.0))
    assert estimate.half_width == pytest.approx(stats.t.ppf(0.975, 6) * math.sqrt(0.01**2 * 3 / 6 / 4), rel=1e-3)


UNUSABLE = [math.nan, math.inf, -math.inf, 0, 0.0, -1, -0.0, MAX_NANOSECONDS + 1, 10**400]


@pytest.mark.parametrize("value", UNUSABLE, ids=repr)
@pytest.mark.parametrize("place", [(0, 0), (0, 1), (1, 0)])
def test_unusable_times_are_refused_in_any_place(value: float, place: tuple[int, int]) -> None:
    times: list[list[float]] = [[10, 11, 12], [13, 14]]
    times[place[0]][place[1]] = value
    with pytest.raises(MeasurementError, match="not positive, or longer than 30 years; measure again"):
        estimate_rate(times, 1)


@pytest.mark.parametrize("times", [[], [[]], [[1, 2], []], ()])
def test_no_times_are_refused(times: list[list[int]]) -> None:
    with pytest.raises(MeasurementError, match="a process without samples; measure again"):
        estimate_rate(times, 1)
