"""Drift: the part of a change in time that the probes explain.

A probe is fixed work timed beside the samples, so it shows how fast the machine was. Dividing a time by its probe's
would assume that both slow down alike, and add the probe's noise where they do not. Here the coefficient is fitted: on
how the processes of one session differ, in log time, with their probes, and on how the stored sessions of one software
version do. The difference between the new session and the stored ones is never used, so a change of the code under test
cannot enter. The coefficient is shrunk towards 0 by its own uncertainty and kept within 0 and 1, and the remaining
uncertainty widens the bounds.

Often nothing can be fitted: the machine was steady within each session, and only one is stored. What the probes changed
and the coefficient does not explain then widens one bound: a slower machine explains a slower time, never a faster one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pytest_rwkvperf.stats.spread import MIN_VARIANCE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

    from pytest_rwkvperf.stats.levels import Level
    from pytest_rwkvperf.stats.spread import Belief

MIN_FREEDOM = 3
"""The fewest degrees of freedom that the fit over processes needs."""

PRIOR_FREEDOM = 20
"""The degrees of freedom that the believed spread counts for in the fit over stored sessions."""


@dataclass(frozen=True, slots=True)
class Drift:
    """`shift` is to be taken from the new session's log time; `variance` is what that adds to its uncertainty.

    `unexplained` is the rest of the probes' change: the log of how much slower the machine was.
    """

    shift: float = 0.0
    variance: float = 0.0
    coefficient: float = 0.0
    unexplained: float = 0.0


def drift(new: Level, old: Sequence[Level], belief: Belief) -> Drift:
    """The part of new minus old that the probes explain; `belief` is that of the spread between sessions.

    Least squares, the two fits weighted by their precision; shrunk by the positive part of 1 - variance / slope^2
    (James and Stein, Proceedings of the Fourth Berkeley Symposium 1, 1961, for one coefficient).
    """
    sessions = (new, *old)
    probes = [session.probe for session in sessions if session.probe is not None]
    if len(probes) < len(sessions):
        return Drift()
    change = probes[0] - float(np.mean(probes[1:]))
    fits = [fit for fit in (_fit_within(sessions), _fit_between(old, probes[1:], belief)) if fit is not None]
    if not fits:
        return Drift(unexplained=change)
    variance = 1 / sum(1 / fit.variance for fit in fits)
    slope = variance * sum(fit.slope / fit.variance for fit in fits)
    if slope <= 0 or slope**2 <= variance:
        return Drift(unexplained=change)
    coefficient = min(1.0, slope * (1 - variance / slope**2))
    return Drift(coefficient * change, min(variance, 1.0) * change**2, coefficient, (1 - coefficient) * change)


@dataclass(frozen=True, slots=True)
class _Fit:
    """A line's slope and the variance of it."""

    slope: float
    variance: float


def _fit_within(sessions: Sequence[Level]) -> _Fit | None:
    """How processes follow their probes, over the differences from their own session's mean."""
    pairs = [np.array([session.probes, session.processes]) for session in sessions]
    probes, times = np.hstack([pair - pair.mean(axis=1, keepdims=True) for pair in pairs])
    freedom = probes.size - len(sessions) - 1
    if freedom < MIN_FREEDOM:
        return None
    return _fit(probes, times, lambda squares: squares / freedom)


def _fit_between(old: Sequence[Level], probes: Sequence[float], belief: Belief) -> _Fit | None:
    """How stored sessions follow their probes; being few, their variance is pooled with the believed one."""
    freedom = len(old) - 2
    if freedom < 1:
        return None
    x, y = (np.array(values) - np.mean(values) for values in (probes, [session.value for session in old]))
    return _fit(x, y, lambda squares: (belief.variance * PRIOR_FREEDOM + squares) / (PRIOR_FREEDOM + freedom))


def _fit(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64], variance: Callable[[float], float]) -> _Fit | None:
    """Least squares through the origin; `variance` estimates that of a residual from the sum of their squares."""
    scale = float(x @ x)
    if scale <= 0:
        return None
    slope = float(x @ y) / scale
    return _Fit(slope, max(variance(float(np.sum((y - slope * x) ** 2))), MIN_VARIANCE) / scale)
