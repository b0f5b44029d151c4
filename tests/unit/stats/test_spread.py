"""The belief about the spread between sessions: the prior, and how sessions, probes and A/A runs change it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from pytest_rwkvperf.stats.levels import Level
from pytest_rwkvperf.stats.spread import (
    COEFFICIENT_DEVIATION,
    COEFFICIENT_MEAN,
    PRIOR,
    SPREADS,
    Belief,
    Spread,
    process_spread,
)


def at(value: float, *processes: float, probe: float | None = None) -> Level:
    return Level(value, 0.0, processes or (value, value), (), probe)


def most_likely(belief: Belief) -> float:
    return SPREADS[max(range(len(SPREADS)), key=belief.probabilities.__getitem__)]


def normal_sessions(spread: float, count: int, seed: int = 1) -> list[Level]:
    return [at(value) for value in np.random.default_rng(seed).normal(0, spread, count)]


# The prior and sessions


def test_probabilities_sum_to_one() -> None:
    assert sum(PRIOR.probabilities) == pytest.approx(1)
    assert len(PRIOR.probabilities) == len(SPREADS)


def test_single_sessions_and_version_differences_are_no_spread() -> None:
    assert PRIOR.after_sessions([[at(1.0)], [at(5.0)], []]) == PRIOR
    assert PRIOR.after(Spread(0.0, 0)) == pytest.approx(PRIOR)


@pytest.mark.parametrize("spread", SPREADS)
def test_many_sessions_outweigh_the_prior(spread: float) -> None:
    belief = PRIOR.after_sessions([normal_sessions(spread, 200)])
    assert most_likely(belief) == spread
    assert math.sqrt(belief.variance) == pytest.approx(spread, rel=0.05)


def test_two_sessions_by_hand() -> None:
    """The difference of two levels of a version is normal with twice the spread's variance."""
    belief = PRIOR.after_sessions([[at(3.0), at(3.05)], [at(9.0)]])
    weights = [
        chance * stats.norm(0, math.sqrt(2) * spread).pdf(0.05)
        for chance, spread in zip(PRIOR.probabilities, SPREADS, strict=True)
    ]
    assert belief.probabilities == pytest.approx([one / sum(weights) for one in weights])


def test_versions_are_added_up() -> None:
    groups = [[at(1.0), at(1.1), at(1.2)], [at(3.0), at(3.1)]]
    # Squares of 0.02 with two degrees of freedom, and of 0.005 with one.
    assert PRIOR.after_sessions(groups).probabilities == pytest.approx(PRIOR.after(Spread(0.025 / 3, 3)).probabilities)


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=10))
def test_every_spread_keeps_a_positive_probability(values: list[float]) -> None:
    belief = PRIOR.after_sessions([[at(value) for value in values]])
    assert all(chance > 0 for chance in belief.probabilities)
    assert sum(belief.probabilities) == pytest.approx(1)


# Probes


@pytest.mark.parametrize("follows", [0.0, 0.4, 1.0])
def test_what_probes_explain_is_not_spread(follows: float) -> None:
    random = np.random.default_rng(2)
    moved, own = random.normal(0, 0.1, 40), random.normal(0, 0.01, 40)
    levels = [at(follows * probe + value, probe=probe) for probe, value in zip(moved, own, strict=True)]
    assert most_likely(PRIOR.after_sessions([levels])) == 0.01
    unexplained = [at(one.value) for one in levels]
    if follows:
        assert most_likely(PRIOR.after_sessions([unexplained])) > 0.01


def test_the_likelihood_with_probes_equals_scipys() -> None:
    probes, values = np.array([0.0, 0.1, -0.05]), np.array([1.0, 1.06, 0.99])
    belief = PRIOR.after_sessions([[at(value, probe=one) for value, one in zip(values, probes, strict=True)]])
    # Differences from the first level have no mean of their own left.
    basis = np.array([[-1, 1, 0], [-1, 0, 1]])
    moved = basis @ probes
    weights = [
        chance
        * stats.multivariate_normal(
            COEFFICIENT_MEAN * moved, spread**2 * basis @ basis.T + COEFFICIENT_DEVIATION**2 * np.outer(moved, moved)
        ).pdf(basis @ values)
        for chance, spread in zip(PRIOR.probabilities, SPREADS, strict=True)
    ]
    assert belief.probabilities == pytest.approx([one / sum(weights) for one in weights])


def test_one_session_without_a_probe_drops_all_probes() -> None:
    levels = [at(1.0, probe=0.0), at(1.1), at(1.2, probe=0.2)]
    assert PRIOR.after_sessions([levels]) == PRIOR.after_sessions([[at(one.value) for one in levels]])


# A/A


def test_an_a_a_runs_items_count_as_one() -> None:
    quiet, restless = at(0.0, -0.01, 0.0, 0.01), at(0.0, -0.03, 0.0, 0.03)
    found = process_spread([[quiet, quiet], [restless, restless]])
    assert found.variance == pytest.approx((0.01**2 + 0.03**2) / 2)
    assert found.freedom == 2


def test_equal_processes_do_not_give_a_spread_of_zero() -> None:
    assert process_spread([[at(1.0, 1.0, 1.0)]]).variance == 1e-6


def test_the_spread_of_an_a_a_run_is_used() -> None:
    assert most_likely(PRIOR.after(Spread(0.041**2, 15))) == 0.04
