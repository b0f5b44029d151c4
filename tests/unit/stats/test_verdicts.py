"""Verdicts: the margins, what makes bounds wider, and how often unchanged code is called slower."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from pytest_rwkvperf.errors import MeasurementError
from pytest_rwkvperf.stats.verdicts import ALPHA, SESSION_SPREAD, Comparison, classify, compare

Times = list[list[float]]

NANOSECONDS = st.integers(1, 10**15)
PROCESSES = st.lists(st.lists(NANOSECONDS, min_size=1, max_size=3), min_size=2, max_size=6)
TOLERANCES = st.floats(1e-4, 0.9)

STEADY: Times = [[1_000_000.0, 1_001_000.0], [1_002_000.0], [1_003_000.0], [1_004_000.0], [1_005_000.0]]


def slowed(times: Times, factor: float) -> Times:
    return [[factor * time for time in row] for row in times]


# Margins


@given(TOLERANCES)
def test_bounds_that_touch_a_margin_have_not_passed_it(tolerance: float) -> None:
    floor, ceiling = 1 / (1 + tolerance), 1 + tolerance
    below, above = math.nextafter(floor, 0), math.nextafter(floor, 1)
    assert classify(0.0, below, tolerance) == "REGRESSION"
    assert classify(0.0, floor, tolerance) == "INCONCLUSIVE"
    assert classify(below, 1.0, tolerance) == "INCONCLUSIVE"
    assert classify(floor, 1.0, tolerance) == "INCONCLUSIVE"
    assert classify(above, 1.0, tolerance) == "PASS"
    assert classify(ceiling, 2 * ceiling, tolerance) == "PASS"
    assert classify(math.nextafter(ceiling, 9), 2 * ceiling, tolerance) == "IMPROVEMENT"


@given(st.floats(0, 10), st.floats(0, 10), TOLERANCES)
def test_every_pair_of_bounds_gets_the_one_verdict_of_the_design(one: float, other: float, tolerance: float) -> None:
    low, high = sorted((one, other))
    floor, ceiling = 1 / (1 + tolerance), 1 + tolerance
    verdict = classify(low, high, tolerance)
    assert (verdict == "REGRESSION") == (high < floor)
    assert (verdict == "IMPROVEMENT") == (low > ceiling)
    assert (verdict == "PASS") == (floor < low <= ceiling)
    assert (verdict == "INCONCLUSIVE") == (low <= floor <= high)


# Comparing


@pytest.mark.parametrize(
    ("factor", "verdict"), [(2.0, "REGRESSION"), (1.5, "REGRESSION"), (1.0, "PASS"), (0.5, "IMPROVEMENT")]
)
def test_what_is_plain_is_said(factor: float, verdict: str) -> None:
    comparison = compare(slowed(STEADY, factor), [STEADY], 0.25, items=12)
    assert comparison.verdict == verdict
    assert comparison.ratio == pytest.approx(1 / factor)
    assert comparison.low < comparison.ratio < comparison.high
    assert comparison.tolerance == 0.25


def test_a_clear_doubling_of_the_time_is_a_regression_at_the_default_tolerance_even_with_noise() -> None:
    noisy = [[1e6, 1.1e6], [1.05e6], [0.95e6], [1.02e6], [1.08e6]]
    assert compare(slowed(noisy, 2), [noisy], 0.05, items=12).verdict == "REGRESSION"


def test_an_example_by_hand() -> None:
    # Logarithms of the medians: new 0, 0.02 (mean 0.01, variance 2e-4); old 0.1, 0.12, 0.14 (mean 0.12, variance 4e-4).
    new = [[1e6], [1e6 * math.exp(0.02)]]
    old = [[1e6 * math.exp(value)] for value in (0.1, 0.12, 0.14)]
    comparison = compare(new, [old], 0.05, items=2)
    parts = (2e-4 / 2, 4e-4 / 3)
    variance = sum(parts) + 2 * SESSION_SPREAD**2
    freedom = variance**2 / (parts[0] ** 2 / 1 + parts[1] ** 2 / 2)
    reach = stats.t.isf(ALPHA / 2, freedom) * math.sqrt(variance)
    assert comparison.ratio == pytest.approx(math.exp(0.11))
    assert comparison.low == pytest.approx(math.exp(0.11 - reach))
    assert comparison.high == pytest.approx(math.exp(0.11 + reach))
    assert comparison.alpha == ALPHA / 2


def test_without_any_spread_within_the_sessions_the_known_spread_between_them_remains() -> None:
    comparison = compare([[1000]] * 3, [[[1000]] * 3], 0.05, items=1)
    reach = stats.norm.isf(ALPHA) * SESSION_SPREAD * math.sqrt(2)
    assert comparison.low == pytest.approx(math.exp(-reach))
    assert comparison.high == pytest.approx(math.exp(reach))


@given(PROCESSES, PROCESSES, TOLERANCES, st.integers(1, 100))
def test_swapping_new_and_old_turns_the_bounds_over(one: Times, other: Times, tolerance: float, items: int) -> None:
    forth, back = compare(one, [other], tolerance, items), compare(other, [one], tolerance, items)
    assert back.ratio == pytest.approx(1 / forth.ratio)
    assert back.low * forth.high == pytest.approx(1) or (back.low, forth.high) == (0, math.inf)
    assert back.high * forth.low == pytest.approx(1) or (back.high, forth.low) == (math.inf, 0)
    # A margin within a rounding error of a bound may fall on either side.
    assume(all(abs(math.log(bound * (1 + tolerance))) > 1e-9 for bound in (forth.low, forth.high) if 0 < bound < 1e9))
    assume(all(abs(math.log(bound / (1 + tolerance))) > 1e-9 for bound in (forth.low, forth.high) if 0 < bound < 1e9))
    if forth.verdict == "IMPROVEMENT":
        assert back.verdict == "REGRESSION"
    if forth.verdict == "REGRESSION":
        assert back.verdict == "IMPROVEMENT"


@given(PROCESSES, PROCESSES, st.integers(1, 50), st.integers(1, 50))
def test_more_items_share_the_error_and_widen_the_bounds(new: Times, old: Times, items: int, more: int) -> None:
    few, many = compare(new, [old], 0.05, items), compare(new, [old], 0.05, items + more)
    assert few.alpha == pytest.approx(ALPHA / items)
    assert many.alpha == pytest.approx(ALPHA / (items + more))
    assert many.alpha < few.alpha
    assert many.low <= few.low <= few.ratio == many.ratio <= few.high <= many.high
    if few.low > 0 and few.high < math.inf:
        assert many.low < few.low
        assert few.high < many.high


@given(PROCESSES, PROCESSES, st.floats(0.01, 100))
def test_the_unit_of_time_does_not_matter(new: Times, old: Times, factor: float) -> None:
    plain = compare(new, [old], 0.05, 1)
    scaled = compare(slowed(new, factor), [slowed(old, factor)], 0.05, 1)
    assert scaled.ratio == pytest.approx(plain.ratio)
    assert scaled.low == pytest.approx(plain.low)


def test_more_sessions_narrow_the_bounds() -> None:
    def width(sessions: int) -> float:
        comparison = compare(STEADY, [STEADY] * sessions, 0.05, 1)
        return comparison.high / comparison.low

    assert width(1) > width(2) > width(5) > 1


# Too little, and nonsense


@pytest.mark.parametrize("factor", [0.1, 1, 10])
@pytest.mark.parametrize(
    ("new", "old"), [(STEADY[:1], STEADY), (STEADY, STEADY[:1]), (STEADY[:1], STEADY[:1])], ids=["new", "old", "both"]
)
def test_one_process_is_never_enough(new: Times, old: Times, factor: float) -> None:
    comparison = compare(slowed(new, factor), [old], 0.05, items=1)
    assert comparison == Comparison("INCONCLUSIVE", comparison.ratio, 0, math.inf, 0.05, ALPHA, math.inf)


UNUSABLE = [math.nan, math.inf, -math.inf, 0.0, -1.0, 10**400]


@pytest.mark.parametrize("value", UNUSABLE, ids=repr)
def test_times_that_are_none_get_no_verdict(value: float) -> None:
    broken = [[1.0, value], [2.0]]
    with pytest.raises(MeasurementError):
        compare(broken, [STEADY], 0.05, 1)
    with pytest.raises(MeasurementError):
        compare(STEADY, [STEADY, broken], 0.05, 1)


@pytest.mark.parametrize("nothing", [[], [[]], [[1.0], []]])
def test_nothing_gets_no_verdict(nothing: Times) -> None:
    with pytest.raises(MeasurementError):
        compare(nothing, [STEADY], 0.05, 1)
    with pytest.raises(MeasurementError):
        compare(STEADY, [nothing], 0.05, 1)
    with pytest.raises(MeasurementError):
        compare(STEADY, [], 0.05, 1)


# How often it is wrong


def simulated(random: np.random.Generator, shift: float, processes: int = 5) -> Times:
    """A session: its level moves by the documented spread, its processes by 2 %, their repetitions by 1 %."""
    level = shift + random.normal(0, SESSION_SPREAD)
    logs = level + random.normal(0, 0.02, (processes, 1)) + random.normal(0, 0.01, (processes, 3))
    times: Times = (1e8 * np.exp(logs)).tolist()
    return times


def regressions(slowdown: float, tolerance: float, sessions: int, simulations: int) -> int:
    random = np.random.default_rng(2024)
    return sum(
        compare(
            simulated(random, math.log1p(slowdown)),
            [simulated(random, 0.0) for _ in range(sessions)],
            tolerance,
            items=1,
        ).verdict
        == "REGRESSION"
        for _ in range(simulations)
    )


@pytest.mark.parametrize("sessions", [1, 3])
def test_a_slowdown_of_just_the_tolerance_is_called_a_regression_no_oftener_than_alpha(sessions: int) -> None:
    """The worst case of unchanged enough code: the truth lies on the margin itself."""
    simulations = 3000
    expected = ALPHA * simulations
    # Three standard errors of a count with this expectation above it: 30 + 3 * 5.4.
    allowed = expected + 3 * math.sqrt(expected * (1 - ALPHA))
    assert regressions(0.05, 0.05, sessions, simulations) <= allowed


def test_unchanged_code_is_called_a_regression_far_less_often_than_alpha() -> None:
    simulations = 1000
    assert regressions(0.0, 0.05, 1, simulations) <= ALPHA * simulations / 2


def test_a_slowdown_of_a_third_is_found_nine_times_in_ten() -> None:
    simulations = 200
    assert regressions(1 / 3, 0.05, 1, simulations) >= 0.9 * simulations
