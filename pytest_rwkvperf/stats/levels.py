"""A session's level: the log of a workload's time in one pytest run, with its standard error.

Two levels are read from the same times. The **fast** level is a low quantile of all repetitions: interference only
makes repetitions slower, so a low quantile shows the code rather than the neighbours. The **mean** level is the mean
time of all repetitions: it shows what the quantile cannot, a change that slows some repetitions only.
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

FAST_QUANTILE = 0.05
"""The quantile that is the fast level; chosen in benchmarks/verdicts from recordings of unchanged code."""

PLACEMENT_FACTOR = 1.2
"""Handovers within this factor of each other belong to the same placement of processors: on one machine they took 97 to
112 us while its processors shared a cache and 130 to 170 us while they did not (benchmarks/verdicts)."""

FAST_HANDOVER_QUANTILE = 0.1
"""The quantile of handovers that is taken for the fastest one; a minimum would rest on a single reading."""


@dataclass(frozen=True, slots=True)
class SessionTimes:
    """One session's times of a workload, in nanoseconds by process, and what was measured beside them.

    `probes` is the median time of the probe (fixed work that shows the machine's own speed) by process, `handovers` the
    time that the case's threads took to hand work to each other before each repetition; both are empty if not measured.
    `foreign` is the share, 0 to 1, of the processor time its threads wanted that other processes took.
    """

    times: Sequence[Sequence[float]]
    probes: Sequence[float] = ()
    foreign: float = 0.0
    handovers: Sequence[Sequence[float]] = ()

    @property
    def handover(self) -> float | None:
        """The typical handover; None if none was measured."""
        return typical_handover(self.handovers) if self.handovers else None


def handover_limit(handovers: Sequence[Sequence[float]]) -> float:
    """The longest handover that still belongs to the placement of the fastest ones."""
    return PLACEMENT_FACTOR * float(np.quantile(np.concatenate(handovers), FAST_HANDOVER_QUANTILE))


def typical_handover(handovers: Sequence[Sequence[float]]) -> float:
    """The median of the handovers up to the limit."""
    limit = handover_limit(handovers)
    return float(np.median([value for row in handovers for value in row if value <= limit]))


def drop_slow_handovers(session: SessionTimes) -> SessionTimes:
    """Drop repetitions with a high inter-thread latency, and processes that are left with none."""
    if not session.handovers:
        return session
    limit = handover_limit(session.handovers)
    fast = [[value <= limit for value in row] for row in session.handovers]
    kept = [index for index, row in enumerate(fast) if any(row)]
    probes = [session.probes[index] for index in kept] if len(session.probes) == len(session.times) else ()
    return replace(
        session,
        times=[list(compress(session.times[index], fast[index])) for index in kept],
        probes=probes,
        handovers=[list(compress(session.handovers[index], fast[index])) for index in kept],
    )


def same_placement(first: SessionTimes, second: SessionTimes) -> bool:
    """Whether two sessions' processors were placed alike by their handovers; True where one has none."""
    one, other = first.handover, second.handover
    return one is None or other is None or max(one, other) <= PLACEMENT_FACTOR * min(one, other)


@dataclass(frozen=True, slots=True)
class Level:
    """A session's log time with its standard error.

    `processes` and `probes` are the log times of each process and of its probe. `probe` is the session's own, reduced
    from `probes` as the level is from the times; None without probes.
    """

    value: float
    error: float
    processes: tuple[float, ...]
    probes: tuple[float, ...]
    probe: float | None = None


def level(session: SessionTimes, statistic: Statistic) -> Level:
    """A session's level; its error is infinite with one process.

    The standard error is the jackknife's over processes (Efron and Stein, Annals of Statistics 9, 1981): processes are
    independent, the repetitions of one are not.

    Raises:
        MeasurementError: no process, a process without samples, or an unusable time.
    """
    check_times(session.times)
    reduce = _fast if statistic == "fast" else _mean
    rows = [np.asarray(row, dtype=np.float64) for row in session.times]
    processes = tuple(reduce([row]) for row in rows)
    probes = tuple(math.log(value) for value in session.probes) if len(session.probes) == len(rows) else ()
    probe = (min(probes) if statistic == "fast" else float(np.mean(probes))) if probes else None
    return Level(reduce(rows), _jackknife(rows, reduce), processes, probes, probe)


def _fast(rows: Rows) -> float:
    return math.log(quantile(np.concatenate(rows), FAST_QUANTILE))


def quantile(values: npt.NDArray[np.float64], share: float) -> float:
    """The same as `np.quantile`, bit for bit, in a twentieth of its time: a verdict takes hundreds of small ones."""
    ordered = np.sort(values)
    place = share * (len(ordered) - 1)
    below = math.floor(place)
    low, high = float(ordered[below]), float(ordered[min(below + 1, len(ordered) - 1)])
    part = place - below
    return low + (high - low) * part if part < 0.5 else high - (high - low) * (1 - part)  # noqa: PLR2004 - a half


def _mean(rows: Rows) -> float:
    """Each process has the same weight, however many repetitions it has."""
    return math.log(sum(float(row.sum()) / len(row) for row in rows) / len(rows))


def _jackknife(rows: Rows, reduce: Callable[[Rows], float]) -> float:
    """The standard error of `reduce(rows)` from its values with one process left out each time."""
    count = len(rows)
    if count < 2:  # noqa: PLR2004 - leaving one of one out leaves nothing
        return math.inf
    without = [reduce([*rows[:index], *rows[index + 1 :]]) for index in range(count)]
    return math.sqrt((count - 1) * float(np.var(without)))
