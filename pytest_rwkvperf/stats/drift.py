"""Drift: what a probe beside the samples says about the machine, taken into account as far as the samples follow it.

A time divided by a probe's time trusts that both slow down alike; where they do not, that adds the probe's noise. Here
the coefficient is fitted: how the processes of one session differ, in log time, with their probes, and how the stored
sessions of one software version do. Only differences within a session and between stored ones are used, so a change of
the code under test cannot enter. The coefficient is shrunk towards 0 by its own uncertainty and kept within 0 and 1,
and what uncertainty remains widens the bounds.

Within a session the machine often stands still, and with one stored session nothing can be fitted, but the machine has
moved since. What the probes moved and no coefficient took is an excuse, on one side only: a machine that was slower
explains a slower time, never a faster one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

    from pytest_rwkvperf.stats.levels import Level
    from pytest_rwkvperf.stats.spread import Belief

MIN_FREEDOM = 3
"""Fewer differences between processes fit no line."""

BELIEF_WORTH = 20
"""Sessions that what is believed of their spread counts as, beside those that a line is fitted to."""

LEAST_VARIANCE = 1e-6
"""Of log times: a thousandth, which no machine's clock and scheduler stay under. A perfect fit is one of few points."""


@dataclass(frozen=True, slots=True)
class Drift:
    """What to take from the new session's log time, the variance that this adds, and the coefficient it rests on.

    `left` is what the probes moved beyond that: the log of how much slower the machine was.
    """

    shift: float = 0.0
    variance: float = 0.0
    coefficient: float = 0.0
    left: float = 0.0


def drift(new: Level, old: Sequence[Level], belief: Belief) -> Drift:
    """The part of new minus old that the probes explain; `belief` is what is assumed of the spread between sessions.

    Least squares, the two fits weighed by their precision; shrunk by the positive part of 1 - se^2 / b^2 (James and
    Stein, Proceedings of the Fourth Berkeley Symposium 1, 1961, for one coefficient).
    """
    sessions = (new, *old)
    known = [one.probe for one in sessions if one.probe is not None]
    if len(known) < len(sessions):
        return Drift()
    moved = known[0] - float(np.mean(known[1:]))
    fits = [fit for fit in (_within(sessions), _between(old, known[1:], belief)) if fit is not None]
    if not fits:
        return Drift(left=moved)
    error = 1 / sum(1 / fit.error for fit in fits)
    slope = error * sum(fit.slope / fit.error for fit in fits)
    if slope <= 0 or slope**2 <= error:
        return Drift(left=moved)
    coefficient = min(1.0, slope * (1 - error / slope**2))
    return Drift(coefficient * moved, min(error, 1.0) * moved**2, coefficient, (1 - coefficient) * moved)


@dataclass(frozen=True, slots=True)
class _Fit:
    """A line's slope, and the variance of it."""

    slope: float
    error: float


def _within(sessions: Sequence[Level]) -> _Fit | None:
    """How processes follow their probes, over the differences from their own session's mean."""
    centred = [np.array([one.probes, one.processes]) for one in sessions]
    probes, times = np.hstack([pair - pair.mean(axis=1, keepdims=True) for pair in centred])
    freedom = probes.size - len(sessions) - 1
    if freedom < MIN_FREEDOM:
        return None
    return _line(probes, times, lambda left: left / freedom)


def _between(old: Sequence[Level], known: Sequence[float], belief: Belief) -> _Fit | None:
    """How stored sessions follow theirs; their scatter is pooled with what is assumed of it, being of few sessions."""
    freedom = len(old) - 2
    if freedom < 1:
        return None
    probes, times = (np.array(one) - np.mean(one) for one in (known, [one.value for one in old]))
    pooled = BELIEF_WORTH + freedom
    return _line(probes, times, lambda left: (belief.variance * BELIEF_WORTH + left) / pooled)


def _line(
    probes: npt.NDArray[np.float64], times: npt.NDArray[np.float64], variance: Callable[[float], float]
) -> _Fit | None:
    """Least squares through the origin; `variance` makes one of the sum of squares that is left."""
    scale = float(probes @ probes)
    if scale <= 0:
        return None
    slope = float(probes @ times) / scale
    return _Fit(slope, max(variance(float(np.sum((times - slope * probes) ** 2))), LEAST_VARIANCE) / scale)
