"""Tokens per second with an interval, from samples grouped by process: the process is the unit, not the repetition."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import stdtrit

from pytest_rwkvperf.core.errors import MeasurementError

if TYPE_CHECKING:
    from collections.abc import Sequence

CONFIDENCE = 0.95
"""Of reported intervals; verdicts have an error rate of their own."""

MAX_NANOSECONDS = 10**18
"""30 years: a longer time is a mistake, and figures made of it leave the range of floats."""


@dataclass(frozen=True, slots=True)
class Rate:
    """Tokens per second: `median` is the geometric mean of the processes' medians, with its 95 % interval.

    With one process there is no interval: `low` is 0 and `high` None (null in JSON).
    """

    median: float
    low: float
    high: float | None
    processes: int
    samples: int

    @property
    def half_width(self) -> float | None:
        """Half the interval relative to the median; None with one process."""
        return None if self.high is None else (self.high - self.low) / 2 / self.median


@dataclass(frozen=True, slots=True)
class LogTimes:
    """The logarithms of the processes' median times: their mean, sample variance and number."""

    mean: float
    variance: float
    count: int


def log_times(times: Sequence[Sequence[float]]) -> LogTimes:
    """The moments of times in nanoseconds by process.

    Raises:
        MeasurementError: as `check_times`.
    """
    check_times(times)
    logs = np.log([float(np.median(row)) for row in times])
    variance = float(np.var(logs, ddof=1)) if len(logs) > 1 else math.inf
    return LogTimes(float(np.mean(logs)), variance, len(logs))


def check_times(times: Sequence[Sequence[float]]) -> None:
    """Refuse unusable times.

    Raises:
        MeasurementError: no process, a process without samples, or a time that is not within 0 and MAX_NANOSECONDS.
    """
    if not times or not all(len(row) for row in times):
        raise MeasurementError("a process without samples; measure again")
    # Not `math.isfinite`: it raises on an integer beyond the range of floats. NaN fails both comparisons.
    if not all(0 < value <= MAX_NANOSECONDS for row in times for value in row):
        raise MeasurementError("a time that is not positive, or longer than 30 years; measure again")


def estimate_rate(times: Sequence[Sequence[float]], tokens: int) -> Rate:
    """Tokens per second from nanoseconds per repetition by process, with Student's interval on the mean logarithm.

    Raises:
        MeasurementError: as `check_times`.
    """
    moments = log_times(times)
    rate = tokens / math.exp(moments.mean) * 1e9
    reach = interval_reach(moments)
    high = rate * math.exp(reach) if math.isfinite(reach) else None
    return Rate(rate, rate * math.exp(-reach), high, moments.count, sum(len(row) for row in times))


def interval_reach(moments: LogTimes) -> float:
    """Half the two-sided 95 % interval on the log scale; infinite with one process."""
    if moments.count < 2:  # noqa: PLR2004 - a variance needs two
        return math.inf
    quantile = float(stdtrit(moments.count - 1, (1 + CONFIDENCE) / 2))
    return quantile * math.sqrt(moments.variance / moments.count)
