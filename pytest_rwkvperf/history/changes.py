"""Change points of a series of runs: from which run on a workload's level was another."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    Logs = npt.NDArray[np.float64]

MIN_RUNS = 3
"""Runs that a level must last to count: fewer are a disturbance, or a change that the next runs will confirm."""

PENALTY = 3.0
"""What a change must explain, in robust standard deviations times the logarithm of the number of runs. Chosen on
simulated series (benchmarks/history): unchanged code is called changed in about one series of a hundred."""

LONGEST = 300
"""Newest runs looked at: the search takes time with the square of their number and more."""

_NOTHING = 1e-12
"""More than rounding makes of equal figures."""

_MAD_TO_SD = 1.4826
"""A normal distribution's standard deviation over its median absolute deviation (Rousseeuw and Croux, 1993)."""


@dataclass(frozen=True, slots=True)
class Change:
    """From the run at `index` on the level is `after`; `before` until then. Both are medians, in the series' unit."""

    index: int
    before: float
    after: float

    @property
    def ratio(self) -> float:
        """New over old."""
        return self.after / self.before


def find(rates: Sequence[float]) -> list[Change]:
    """The change points of rates (positive, the oldest first).

    PELT (Killick, Fearnhead and Eckley, JASA 107, 2012) as ruptures has it, on the logarithms, with the cost of the
    median: single slow runs, which neighbours on the machine cause, move a mean and no median. The noise is told by the
    differences of neighbouring runs, which a change of level does not touch but once.
    """
    if len(rates) < 2 * MIN_RUNS:
        return []
    skipped = max(0, len(rates) - LONGEST)
    logs = np.log(np.asarray(rates[skipped:], dtype=float))
    penalty = _penalty(logs)
    stretches = _lasting(np.split(logs, _starts(logs, penalty)), penalty)
    starts = np.cumsum([len(one) for one in stretches[:-1]], dtype=int)
    return [
        Change(skipped + int(start), math.exp(before), math.exp(after))
        for start, (before, after) in zip(starts, pairwise(map(_level, stretches)), strict=True)
    ]


def _penalty(logs: Logs) -> float:
    """What a change must explain."""
    noise = _MAD_TO_SD * float(np.median(np.abs(np.diff(logs)))) / math.sqrt(2)
    # Equal figures have no noise; then every change is one, and the smallest penalty above 0 finds them.
    return max(PENALTY * noise * math.log(len(logs)), _NOTHING)


def _starts(logs: Logs, penalty: float) -> list[int]:
    """Where each stretch of one level begins, but the first."""
    import ruptures

    search = ruptures.Pelt(model="l1", min_size=MIN_RUNS, jump=1).fit(logs.reshape(-1, 1))
    return [int(end) for end in search.predict(pen=penalty)[:-1]]


def _lasting(stretches: list[Logs], penalty: float) -> list[Logs]:
    """The stretches, less those whose level fewer than MIN_RUNS of their runs had.

    Two slow runs pull the median of three. Such a stretch is joined to its likest neighbour, and neighbours whose
    difference then explains too little are one.
    """
    while len(stretches) > 1:
        supports = [_support(stretches, index) for index in range(len(stretches))]
        gains = [_cost(np.concatenate(pair)) - _cost(pair[0]) - _cost(pair[1]) for pair in pairwise(stretches)]
        if min(supports) < MIN_RUNS:
            weakest = supports.index(min(supports))
            sides = [index for index in (weakest - 1, weakest) if 0 <= index < len(gains)]
            join = min(sides, key=lambda index: abs(_level(stretches[index]) - _level(stretches[index + 1])))
        elif min(gains) < penalty:
            join = gains.index(min(gains))
        else:
            break
        stretches = [*stretches[:join], np.concatenate(stretches[join : join + 2]), *stretches[join + 2 :]]
    return stretches


def _cost(stretch: Logs) -> float:
    return float(np.sum(np.abs(stretch - np.median(stretch))))


def _support(stretches: Sequence[Logs], index: int) -> int:
    """How many runs of a stretch lie nearer to its level than to its neighbours'."""
    own = stretches[index]
    others = [stretches[one] for one in (index - 1, index + 1) if 0 <= one < len(stretches)]
    distances = np.min([np.abs(own - _level(other)) for other in others], axis=0)
    return int(np.count_nonzero(np.abs(own - _level(own)) < distances))


def _level(stretch: Logs) -> float:
    return float(np.median(stretch))
