"""Intervals from few processes: Smyth's formulas, their coverage in simulations, and on recorded sessions."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from pytest_rwkvperf.stats.estimates import CONFIDENCE, estimate_rate, log_times
from pytest_rwkvperf.stats.levels import SessionTimes, drop_slow_handovers
from pytest_rwkvperf.stats.shrinkage import (
    MAX_PRIOR_FREEDOM,
    MIN_GROUPS,
    PROCESS_PRIOR,
    error_of_mean,
    prior_of,
    shrunk,
)
from pytest_rwkvperf.stats.spread import Spread

RECORDINGS = Path(__file__).parents[3] / "benchmarks" / "verdicts"


def drawn(prior: Spread, count: int, random: np.random.Generator) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Variances from the prior."""
    return prior.freedom * prior.variance / random.chisquare(prior.freedom, count)


def test_a_variance_is_weighed_with_the_prior_by_degrees_of_freedom() -> None:
    assert shrunk(Spread(4.0, 2), Spread(1.0, 1)) == Spread(3.0, 3)
    assert error_of_mean(4.0, 3, Spread(1.0, 1)) == Spread(1.0, 3)
    assert error_of_mean(math.inf, 1, Spread(1.0, 1)).freedom == 0


def test_one_restless_process_of_three_no_longer_makes_the_figure_meaningless() -> None:
    # One of three processes is 50 % slower, as on processors that the host moved apart.
    times = [[1_000_000], [1_010_000], [1_500_000]]
    alone = estimate_rate(times, 512, Spread(1.0, 1e-9)).half_width
    known = estimate_rate(times, 512, Spread(0.02**2, 10)).half_width
    unknown = estimate_rate(times, 512).half_width
    assert alone is not None
    assert known is not None
    assert unknown is not None
    assert alone > 0.6
    assert known < 0.15 < unknown < 0.4


@pytest.mark.parametrize(("centre", "freedom"), [(0.01, 3.0), (0.05, 6.0)])
def test_the_prior_is_found_again_in_what_was_drawn_from_it(centre: float, freedom: float) -> None:
    random = np.random.default_rng(1)
    variances = drawn(Spread(centre**2, freedom), 4000, random) * random.chisquare(2, 4000) / 2
    found = prior_of([Spread(float(variance), 2) for variance in variances])
    assert math.sqrt(found.variance) == pytest.approx(centre, rel=0.05)
    assert found.freedom == pytest.approx(freedom, rel=0.15)


def test_few_groups_leave_the_documented_prior_and_equal_ones_count_for_no_more_than_the_limit() -> None:
    group = Spread(0.01**2, 2)
    assert prior_of([group] * (MIN_GROUPS - 1)) == PROCESS_PRIOR
    assert prior_of([group] * MIN_GROUPS).freedom == MAX_PRIOR_FREEDOM
    assert prior_of([Spread(0.0, 2)] * MIN_GROUPS).variance > 0


def coverage(sigmas: np.ndarray[tuple[int], np.dtype[np.float64]], prior: Spread, freedom: float, seed: int) -> float:
    """Share of intervals from three processes that hold the truth; levels have Student's tails of this freedom."""
    random = np.random.default_rng(seed)
    levels = random.standard_t(freedom, (sigmas.size, 3)) * math.sqrt((freedom - 2) / freedom) * sigmas[:, None]
    errors = [error_of_mean(float(np.var(row, ddof=1)), 3, prior) for row in levels]
    reaches = np.array(
        [stats.t.ppf((1 + CONFIDENCE) / 2, error.freedom) * math.sqrt(error.variance) for error in errors]
    )
    return float(np.mean(np.abs(levels.mean(axis=1)) <= reaches))


KNOWN = Spread(0.02**2, 4.0)
"""A machine of which sessions are stored."""


@pytest.mark.parametrize("count", [1500, pytest.param(40_000, marks=pytest.mark.prove)])
@pytest.mark.parametrize(
    ("prior", "freedom"),
    [(KNOWN, 1e6), (PROCESS_PRIOR, 1e6), (KNOWN, 3.0), (PROCESS_PRIOR, 3.0)],
    ids=["known machine", "unknown machine", "known, heavy tails", "unknown, heavy tails"],
)
def test_three_processes_hold_the_truth_95_times_in_100(count: int, prior: Spread, freedom: float) -> None:
    sigmas = np.sqrt(drawn(prior, count, np.random.default_rng(0)))
    error = math.sqrt(CONFIDENCE * (1 - CONFIDENCE) / count)
    # Heavy tails make such intervals too wide rather than too narrow (Benjamini, Psychometrika 48, 1983).
    assert CONFIDENCE - 3 * error <= coverage(sigmas, prior, freedom, seed=2) <= (0.99 if freedom < 10 else 1) * 1.0
    if freedom > 10:
        assert coverage(sigmas, prior, freedom, seed=2) <= CONFIDENCE + 3 * error


@pytest.mark.parametrize(("sigma", "least"), [(0.003, 0.95), (0.01, 0.95), (0.03, 0.94), (0.1, 0.90), (0.3, 0.88)])
def test_on_an_unknown_machine_no_spread_breaks_the_interval(sigma: float, least: float) -> None:
    # The assumption fails: all cases have the same spread, far from the prior's. What is lost is bounded.
    assert coverage(np.full(4000, sigma), PROCESS_PRIOR, 1e6, seed=3) >= least


def recorded(name: str) -> list[list[list[float]]]:
    """Log medians by process, by session and item, of calm sessions."""
    sessions = []
    for line in (RECORDINGS / f"{name}.jsonl").read_text(encoding="utf-8").splitlines():
        items = []
        for case in json.loads(line)["cases"].values():
            if case.get("foreign", 0.0) > 0.1:
                continue
            for workload, rows in case["workloads"].items():
                handovers = case.get("handovers", {}).get(workload, ())
                times = drop_slow_handovers(SessionTimes(rows, handovers=handovers)).times
                if len(times) >= 3:
                    items.append([math.log(float(np.median(row))) for row in times])
        sessions.append(items)
    return sessions


@pytest.mark.parametrize("name", ["one_thread", "before", "sessions"])
def test_recorded_processes_lie_where_the_others_of_their_session_predict_them(name: str) -> None:
    """Each process is predicted from the others of its session, with the prior of all other sessions."""
    sessions, hits, widths, plain = recorded(name), [], [], []
    for index, items in enumerate(sessions):
        others = [item for other, found in enumerate(sessions) if other != index for item in found]
        prior = prior_of([Spread(float(np.var(item, ddof=1)), len(item) - 1) for item in others])
        for item in items:
            for left in range(len(item)):
                rest = np.delete(item, left)
                both = shrunk(Spread(float(np.var(rest, ddof=1)), rest.size - 1), prior)
                scale = math.sqrt(1 + 1 / rest.size)
                reach = float(stats.t.ppf(0.975, both.freedom)) * math.sqrt(both.variance) * scale
                hits.append(abs(item[left] - float(np.mean(rest))) <= reach)
                widths.append(reach)
                plain.append(float(stats.t.ppf(0.975, rest.size - 1)) * float(np.std(rest, ddof=1)) * scale)
    assert len(hits) >= 180
    assert np.mean(hits) >= 0.90
    assert np.median(widths) < np.median(plain)


def test_the_documented_prior_is_that_of_the_recordings() -> None:
    groups = [
        Spread(log_times([[math.exp(value)] for value in item]).variance, len(item) - 1)
        for name in ("one_thread", "before", "sessions")
        for items in recorded(name)
        for item in items
    ]
    found = prior_of(groups)
    assert math.sqrt(found.variance) == pytest.approx(math.sqrt(PROCESS_PRIOR.variance), rel=0.35)
    assert found.freedom == pytest.approx(PROCESS_PRIOR.freedom, rel=0.25)
