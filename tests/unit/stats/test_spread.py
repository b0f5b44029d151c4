"""The session-to-session spread: prior and sessions pooled, and what a restless machine does to the prior."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_rwkvperf.stats.levels import Level
from pytest_rwkvperf.stats.spread import PRIOR, Spread, process_spread, session_spread


def at(value: float, *processes: float) -> Level:
    return Level(value, 0.0, processes or (value, value), ())


def test_one_session_leaves_the_prior() -> None:
    assert session_spread([[at(1.0)], [at(5.0)]]) == PRIOR


def test_prior_and_sessions_are_pooled_by_their_freedom() -> None:
    # Three sessions of one version: squares of 0.02 with two degrees of freedom; two of another: 0.005 with one.
    groups = [[at(1.0), at(1.1), at(1.2)], [at(3.0), at(3.1)], [at(9.0)]]
    found = session_spread(groups, Spread(0.04, 4))
    assert found.freedom == 4 + 2 + 1
    assert found.variance == pytest.approx((4 * 0.04 + 0.02 + 0.005) / 7)


def test_versions_are_not_spread() -> None:
    assert session_spread([[at(1.0)], [at(2.0)], [at(3.0)]]).variance == PRIOR.variance


def test_what_the_machine_was_seen_to_do_goes_before_the_prior() -> None:
    assert session_spread([[at(1.0, 0.9, 1.1)]], Spread(1e-4, 12)) == Spread(1e-4, 12)


@given(st.floats(0.006, 0.2), st.integers(1, 1000))
def test_many_sessions_show_the_truth_whatever_was_assumed(spread: float, seed: int) -> None:
    levels = [at(value) for value in np.random.default_rng(seed).normal(0, spread, 2000)]
    assert math.sqrt(session_spread([levels]).variance) == pytest.approx(spread, rel=0.15)


def test_an_a_a_runs_items_count_as_one() -> None:
    quiet, restless = at(0.0, -0.01, 0.0, 0.01), at(0.0, -0.03, 0.0, 0.03)
    found = process_spread([[quiet, quiet], [restless, restless]])
    assert found.variance == pytest.approx((0.01**2 + 0.03**2) / 2)
    assert found.freedom == 2


def test_a_perfect_machine_is_not_believed() -> None:
    assert process_spread([[at(1.0, 1.0, 1.0)]]).variance == 1e-6
