"""What a session says of a workload's time: one level on the log scale, and how far chance may have moved it.

Two levels are read from the same times. The **fast** one is a low quantile of all repetitions: interference only ever
slows, so it sees the code rather than the neighbours. The **mean** one, the time of all repetitions together, sees what
a low quantile cannot: a change that makes some repetitions slower and leaves the others as they were.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import compress
from typing import TYPE_CHECKING, Literal

import numpy as np

from pytest_rwkvperf.stats.estimates import check_times

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

    Rows = Sequence[npt.NDArray[np.float64]]

Statistic = Literal["fast", "mean"]

FAST_SHARE = 0.05
"""The quantile that is the fast level; chosen in benchmarks/verdicts from recordings of unchanged code."""


@dataclass(frozen=True, slots=True)
class Timed:
    """One session's nanoseconds by process, and the probe's median beside them, by process; empty without probes."""

    times: Sequence[Sequence[float]]
    probes: Sequence[float] = ()
    foreign: float = 0.0
    """Share of the processor time that its threads want which other processes left them without, 0 to 1."""
    handovers: Sequence[Sequence[float]] = ()
    """How long its threads took to hand work over before each of the times; empty where none was timed."""

    @property
    def handover(self) -> float | None:
        """What a hand-over took; None where none was timed."""
        return stood(self.handovers) if self.handovers else None


NEAR = 1.2
"""Hand-overs within this factor are of processors that stand alike: on one machine they took 97 to 112 us while
its processors shared a cache and 130 to 170 us while they did not (benchmarks/verdicts)."""


NEAREST_SHARE = 0.1
"""The quantile of hand-overs that is what they take at best: one lucky reading shall not set the measure."""


def farthest(handovers: Sequence[Sequence[float]]) -> float:
    """The longest hand-over that is still one of processors as near as any of these were."""
    return NEAR * float(np.quantile(np.concatenate(handovers), NEAREST_SHARE))


def stood(handovers: Sequence[Sequence[float]]) -> float:
    """The median hand-over of the repetitions whose processors stood near."""
    limit = farthest(handovers)
    return float(np.median([one for row in handovers for one in row if one <= limit]))


def standing(timed: Timed) -> Timed:
    """Less the repetitions whose processors stood further apart than the nearest ones' did."""
    if not timed.handovers:
        return timed
    limit = farthest(timed.handovers)
    near = [[one <= limit for one in row] for row in timed.handovers]
    kept = [index for index, row in enumerate(near) if any(row)]
    probes = [timed.probes[index] for index in kept] if len(timed.probes) == len(timed.times) else ()
    return replace(
        timed,
        times=[list(compress(timed.times[index], near[index])) for index in kept],
        probes=probes,
        handovers=[list(compress(timed.handovers[index], near[index])) for index in kept],
    )


def alike(one: Timed, other: Timed) -> bool:
    """Whether two sessions' processors stood alike; so they are taken to have where none was looked at."""
    here, there = one.handover, other.handover
    return here is None or there is None or max(here, there) <= NEAR * min(here, there)


@dataclass(frozen=True, slots=True)
class Level:
    """A session's log time with its standard error, each process's own, and the logs of the probes by process.

    `probe` is what the probes say of the machine, read from them as the level is from the times; None without.
    """

    value: float
    error: float
    processes: tuple[float, ...]
    probes: tuple[float, ...]
    probe: float | None = None


def level(timed: Timed, statistic: Statistic) -> Level:
    """A session's level; infinite error with one process.

    The standard error is the jackknife's over processes (Efron and Stein, Annals of Statistics 9, 1981): processes, not
    repetitions, are independent.

    Raises:
        MeasurementError: times that carry no figure.
    """
    check_times(timed.times)
    reduce = _fast if statistic == "fast" else _mean
    rows = [np.asarray(row, dtype=np.float64) for row in timed.times]
    processes = tuple(reduce([row]) for row in rows)
    probes = tuple(math.log(value) for value in timed.probes) if len(timed.probes) == len(rows) else ()
    probe = (min(probes) if statistic == "fast" else float(np.mean(probes))) if probes else None
    return Level(reduce(rows), _jackknife(rows, reduce), processes, probes, probe)


def _fast(rows: Rows) -> float:
    return math.log(quantile(np.concatenate(rows), FAST_SHARE))


def quantile(values: npt.NDArray[np.float64], share: float) -> float:
    """What `np.quantile` gives, bit for bit, in a twentieth of its time: a verdict takes hundreds of small ones."""
    ordered = np.sort(values)
    place = share * (len(ordered) - 1)
    below = math.floor(place)
    low, high = float(ordered[below]), float(ordered[min(below + 1, len(ordered) - 1)])
    part = place - below
    return low + (high - low) * part if part < 0.5 else high - (high - low) * (1 - part)  # noqa: PLR2004 - a half


def _mean(rows: Rows) -> float:
    """Each process counts the same, however many repetitions it had time for."""
    return math.log(sum(float(row.sum()) / len(row) for row in rows) / len(rows))


def _jackknife(rows: Rows, reduce: Callable[[Rows], float]) -> float:
    count = len(rows)
    if count < 2:  # noqa: PLR2004 - leaving one of one out leaves nothing
        return math.inf
    without = [reduce([*rows[:index], *rows[index + 1 :]]) for index in range(count)]
    return math.sqrt((count - 1) * float(np.var(without)))
