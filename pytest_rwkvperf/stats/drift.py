"""Drift: what a probe beside the samples says about the machine, taken into account as far as the samples follow it.

A time divided by a probe's time trusts that both slow down alike; where they do not, that adds the probe's noise. Here
the coefficient is fitted: how the processes of one session differ, in log time, with their probes. Only differences
within sessions are used, so a change of the code under test cannot enter. The coefficient is shrunk towards 0 by its
own uncertainty and kept within 0 and 1, and what uncertainty remains widens the bounds.

Within a session the machine often stands still, and nothing can be fitted, but between sessions it has moved. What the
probes moved and no coefficient took is an excuse, on one side only: a machine that was slower explains a slower time,
never a faster one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_rwkvperf.stats.levels import Level

MIN_FREEDOM = 3
"""Fewer differences between processes fit no line."""


@dataclass(frozen=True, slots=True)
class Drift:
    """What to take from the new session's log time, the variance that this adds, and the coefficient it rests on.

    `left` is what the probes moved beyond that: the log of how much slower the machine was.
    """

    shift: float = 0.0
    variance: float = 0.0
    coefficient: float = 0.0
    left: float = 0.0


def drift(new: Level, old: Sequence[Level]) -> Drift:
    """The part of new minus old that the probes explain.

    Least squares on differences within sessions; shrunk by the positive part of 1 - se^2 / b^2 (James and Stein,
    Proceedings of the Fourth Berkeley Symposium 1, 1961, for one coefficient).
    """
    sessions = (new, *old)
    known = [one.probe for one in sessions if one.probe is not None]
    if len(known) < len(sessions):
        return Drift()
    moved = known[0] - float(np.mean(known[1:]))
    centred = [np.array([one.probes, one.processes]) for one in sessions]
    probes, times = np.hstack([pair - pair.mean(axis=1, keepdims=True) for pair in centred])
    freedom = probes.size - len(sessions) - 1
    scale = float(probes @ probes)
    if freedom < MIN_FREEDOM or scale <= 0:
        return Drift(left=moved)
    slope = float(probes @ times) / scale
    error = float(np.sum((times - slope * probes) ** 2)) / freedom / scale
    if slope <= 0 or slope**2 <= error:
        return Drift(left=moved)
    coefficient = min(1.0, slope * (1 - error / slope**2))
    return Drift(coefficient * moved, min(error, 1.0) * moved**2, coefficient, (1 - coefficient) * moved)
