"""Paired comparison: by hand, against SciPy's test, and the whole sequential procedure in seeded simulations."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from pytest_rwkvperf.core.errors import MeasurementError
from pytest_rwkvperf.stats.paired import (
    FAST_SHARE,
    LOOKS,
    MIN_PAIRS,
    TRIMMED_FROM,
    TRIMMED_PAIRS,
    Costs,
    PairRatio,
    best_blocks,
    compare_pairs,
    compare_within,
    pair_ratio,
)
from pytest_rwkvperf.stats.verdicts import ALPHA, MEAN_SHARE, WRONG_PASS
from tests.unit.stats.simulations import (
    DRAWS,
    allowed,
    chosen_alarms,
    compared,
    detectable,
    ends,
    even_rates,
    high,
    normal,
)

if TYPE_CHECKING:
    from tests.unit.stats.simulations import Draw

TIMES = st.lists(st.floats(1e-3, 1e12), min_size=1, max_size=12)
RATIOS = st.lists(st.floats(-2, 2), min_size=2, max_size=LOOKS[-1])
EVEN = st.lists(st.floats(-2, 2), min_size=MIN_PAIRS, max_size=TRIMMED_FROM - 1).map(
    lambda ratios: ratios[: len(ratios) // 2 * 2]
)
"""As many of each order, and too few to be trimmed."""
TOLERANCES = st.floats(0.005, 0.5)
MOST = 1 - MEAN_SHARE
"""Of the error rate: what the question about most of each pair may use."""


OPPOSITE = {"REGRESSION": "IMPROVEMENT", "IMPROVEMENT": "REGRESSION"}


# One pair


def test_a_pair_by_hand() -> None:
    # New takes twice and eight times as long as old: logs of -ln 2 and -3 ln 2, mean -2 ln 2, a quarter of the speed.
    assert math.exp(pair_ratio([2.0, 8.0], [1.0, 1.0]).mean) == pytest.approx(0.25)


@given(TIMES, st.data())
def test_swapping_the_sides_inverts_the_ratio(new: list[float], data: st.DataObject) -> None:
    old = data.draw(st.lists(st.floats(1e-3, 1e12), min_size=len(new), max_size=len(new)))
    there, back = pair_ratio(new, old), pair_ratio(old, new)
    assert (there.fast, there.mean) == pytest.approx((-back.fast, -back.mean))


@given(st.integers(1, 6), st.floats(-0.5, 0.5), st.floats(0.2, 5))
def test_linear_drift_over_four_samples_cancels(blocks: int, drift: float, slowdown: float) -> None:
    """In the order in which `measure.pairs` takes them: a b b a, and its mirror in turn."""
    new, old = [], []
    for index in range(4 * blocks):
        level = math.exp(drift * index)
        mirrored = (index // 4) % 2 == 1
        if (index % 4 in (0, 3)) is not mirrored:
            old.append(level)
        else:
            new.append(level * slowdown)
    assert math.exp(pair_ratio(new, old).mean) == pytest.approx(1 / slowdown)


@pytest.mark.parametrize("order", ["oonn", "onon"])
def test_other_orders_do_not_cancel_linear_drift(order: str) -> None:
    times: dict[str, list[float]] = {"o": [], "n": []}
    for index, side in enumerate(order):
        times[side].append(math.exp(0.01 * index))
    assert abs(pair_ratio(times["n"], times["o"]).mean) > 0.009


@pytest.mark.parametrize(
    ("new", "old"),
    [
        ([], []),
        ([1.0], []),
        ([1.0], [1.0, 1.0]),
        *(([1.0, bad], [1.0, 1.0]) for bad in (0.0, -1.0, math.nan, math.inf)),
        *(([1.0, 1.0], [bad, 1.0]) for bad in (0.0, -1.0, math.nan, math.inf)),
    ],
)
def test_unusable_samples_are_refused(new: list[float], old: list[float]) -> None:
    with pytest.raises(MeasurementError, match="measure again"):
        pair_ratio(new, old)


def test_the_fast_ratio_is_of_the_fastest_quarter_of_each_side() -> None:
    # Of eight times two: new e^0.1 and e^0.3, old e^0.2 and e^0.6, whose logarithms have the means 0.2 and 0.4.
    assert FAST_SHARE == 1 / 4
    new = [math.exp(one) for one in (0.9, 0.1, 0.8, 0.3, 9.0, 0.7, 0.7, 0.7)]
    old = [math.exp(one) for one in (0.7, 0.7, 0.7, 0.2, 0.6, 0.9, 9.0, 0.8)]
    assert pair_ratio(new, old).fast == pytest.approx(0.2)


def test_of_few_repetitions_the_fastest_one_is_compared() -> None:
    assert math.exp(pair_ratio([2.0, 9.0], [1.0, 1.5]).fast) == pytest.approx(1 / 2)


@given(st.lists(st.floats(0.9, 1.1), min_size=4, max_size=12), st.integers(0, 3), st.floats(1, 1e6))
def test_one_slow_repetition_moves_the_fast_ratio_little(new: list[float], hit: int, factor: float) -> None:
    disturbed = [time * (factor if index == hit else 1.0) for index, time in enumerate(new)]
    same = [1.0] * len(new)
    assert abs(pair_ratio(disturbed, same).fast - pair_ratio(new, same).fast) <= math.log(1.1 / 0.9)


# The comparison


def test_an_example_by_hand() -> None:
    # Mean -0.1; an effect of the order of 0.03; residuals of 0.01 sqrt(2), whose sum of squares is 8e-4, so that the
    # standard error with 4 - 2 degrees of freedom is sqrt(8e-4 / 2 / 4) = 0.01.
    residual = 0.01 * math.sqrt(2)
    ratios = [-0.1 + 0.03 + residual, -0.1 - 0.03 + residual, -0.1 + 0.03 - residual, -0.1 - 0.03 - residual]
    found = compared(ratios, 0.01, items=2)
    assert found.ratio == pytest.approx(math.exp(-0.1))
    # t of 2 degrees of freedom: a tail of 0.01 / (2 items x 9 looks) above, of 0.05 / 9 looks below.
    above, below = stats.t.isf(0.01 / 18 * MOST, 2) * 0.01, stats.t.isf(0.05 / 9, 2) * 0.01
    assert (found.low, found.high) == pytest.approx((math.exp(-0.1 - below), math.exp(-0.1 + above)))
    assert (found.alpha, found.wrong_pass) == (ALPHA / 2, WRONG_PASS)
    assert found.probability_exceeded == pytest.approx(stats.t.cdf((0.1 - math.log(1.01)) / 0.01, 2))
    assert found.verdict == "INCONCLUSIVE"
    assert compared([*ratios, *ratios], 0.01, items=2).verdict == "REGRESSION"


@given(EVEN, TOLERANCES, st.integers(1, 20))
def test_the_bounds_equal_scipys_regression(ratios: list[float], tolerance: float, items: int) -> None:
    order = [1.0, -1.0] * (len(ratios) // 2)
    fit = stats.linregress(order, ratios)
    assume(fit.intercept_stderr > 1e-6)  # with less, both would compare rounding errors
    found = compared(ratios, tolerance, items)
    reach = stats.t.isf(ALPHA / items / len(LOOKS) * MOST, len(ratios) - 2) * fit.intercept_stderr
    assert math.log(min(high(found), 1e300)) == pytest.approx(min(fit.intercept + reach, math.log(1e300)))


@given(st.lists(st.floats(-2, 2), min_size=TRIMMED_FROM, max_size=LOOKS[-1]), TOLERANCES, st.integers(1, 20))
def test_the_bounds_of_many_pairs_equal_scipys_of_the_trimmed_mean(
    ratios: list[float], tolerance: float, items: int
) -> None:
    even, odd = ratios[::2], ratios[1::2]
    effect = (np.median(even) - np.median(odd)) / 2
    moved = [ratio - effect * (-1) ** index for index, ratio in enumerate(ratios)]
    kept = len(ratios) - 2 * int(TRIMMED_PAIRS * len(ratios))
    limits = (TRIMMED_PAIRS, TRIMMED_PAIRS)
    error = float(stats.mstats.trimmed_stde(np.array(moved), limits, (True, True)))
    assume(error > 1e-6)
    found = compared(ratios, tolerance, items)
    assert math.log(found.ratio) == pytest.approx(stats.trim_mean(moved, TRIMMED_PAIRS), abs=1e-9)
    # SciPy divides the standard deviation by the share that is kept and the root of all pairs, Yuen by the kept ones.
    count = len(ratios)
    wider = (1 - 2 * TRIMMED_PAIRS) * math.sqrt(count) * math.sqrt((count - 1) / (kept * (kept - 1)))
    reach = stats.t.isf(ALPHA / items / len(LOOKS) * MOST, kept - 2) * error * wider
    expected = stats.trim_mean(moved, TRIMMED_PAIRS) + reach
    assert math.log(min(high(found), 1e300)) == pytest.approx(min(expected, math.log(1e300)), rel=1e-6, abs=1e-9)


def test_an_outlying_pair_in_twelve_does_not_hide_a_slowdown() -> None:
    ratios = [-0.1 + 0.005 * (-1) ** (index // 2) for index in range(TRIMMED_FROM)]
    ratios[3] = 1.0
    assert compared(ratios, 0.05, 2).verdict == "REGRESSION"
    assert compared(ratios[: TRIMMED_FROM - 2], 0.05, 2).verdict == "INCONCLUSIVE"


@given(RATIOS, TOLERANCES, st.floats(-0.5, 0.5))
def test_which_side_is_opened_first_does_not_matter(ratios: list[float], tolerance: float, effect: float) -> None:
    assume(len(ratios) >= MIN_PAIRS and len(ratios) % 2 == 0)
    shifted = [ratio + effect * (-1) ** index for index, ratio in enumerate(ratios)]
    plain, moved = compared(ratios, tolerance, 1), compared(shifted, tolerance, 1)
    assert (moved.ratio, moved.low) == pytest.approx((plain.ratio, plain.low))


@given(RATIOS, TOLERANCES)
def test_swapping_the_environments_inverts_the_verdict(ratios: list[float], tolerance: float) -> None:
    even = even_rates(3)
    there, back = compared(ratios, tolerance, 3, even), compared([-ratio for ratio in ratios], tolerance, 3, even)
    assert back.ratio == pytest.approx(1 / there.ratio)
    # Two pairs that contradict each other bound nothing: 0 and infinity are each other's inverse.
    inverse = (1 / high(there), 1 / there.low if there.low else math.inf)
    assert (back.low, high(back)) == pytest.approx(inverse)
    assert detectable(back) == pytest.approx(detectable(there))
    if there.verdict in OPPOSITE:
        assert back.verdict == OPPOSITE[there.verdict]


@given(RATIOS, TOLERANCES)
def test_more_items_or_a_wider_tolerance_never_make_a_regression(ratios: list[float], tolerance: float) -> None:
    if compared(ratios, tolerance, 1).verdict != "REGRESSION":
        assert compared(ratios, tolerance, 9).verdict != "REGRESSION"
        assert compared(ratios, tolerance * 1.5, 1).verdict != "REGRESSION"


def test_a_slowdown_of_some_repetitions_is_one_of_the_mean() -> None:
    pairs = [PairRatio(0.001 * sign, -0.2 + 0.001 * sign) for sign in (1, -1) * 4]
    found = compare_pairs(pairs, 0.05, 1)
    assert (found.verdict, found.only_mean_regressed) == ("REGRESSION", True)
    assert found.mean is not None
    assert found.mean.regression
    assert found.mean.ratio == pytest.approx(math.exp(-0.2))
    # The other way round it is no improvement: most of it is as it was.
    assert compare_pairs([PairRatio(0.001 * sign, 0.2) for sign in (1, -1) * 4], 0.05, 1).verdict == "PASS"


def test_both_questions_share_the_error_rate() -> None:
    found = compared([0.01, 0.01, -0.01, -0.01], 0.05, 3)
    assert found.mean is not None
    errors = [math.log(high(one) / one.ratio) / math.sqrt(4e-4 / 2 / 4) for one in (found, found.mean)]
    assert sum(float(stats.t.sf(one, 2)) for one in errors) == pytest.approx(ALPHA / 3 / len(LOOKS))


def test_one_pair_has_no_bounds() -> None:
    found = compared([-3.0], 0.05, 1)
    assert (found.verdict, found.low, found.high, found.detectable) == ("INCONCLUSIVE", 0.0, None, None)


def test_no_pairs_are_refused() -> None:
    with pytest.raises(MeasurementError, match="no pairs; measure again"):
        compare_pairs([], 0.05, 1)


def test_each_side_is_first_equally_often_at_every_look() -> None:
    assert all(look % 2 == 0 for look in LOOKS)
    assert [*LOOKS] == sorted(set(LOOKS))
    assert LOOKS[0] == MIN_PAIRS


# The whole procedure: the proof, with thousands of runs, is benchmarks/verdicts/simulated.py

RUNS = 400


@pytest.mark.parametrize("draw", DRAWS)
def test_false_alarms_of_the_whole_procedure_stay_under_alpha(draw: Draw) -> None:
    # The worst that is no regression: slower by exactly the tolerance.
    assert ends(1 / 1.05, draw, 0.05, RUNS)["REGRESSION"] <= allowed(ALPHA, RUNS)


def test_false_alarms_stay_under_alpha_for_any_stopping_rule() -> None:
    """The budget does, and the other items of a case: here an opponent who stops as soon as it looks bad."""
    assert chosen_alarms(1 / 1.05, 0.05, RUNS) <= allowed(ALPHA, RUNS)


@pytest.mark.parametrize("draw", DRAWS)
def test_a_large_slowdown_passes_no_more_often_than_stated(draw: Draw) -> None:
    assert ends(1 / 1.05, draw, 0.05, RUNS)["PASS"] <= allowed(WRONG_PASS, RUNS)


def test_looks_without_their_share_exceed_alpha() -> None:
    """The simulation would notice: the same looks at the full ALPHA each."""
    random = np.random.default_rng(5)
    ratios = random.normal(0, 0.03, (RUNS, LOOKS[-1]))
    alarmed = np.zeros(RUNS, bool)
    for look in LOOKS:
        part = ratios[:, :look]
        error = part.std(axis=1, ddof=1) / math.sqrt(look)
        alarmed |= part.mean(axis=1) + stats.t.isf(ALPHA, look - 1) * error < 0
    assert alarmed.sum() > allowed(ALPHA, RUNS)


def test_power_grows_with_the_slowdown() -> None:
    found = [ends(1 / (1 + slowdown), normal, 0.05, 150)["REGRESSION"] / 150 for slowdown in (0.06, 0.08, 0.1, 0.15)]
    assert found == sorted(found)
    assert found[0] < 0.2
    assert found[-1] > 0.99


def test_identical_code_passes_where_the_noise_allows_it() -> None:
    assert ends(1.0, normal, 0.05, 150)["PASS"] > 0.9 * 150


def test_the_smallest_detectable_slowdown_is_found_19_times_in_20() -> None:
    """What is printed at the last look, from a spread that is known exactly there."""
    random, count, runs = np.random.default_rng(7), 0, 1000
    quantiles = 0.03 * stats.norm.ppf((np.arange(LOOKS[-1]) + 0.5) / LOOKS[-1])
    pattern = np.concatenate([quantiles[[at, at + 1, at + 3, at + 2]] for at in range(0, LOOKS[-1], 4)])
    slowdown = detectable(compared(pattern.tolist(), 0.05, 1))
    for _ in range(runs):
        ratios = -math.log1p(slowdown) + normal(random, LOOKS[-1])
        count += compared(ratios.tolist(), 0.05, 1).verdict == "REGRESSION"
    assert count / runs == pytest.approx(0.95, abs=0.025)


# How many samples


def pairs_of(between: float, within: float, blocks: int, seed: int = 1) -> list[list[float]]:
    """Blocks' differences of 400 pairs that lie so far apart, with these standard deviations."""
    random = np.random.default_rng(seed)
    return [list(random.normal(0, between) + random.normal(0, within, blocks)) for _ in range(400)]


@pytest.mark.parametrize(("between", "pair", "expected"), [(0.01, 4.0, 4), (0.01, 1.0, 2), (0.005, 4.0, 8)])
def test_the_number_of_blocks_follows_from_costs_and_variances(between: float, pair: float, expected: int) -> None:
    """The square root of costs' ratio times variances' ratio: of 4 and 4, 1 and 4, 4 and 16."""
    chosen = best_blocks(pairs_of(between, 0.02, 4), Costs(pair=pair, block=1.0))
    assert chosen == pytest.approx(expected, rel=0.25)


def test_pairs_that_differ_by_no_more_than_their_blocks_want_as_many_blocks_as_can_be_had() -> None:
    differences = pairs_of(0.0, 0.02, 4, seed=3)
    assert best_blocks([sorted(row)[1:3] for row in differences], Costs(1.0, 1.0)) >= 1
    assert best_blocks([[row[0] - row[1], row[1] - row[0]] for row in differences], Costs(1.0, 1.0)) == 1000


def test_with_one_block_a_pair_a_second_one_shows_the_variances() -> None:
    assert best_blocks([[0.01], [0.02], [0.0], [0.01]], Costs(1.0, 1.0)) == 2


def test_two_workloads_of_the_same_processes_are_compared_by_the_process() -> None:
    ratios = [PairRatio(value, value) for value in (-0.10, -0.11, -0.09, -0.10, -0.10, -0.10)]
    found = compare_within(ratios, 0.05, 1, at_look=False)
    assert found.verdict == "REGRESSION"
    assert found.ratio == pytest.approx(math.exp(-0.1))
    # Student's interval of six processes: one-sided at 5 % times what the looks leave.
    error = float(np.std([each.fast for each in ratios], ddof=1)) / math.sqrt(6)
    assert math.log(found.low) == pytest.approx(-0.1 + float(stats.t.ppf(0.05 * 5 / 8, 5)) * error)


def test_a_look_has_a_smaller_part_of_the_error_rates_than_the_end() -> None:
    ratios = [PairRatio(value, value) for value in (0.01, -0.02, 0.0)]
    look, end = (compare_within(ratios, 0.05, 1, at_look=at_look) for at_look in (True, False))
    assert look.low < end.low
    assert (look.high or 0) > (end.high or 0)


def test_one_process_bounds_nothing_and_none_is_an_error() -> None:
    found = compare_within([PairRatio(-1.0, -1.0)], 0.05, 1, at_look=False)
    assert (found.verdict, found.high) == ("INCONCLUSIVE", None)
    with pytest.raises(MeasurementError, match="measure again"):
        compare_within([], 0.05, 1, at_look=False)
