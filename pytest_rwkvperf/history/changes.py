"""Change points: the runs from which on a workload's speed was at another level."""

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
"""A new level must last this many runs: fewer may be a disturbance, or a change that later runs will confirm."""

PENALTY = 3.0
"""The cost that a change must save, in robust standard deviations times the logarithm of the number of runs. On
simulated series of unchanged code (benchmarks/history), about one in a hundred has a false change point."""

MAX_RUNS = 300
"""Only this many of the newest runs are searched: the time grows faster than their number squared."""

_ROUNDING = 1e-12
"""Larger than the rounding errors of equal figures."""

_MAD_TO_SD = 1.4826
"""A normal distribution's standard deviation over its median absolute deviation (Rousseeuw and Croux, 1993)."""


@dataclass(frozen=True, slots=True)
class Change:
    """The level is `before` until the run at `index`, and `after` from it on: medians, in the series' unit."""

    index: int
    before: float
    after: float

    @property
    def ratio(self) -> float:
        """New over old."""
        return self.after / self.before


def find(rates: Sequence[float]) -> list[Change]:
    """The change points of rates (positive, the oldest first).

    PELT (Killick, Fearnhead and Eckley, JASA 107, 2012) from ruptures, on the logarithms. The cost is the distance from
    the median, which single slow runs do not move. The noise is estimated from the differences of neighboring runs, of
    which a change of level affects only one.
    """
    if len(rates) < 2 * MIN_RUNS:
        return []
    skipped = max(0, len(rates) - MAX_RUNS)
    logs = np.log(np.asarray(rates[skipped:], dtype=float))
    penalty = _penalty(logs)
    segments = _merged(np.split(logs, _starts(logs, penalty)), penalty)
    starts = np.cumsum([len(segment) for segment in segments[:-1]], dtype=int)
    return [
        Change(skipped + int(start), math.exp(before), math.exp(after))
        for start, (before, after) in zip(starts, pairwise(map(_level, segments)), strict=True)
    ]


def _penalty(logs: Logs) -> float:
    """The cost that a change must save."""
    noise = _MAD_TO_SD * float(np.median(np.abs(np.diff(logs)))) / math.sqrt(2)
    # Equal figures have no noise: then any penalty above 0 finds every change.
    return max(PENALTY * noise * math.log(len(logs)), _ROUNDING)


def _starts(logs: Logs, penalty: float) -> list[int]:
    """Where each segment but the first begins."""
    import ruptures

    search = ruptures.Pelt(model="l1", min_size=MIN_RUNS, jump=1).fit(logs.reshape(-1, 1))
    return [int(end) for end in search.predict(pen=penalty)[:-1]]


def _merged(segments: list[Logs], penalty: float) -> list[Logs]:
    """Merge segments of which fewer than MIN_RUNS runs are at their level: two slow runs move the median of three.

    Each is merged with the neighbor of the nearest level, and so are neighbors whose separation then saves too little.
    """
    while len(segments) > 1:
        supports = [_support(segments, index) for index in range(len(segments))]
        gains = [_cost(np.concatenate(pair)) - _cost(pair[0]) - _cost(pair[1]) for pair in pairwise(segments)]
        if min(supports) < MIN_RUNS:
            weakest = supports.index(min(supports))
            sides = [index for index in (weakest - 1, weakest) if 0 <= index < len(gains)]
            join = min(sides, key=lambda index: abs(_level(segments[index]) - _level(segments[index + 1])))
        elif min(gains) < penalty:
            join = gains.index(min(gains))
        else:
            break
        segments = [*segments[:join], np.concatenate(segments[join : join + 2]), *segments[join + 2 :]]
    return segments


def _cost(segment: Logs) -> float:
    return float(np.sum(np.abs(segment - np.median(segment))))


def _support(segments: Sequence[Logs], index: int) -> int:
    """How many runs of a segment lie nearer to its level than to its neighbors'."""
    own = segments[index]
    others = [segments[near] for near in (index - 1, index + 1) if 0 <= near < len(segments)]
    distances = np.min([np.abs(own - _level(other)) for other in others], axis=0)
    return int(np.count_nonzero(np.abs(own - _level(own)) < distances))


def _level(segment: Logs) -> float:
    return float(np.median(segment))
