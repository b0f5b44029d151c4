"""Verdicts: the margins, what makes bounds wider, and how often unchanged code is called slower."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from scipy import stats

from pytest_rwkvperf.core.errors import MeasurementError
from pytest_rwkvperf.stats.levels import SessionTimes, level
from pytest_rwkvperf.stats.spread import PRIOR, SPREADS, Belief, Spread
from pytest_rwkvperf.stats.verdicts import (
    ALPHA,
    DEFAULT_RATES,
    LOOK_SHARE,
    LOOKS,
    MAX_SESSIONS,
    MEAN_SHARE,
    MIN_CONTENTION,
    WRONG_PASS,
    Comparison,
    ErrorRates,
    MeanRatio,
    StoredSessions,
    classify,
    compare,
    machine_slowdown,
)
from tests.unit.stats.simulations import allowed, detectable, even_rates, high, regressions

if TYPE_CHECKING:
    from collections.abc import Callable

Times = list[list[float]]

NANOSECONDS = st.integers(1, 10**15)
PROCESSES = st.lists(st.lists(NANOSECONDS, min_size=1, max_size=3), min_size=2, max_size=6)
TOLERANCES = st.floats(1e-4, 0.9)

STEADY: Times = [[1_000_000.0, 1_001_000.0], [1_002_000.0], [1_003_000.0], [1_004_000.0], [1_005_000.0]]


def slowed(times: Times, factor: float) -> Times:
    return [[factor * time for time in row] for row in times]


END = (1 - LOOK_SHARE * len(LOOKS)) * (1 - MEAN_SHARE)
"""What the fast level may use of an item's error rate at the end of a run."""

KNOWN = Belief(tuple(float(spread == 0.02) for spread in SPREADS))
"""A machine whose sessions are known to spread by 2 %."""


def mixture(belief: Belief, times: float, chance: float, doubt: float) -> Callable[[float], float]:
    """The probability beyond a reach, with SciPy's distributions: a mixture over the spreads.

    `chance` is the variance of chance within sessions, `doubt` the sum of its parts' squares over their freedoms.
    """
    totals = [times * spread**2 + chance for spread in SPREADS]
    tails = [stats.t(total**2 / doubt if doubt else 1e9, scale=math.sqrt(total)) for total in totals]
    return lambda reach: sum(share * one.sf(reach) for share, one in zip(belief.probabilities, tails, strict=True))


def judged(
    new: Times,
    old: list[Times],
    tolerance: float,
    items: int,
    *,
    at_look: bool = False,
    belief: Belief = PRIOR,
    rates: ErrorRates = DEFAULT_RATES,
) -> Comparison:
    return compare(
        SessionTimes(new),
        StoredSessions([SessionTimes(one) for one in old], belief=belief),
        tolerance,
        items,
        rates=rates,
        at_look=at_look,
    )


# Margins


@given(TOLERANCES)
def test_a_bound_at_the_margin_is_inside(tolerance: float) -> None:
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
def test_every_pair_of_bounds_has_one_verdict(one: float, other: float, tolerance: float) -> None:
    low, upper = sorted((one, other))
    floor, ceiling = 1 / (1 + tolerance), 1 + tolerance
    verdict = classify(low, upper, tolerance)
    assert (verdict == "REGRESSION") == (upper < floor)
    assert (verdict == "IMPROVEMENT") == (low > ceiling)
    assert (verdict == "PASS") == (floor < low <= ceiling)
    assert (verdict == "INCONCLUSIVE") == (low <= floor <= upper)


# Comparing


@pytest.mark.parametrize(
    ("factor", "verdict"), [(2.0, "REGRESSION"), (1.5, "REGRESSION"), (1.0, "PASS"), (0.5, "IMPROVEMENT")]
)
def test_clear_differences_get_clear_verdicts(factor: float, verdict: str) -> None:
    comparison = judged(slowed(STEADY, factor), [STEADY], 0.25, items=12, belief=KNOWN)
    assert comparison.verdict == verdict
    assert comparison.ratio == pytest.approx(1 / factor)
    assert comparison.low < comparison.ratio < high(comparison)
    assert comparison.tolerance == 0.25


def test_a_doubled_time_is_a_regression_despite_noise() -> None:
    noisy = [[1e6, 1.1e6], [1.05e6], [0.95e6], [1.02e6], [1.08e6]]
    assert judged(slowed(noisy, 2), [noisy], 0.05, items=12).verdict == "REGRESSION"


def test_an_example_by_hand() -> None:
    new = [[1e6], [1e6 * math.exp(0.01)]]
    old = [[1e6 * math.exp(value)] for value in (0.1, 0.11, 0.12)]
    found = judged(new, [old], 0.05, items=2)
    levels = [level(SessionTimes(times), "fast") for times in (new, old)]
    chance = levels[0].error ** 2 + levels[1].error ** 2
    # Satterthwaite's: the new session's error has one degree of freedom, the old one's two.
    beyond = mixture(PRIOR, 2, chance, levels[0].error ** 4 / 1 + levels[1].error ** 4 / 2)
    centre = levels[1].value - levels[0].value
    reach = math.log(high(found)) - centre
    assert found.ratio == pytest.approx(math.exp(centre))
    assert beyond(centre - math.log(found.low)) == pytest.approx(WRONG_PASS * (1 - LOOK_SHARE * len(LOOKS)))
    assert found.probability_exceeded == pytest.approx(beyond(centre + math.log(1.05)))
    assert beyond(reach) == pytest.approx(ALPHA / 2 * END)
    assert found.alpha == ALPHA / 2
    assert beyond(math.log((1 + detectable(found)) / 1.05) - reach) == pytest.approx(0.05)


def test_the_spread_between_sessions_remains_without_any_within() -> None:
    found = judged([[1000]] * 3, [[[1000]] * 3], 0.05, items=1, rates=even_rates(1))
    assert found.low * high(found) == pytest.approx(1)
    assert mixture(PRIOR, 2, 0, 0)(math.log(high(found))) == pytest.approx(ALPHA * END, rel=1e-4)


def test_unchanged_code_passes_on_a_known_quiet_machine() -> None:
    quiet = PRIOR.after(Spread(0.001**2, 40))
    found = judged([[1000]] * 3, [[[1000]] * 3], 0.05, items=1, belief=quiet)
    assert high(found) == pytest.approx(math.exp(stats.norm.isf(ALPHA * END) * math.sqrt(2) * SPREADS[0]), abs=1e-4)
    assert found.verdict == "PASS"


def near(random: np.random.Generator, spread: float) -> SessionTimes:
    level_of_session = math.exp(random.normal(0, spread))
    return SessionTimes([[1e6 * level_of_session * (1 + 1e-4 * row)] * 3 for row in range(5)])


@pytest.mark.parametrize(("sessions", "least", "most"), [(1, 0, 24), (7, 32, 40), (10, 38, 40)])
def test_unchanged_code_passes_after_enough_quiet_sessions(sessions: int, least: int, most: int) -> None:
    """At the default tolerance; one session alone cannot tell, and should not."""
    random = np.random.default_rng(11)
    found = [
        compare(
            near(random, 0.006), StoredSessions([near(random, 0.006) for _ in range(sessions)]), 0.05, items=4
        ).verdict
        for _ in range(40)
    ]
    assert least <= found.count("PASS") <= most
    assert "REGRESSION" not in found


def test_a_look_has_a_smaller_error_rate_and_wider_bounds() -> None:
    look, end = judged(STEADY, [STEADY], 0.05, 3, at_look=True), judged(STEADY, [STEADY], 0.05, 3)
    assert look.low < end.low < high(end) < high(look)
    assert look.alpha == end.alpha
    assert LOOK_SHARE * len(LOOKS) < 1


def test_looks_and_both_questions_share_the_error_rate() -> None:
    """Bonferroni: the tails that are used add up to the item's."""
    found = judged(STEADY, [STEADY], 0.05, 1)
    assert found.mean is not None
    share = 1 - LOOK_SHARE * len(LOOKS)
    tail = mixture(PRIOR, 2, 0, 0)  # chance within these sessions is a hundredth of the spread between them
    of_mean = math.log(high(found.mean) / found.mean.ratio)
    assert tail(of_mean) == pytest.approx(ALPHA * share * MEAN_SHARE, rel=0.1)
    assert tail(math.log(high(found) / found.ratio)) == pytest.approx(ALPHA * END, rel=0.1)
    assert share * (1 - MEAN_SHARE) + share * MEAN_SHARE + LOOK_SHARE * len(LOOKS) == pytest.approx(1)


# A slowdown of the tail


def with_tail(times: Times, factor: float, every: int = 3) -> Times:
    return [[time * (factor if index % every == 0 else 1.0) for index, time in enumerate(row)] for row in times]


MANY: Times = [[1e6 + 1e3 * (7 * row + index) for index in range(9)] for row in range(5)]


def test_a_slowdown_of_a_third_of_the_repetitions_is_a_regression() -> None:
    found = judged(with_tail(MANY, 5), [MANY], 0.05, items=1)
    assert found.verdict == "REGRESSION"
    assert high(found) > 1 / 1.05
    assert found.mean is not None
    assert found.mean.regression
    assert found.mean.ratio == pytest.approx(1 / (1 + 4 / 3), rel=0.01)


def test_a_faster_tail_alone_is_no_improvement() -> None:
    assert judged(MANY, [with_tail(MANY, 5)], 0.05, items=1).verdict != "IMPROVEMENT"


# A busy machine


@pytest.mark.parametrize("which", ["new", "old"])
def test_contention_widens_both_bounds(which: str) -> None:
    shares = {"new": 0.0, "old": 0.0, which: 0.1}
    plain = judged(STEADY, [STEADY], 0.05, items=1)
    busy = compare(
        SessionTimes(STEADY, (), shares["new"]), StoredSessions([SessionTimes(STEADY, (), shares["old"])]), 0.05, 1
    )
    assert (high(busy) / high(plain), plain.low / busy.low) == pytest.approx((1 / 0.9**2, 1 / 0.9**2))
    assert busy.ratio == plain.ratio
    one_busy = [SessionTimes(STEADY, (), share) for share in (0.0, shares["old"])]
    both_busy = [SessionTimes(STEADY, (), shares["old"])] * 2
    new = SessionTimes(STEADY, (), shares["new"])
    assert compare(new, StoredSessions(one_busy), 0.05, 1) == compare(new, StoredSessions(both_busy), 0.05, 1)
    assert detectable(busy) > detectable(plain)


def test_contention_of_system_services_is_ignored() -> None:
    quiet = compare(SessionTimes(STEADY, (), MIN_CONTENTION), StoredSessions([SessionTimes(STEADY)]), 0.05, 1)
    assert quiet == judged(STEADY, [STEADY], 0.05, 1)


def test_crowded_stored_sessions_count_only_without_others() -> None:
    crowded, calm = SessionTimes(slowed(STEADY, 3), (), 0.5), SessionTimes(STEADY)
    assert compare(calm, StoredSessions([crowded, calm]), 0.05, 1) == compare(calm, StoredSessions([calm]), 0.05, 1)
    assert compare(calm, StoredSessions([crowded]), 0.05, 1).verdict == "INCONCLUSIVE"


def test_crowded_sessions_of_other_software_say_nothing_of_the_spread() -> None:
    calm, crowded = SessionTimes(STEADY), [SessionTimes(slowed(STEADY, factor), (), 0.5) for factor in (1, 3, 9)]
    assert compare(calm, StoredSessions([calm], [crowded]), 0.05, 1) == compare(calm, StoredSessions([calm]), 0.05, 1)


def test_a_crowded_machine_is_inconclusive() -> None:
    found = compare(SessionTimes(slowed(STEADY, 50), (), 0.11), StoredSessions([SessionTimes(STEADY)]), 0.05, 1)
    assert found.verdict == "INCONCLUSIVE"


# A machine that is slower or faster by its probes


def test_a_slower_or_faster_machine_widens_one_bound() -> None:
    old = StoredSessions([SessionTimes(STEADY, [1.0] * len(STEADY))])
    sessions = [SessionTimes(STEADY, [probe] * len(STEADY)) for probe in (1.0, 1.2, 1 / 1.2)]
    plain, slower, faster = (compare(session, old, 0.05, 1) for session in sessions)
    assert (high(slower) / high(plain), slower.low) == pytest.approx((1.2, plain.low))
    assert (plain.low / faster.low, faster.high) == pytest.approx((1.2, high(plain)))
    assert slower.ratio == faster.ratio == plain.ratio
    assert detectable(slower) > detectable(plain) == detectable(faster)
    slowdowns = [machine_slowdown(session, old) for session in sessions]
    assert slowdowns == pytest.approx([0, math.log(1.2), -math.log(1.2)])


# Slow handovers between processors

NEAR, APART = ([[one] * len(row) for row in STEADY] for one in (70.0, 105.0))


def test_no_verdict_without_a_stored_session_of_similar_handovers() -> None:
    old = SessionTimes(STEADY, handovers=NEAR)
    found = compare(SessionTimes(slowed(STEADY, 50), handovers=APART), StoredSessions([old]), 0.05, 1)
    assert (found.verdict, found.low, found.high) == ("INCONCLUSIVE", 0, None)
    assert (
        compare(SessionTimes(slowed(STEADY, 50), handovers=NEAR), StoredSessions([old]), 0.05, 1).verdict
        == "REGRESSION"
    )


def test_only_stored_sessions_with_similar_handovers_count() -> None:
    near, apart = SessionTimes(STEADY, handovers=NEAR), SessionTimes(slowed(STEADY, 1.6), handovers=APART)
    assert compare(near, StoredSessions([near, apart], [[apart]]), 0.05, 1) == compare(
        near, StoredSessions([near]), 0.05, 1
    )
    assert compare(apart, StoredSessions([near, apart]), 0.05, 1) == compare(apart, StoredSessions([apart]), 0.05, 1)


def test_a_process_with_slow_handovers_changes_nothing() -> None:
    mixed = SessionTimes([*STEADY, *slowed(STEADY, 1.6)], handovers=NEAR + APART)
    near = SessionTimes(STEADY, handovers=NEAR)
    assert compare(mixed, StoredSessions([near]), 0.05, 1) == compare(near, StoredSessions([near]), 0.05, 1)


# How many sessions would be enough


def test_the_advised_number_of_sessions_is_enough() -> None:
    slow = slowed(STEADY, 1.125)
    found = judged(slow, [STEADY], 0.05, items=1, belief=KNOWN)
    assert (found.verdict, found.settled_by) == ("INCONCLUSIVE", 2)
    assert judged(slow, [STEADY] * 2, 0.05, items=1, belief=KNOWN).verdict == "REGRESSION"
    few: Times = [[1e6], [1.05e6]]  # further sessions add degrees of freedom
    assert judged(slow, [few], 0.05, items=1, belief=KNOWN).settled_by == 5
    verdicts = [judged(slow, [few] * count, 0.05, items=1, belief=KNOWN).verdict for count in (4, 5)]
    assert verdicts == ["INCONCLUSIVE", "REGRESSION"]


def test_no_number_of_sessions_is_enough_at_the_margin() -> None:
    found = judged(slowed(STEADY, 1.05), [STEADY], 0.05, items=1)
    assert (found.verdict, found.settled_by) == ("INCONCLUSIVE", None)
    assert judged(slowed(STEADY, 1.05), [STEADY] * MAX_SESSIONS, 0.05, items=1).verdict == "INCONCLUSIVE"


@settings(max_examples=40)
@example([[1], [1]], [[1], [719_944_118]], 0.5, 1)  # a bound at the end of the floats
@given(PROCESSES, PROCESSES, TOLERANCES, st.integers(1, 100))
def test_swapping_new_and_old_inverts_the_bounds(one: Times, other: Times, tolerance: float, items: int) -> None:
    even = even_rates(items)
    forth, back = (judged(new, [old], tolerance, items, rates=even) for new, old in ((one, other), (other, one)))
    assert back.ratio == pytest.approx(1 / forth.ratio)
    assert back.low * high(forth) == pytest.approx(1) or (back.low, forth.high) == (0, None)
    assert high(back) * forth.low == pytest.approx(1) or (back.high, forth.low) == (None, 0)
    # A margin within a rounding error of a bound may fall on either side.
    assume(all(abs(math.log(bound * (1 + tolerance))) > 1e-9 for bound in (forth.low, high(forth)) if 0 < bound < 1e9))
    assume(all(abs(math.log(bound / (1 + tolerance))) > 1e-9 for bound in (forth.low, high(forth)) if 0 < bound < 1e9))
    if forth.verdict == "IMPROVEMENT":
        assert back.verdict == "REGRESSION"
    if forth.verdict == "REGRESSION" and high(forth) < 1 / (1 + tolerance):  # of the fast level, not of the tail alone
        assert back.verdict in {"IMPROVEMENT", "REGRESSION"}


@settings(max_examples=40)
@given(PROCESSES, PROCESSES, st.integers(1, 50), st.integers(1, 50))
def test_more_items_share_the_error_and_widen_the_bounds(new: Times, old: Times, items: int, more: int) -> None:
    few, many = judged(new, [old], 0.05, items), judged(new, [old], 0.05, items + more)
    assert few.alpha == pytest.approx(ALPHA / items)
    assert many.alpha == pytest.approx(ALPHA / (items + more))
    assert many.alpha < few.alpha
    assert many.low == few.low <= few.ratio == many.ratio <= high(few) <= high(many)
    if high(few) < math.inf:
        assert high(few) < high(many)


@settings(max_examples=40)
@given(PROCESSES, PROCESSES, st.floats(0.01, 100))
def test_the_unit_of_time_does_not_matter(new: Times, old: Times, factor: float) -> None:
    plain = judged(new, [old], 0.05, 1)
    scaled = judged(slowed(new, factor), [slowed(old, factor)], 0.05, 1)
    assert scaled.ratio == pytest.approx(plain.ratio)
    assert scaled.low == pytest.approx(plain.low)


def test_more_sessions_narrow_the_bounds() -> None:
    def width(sessions: int) -> float:
        comparison = judged(STEADY, [STEADY] * sessions, 0.05, 1)
        return high(comparison) / comparison.low

    assert width(1) > width(2) > width(5) > 1


# Too few times, and unusable ones


@pytest.mark.parametrize("factor", [0.1, 1, 10])
@pytest.mark.parametrize(
    ("new", "old"), [(STEADY[:1], STEADY), (STEADY, STEADY[:1]), (STEADY[:1], STEADY[:1])], ids=["new", "old", "both"]
)
def test_one_process_is_never_enough(new: Times, old: Times, factor: float) -> None:
    comparison = judged(slowed(new, factor), [old], 0.05, items=1)
    mean = MeanRatio(comparison.mean.ratio, 0, None, regression=False) if comparison.mean else None
    assert comparison == Comparison(comparison.ratio, 0, None, 0.05, ALPHA, None, mean=mean, wrong_pass=WRONG_PASS)
    assert comparison.verdict == "INCONCLUSIVE"


UNUSABLE = [math.nan, math.inf, -math.inf, 0.0, -1.0, 10**400]


@pytest.mark.parametrize("value", UNUSABLE, ids=repr)
def test_unusable_times_are_refused(value: float) -> None:
    broken = [[1.0, value], [2.0]]
    with pytest.raises(MeasurementError):
        judged(broken, [STEADY], 0.05, 1)
    with pytest.raises(MeasurementError):
        judged(STEADY, [STEADY, broken], 0.05, 1)


@pytest.mark.parametrize("nothing", [[], [[]], [[1.0], []]])
def test_no_times_are_refused(nothing: Times) -> None:
    with pytest.raises(MeasurementError):
        judged(nothing, [STEADY], 0.05, 1)
    with pytest.raises(MeasurementError):
        judged(STEADY, [nothing], 0.05, 1)
    with pytest.raises(MeasurementError):
        judged(STEADY, [], 0.05, 1)


# How often it is wrong: the proof, with thousands of runs, is benchmarks/verdicts/simulated.py

RUNS = 300


@pytest.mark.parametrize("sessions", [1, 3])
def test_a_slowdown_at_the_tolerance_is_a_regression_at_most_alpha_often(sessions: int) -> None:
    """The worst case of unchanged enough code: the truth lies on the margin itself."""
    assert regressions(0.05, 0.05, sessions, RUNS) <= allowed(ALPHA, RUNS)


def test_unchanged_code_is_a_regression_far_less_often_than_alpha() -> None:
    assert regressions(0.0, 0.05, 1, RUNS) <= ALPHA * RUNS / 2


def test_a_slowdown_by_half_is_found_nine_times_in_ten() -> None:
    simulations = 100
    assert regressions(0.5, 0.05, 1, simulations) >= 0.9 * simulations
