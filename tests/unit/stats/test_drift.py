"""Drift: how much of a slow session a probe explains, for workloads that follow the probe and for others."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from pytest_rwkvperf.stats.drift import Drift, drift
from pytest_rwkvperf.stats.levels import Level
from pytest_rwkvperf.stats.spread import PRIOR


def session(
    random: np.random.Generator, slow: float, follows: float, processes: int = 5, noise: float = 0.005
) -> Level:
    """A session on a machine that is `slow` (log), whose processes' log times follow the probe with a coefficient."""
    probes = slow + random.normal(0, 0.04, processes)
    times = follows * probes + random.normal(0, noise, processes)
    return Level(float(times.mean()), 0.0, tuple(times), tuple(probes), float(probes.mean()))


def test_drift_shown_by_the_probe_is_removed() -> None:
    random = np.random.default_rng(1)
    old, new = session(random, 0.0, 0.6), session(random, 0.3, 0.6)
    found = drift(new, [old], PRIOR)
    assert found.coefficient == pytest.approx(0.6, abs=0.08)
    assert found.shift == pytest.approx(0.18, abs=0.03)
    assert 0 < found.variance < 0.03**2


def test_slower_code_is_not_taken_for_drift() -> None:
    """Only differences within sessions are fitted."""
    random = np.random.default_rng(2)
    old, new = session(random, 0.0, 0.6), session(random, 0.0, 0.6)
    slower = replace(new, value=new.value + 0.5, processes=tuple(time + 0.5 for time in new.processes))
    assert drift(slower, [old], PRIOR).shift == pytest.approx(drift(new, [old], PRIOR).shift)


def spread_with_and_without(follows: float) -> tuple[float, float]:
    """Standard deviation of new minus old over simulated pairs of sessions, after and before drift is taken out."""
    random, before, after = np.random.default_rng(3), [], []
    for _ in range(800):
        old, new = (session(random, random.normal(0, 0.05), follows, 4, noise=0.02) for _ in range(2))
        before.append(new.value - old.value)
        after.append(new.value - drift(new, [old], PRIOR).shift - old.value)
    return float(np.std(after)), float(np.std(before))


def test_the_correction_helps_where_times_follow_the_probe() -> None:
    after, before = spread_with_and_without(0.8)
    assert after < 0.7 * before


def test_the_correction_does_no_harm_elsewhere() -> None:
    """Dividing would add the probe's own 7 % to a spread of 1.4 %."""
    after, before = spread_with_and_without(0.0)
    assert after < 1.35 * before


def test_the_coefficient_stays_within_0_and_1() -> None:
    random = np.random.default_rng(4)
    over = drift(session(random, 0.3, 3.0), [session(random, 0.0, 3.0)], PRIOR)
    assert over.coefficient == 1
    still = Level(0.0, 0.0, (0.0, 0.1, -0.1, 0.05), (0.0, 0.001, -0.001, 0.0), 0.0)
    assert drift(replace(still, probe=0.3), [still], PRIOR) == Drift(0.3, 0.3**2, 1.0)
    under = drift(session(random, 0.3, -1.0), [session(random, 0.0, -1.0)], PRIOR)
    assert (under.coefficient, under.shift, under.variance) == (0, 0, 0)
    assert under.unexplained == pytest.approx(0.3, abs=0.08)


@pytest.mark.parametrize("missing", ["new", "old"])
def test_without_probes_on_both_sides_there_is_no_drift(missing: str) -> None:
    random = np.random.default_rng(5)
    sides = {"new": session(random, 0.3, 1.0), "old": session(random, 0.0, 1.0)}
    one = sides[missing]
    sides[missing] = replace(one, probes=(), probe=None)
    assert drift(sides["new"], [sides["old"]], PRIOR) == Drift()


def test_drift_that_is_not_removed_is_unexplained() -> None:
    random = np.random.default_rng(7)
    still = [
        Level(value, 0.0, (value,) * 3, (probe,) * 3, probe) for value, probe in ((0.3, 0.2), (0.0, 0.1), (0.0, -0.1))
    ]
    unfitted = drift(still[0], still[1:], PRIOR)  # nothing moved within
    assert unfitted.shift == 0
    assert unfitted.unexplained == pytest.approx(0.2)
    fitted = drift(session(random, 0.3, 0.6), [session(random, 0.0, 0.6)], PRIOR)
    assert fitted.unexplained + fitted.shift == pytest.approx(0.3, abs=0.04)
    assert fitted.unexplained == pytest.approx((1 - fitted.coefficient) / fitted.coefficient * fitted.shift)


def test_two_processes_per_session_give_no_coefficient() -> None:
    random = np.random.default_rng(6)
    three, two = ([session(random, slow, 1.0, processes=count) for slow in (0.3, 0.0)] for count in (3, 2))
    assert drift(three[0], three[1:], PRIOR).coefficient > 0
    assert drift(two[0], two[1:], PRIOR).coefficient == 0


def test_a_constant_probe_gives_no_coefficient() -> None:
    still = Level(0.0, 0.0, (0.0, 0.1, 0.2, 0.0), (math.log(2),) * 4)
    assert drift(still, [still], PRIOR).coefficient == 0
    assert drift(still, [still] * 5, PRIOR).coefficient == 0


# Between stored sessions


def steady(slow: float, follows: float, noise: float = 0.0) -> Level:
    """A session of equal processes, on a machine that is `slow` (log) by its probe."""
    time = follows * slow + noise
    return Level(time, 0.0, (time,) * 3, (slow,) * 3, slow)


SLOW = (0.0, 0.1, 0.2, -0.1, 0.15)


def test_the_coefficient_of_stored_sessions_corrects_a_new_one() -> None:
    found = drift(steady(0.2, 0.8), [steady(one, 0.8) for one in SLOW], PRIOR)
    assert found.coefficient == pytest.approx(0.8, abs=0.03)
    assert found.shift + found.unexplained == pytest.approx(0.2 - 0.07)
    assert 0 < found.variance < 0.03**2


def test_scatter_of_stored_sessions_widens_the_variance_of_drift() -> None:
    noise = (0.05, -0.05, 0.02, -0.02, 0.0)
    scattered = [steady(slow, 0.8, extra) for slow, extra in zip(SLOW, noise, strict=True)]
    exact = drift(steady(0.2, 0.8), [steady(slow, 0.8) for slow in SLOW], PRIOR)
    assert drift(steady(0.2, 0.8), scattered, PRIOR).variance > 1.5 * exact.variance


def test_the_new_session_does_not_change_the_stored_coefficient() -> None:
    old = [steady(one, 0.8) for one in SLOW]
    assert drift(steady(0.2, 0.8, noise=0.5), old, PRIOR) == drift(steady(0.2, 0.8), old, PRIOR)


def test_two_stored_sessions_give_no_coefficient() -> None:
    assert drift(steady(0.2, 0.8), [steady(one, 0.8) for one in SLOW[:2]], PRIOR).coefficient == 0
    assert drift(steady(0.2, 0.8), [steady(one, 0.8) for one in SLOW[:3]], PRIOR).coefficient > 0


def test_a_barely_moving_probe_gives_no_coefficient() -> None:
    assert drift(steady(0.2, 0.8), [steady(one / 20, 0.8) for one in SLOW], PRIOR).coefficient == 0


def test_sessions_that_do_not_follow_the_probe_are_not_corrected() -> None:
    random = np.random.default_rng(8)
    taken = [
        drift(steady(0.1, 0.0), [steady(one, 0.0, random.normal(0, 0.02)) for one in SLOW], PRIOR).shift
        for _ in range(200)
    ]
    assert np.std(taken) < 0.012
