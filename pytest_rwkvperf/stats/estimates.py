"""Tokens per second with an interval, from samples grouped by process: the process is the unit, not the repetition."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from pytest_rwkvperf.core.errors import MeasurementError
from pytest_rwkvperf.stats.shrinkage import PROCESS_PRIOR, error_of_mean

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_rwkvperf.stats.spread import Spread

CONFIDENCE = 0.95
"""Confidence of reported intervals; verdicts have an error rate of their own."""

_MAX_REACH = 300.0
"""Longest reach of an interval on the log scale: beyond it there is no bound."""

MAX_NANOSECONDS = 10**18
"""30 years: a longer time is a mistake, and figures made of it leave the range of floats."""


RateStatistic = Literal["median", "fast", "mean"]
"""Which times a speed is made of: the geometric mean of the processes' medians; the fast repetitions; or the mean of
all repetitions (`levels`; in A/B `paired`, where the mean is geometric)."""


UNUSABLE = 0.5
"""A half-width beyond it leaves open whether a rate is the double or the half."""


def is_unusable(half_width: float | None) -> bool:
    """Whether an interval with this relative half-width is so wide that its rate is no measurement."""
    return half_width is not None and half_width > UNUSABLE


def remark(half_width: float | None) -> str:
    """What stands behind an interval wherever it is shown: ` (unusable)`, or nothing."""
    return " (unusable)" if is_unusable(half_width) else ""


@dataclass(frozen=True, slots=True)
class Rate:
    """Tokens per second with the 95 % interval.

    `median` is the speed: that of the processes' medians, or of the `statistic` that was compared. With one process
    there is no interval: `low` is 0 and `high` None (null in JSON).
    """

    median: float
    low: float
    high: float | None
    processes: int
    samples: int
    statistic: RateStatistic = "median"

    @property
    def half_width(self) -> float | None:
        """Half the interval relative to the median; None with one process."""
        return None if self.high is None else (self.high - self.low) / 2 / self.median

    @property
    def unusable(self) -> bool:
        """Whether the interval is so wide that the rate is no measurement."""
        return is_unusable(self.half_width)

    @property
    def remark(self) -> str:
        """What stands behind the interval wherever it is shown: ` (unusable)`, or nothing."""
        return remark(self.half_width)


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


def estimate_rate(times: Sequence[Sequence[float]], tokens: int, prior: Spread = PROCESS_PRIOR) -> Rate:
    """Tokens per second from nanoseconds per repetition by process, with an interval on the mean logarithm.

    It is Student's with the moderated variance of `shrinkage`; `prior` is what is known of how far processes lie apart.

    Raises:
        MeasurementError: as `check_times`.
    """
    moments = log_times(times)
    return rate_of(moments.mean, error_of_mean(moments.variance, moments.count, prior), tokens, times)


def rate_of(
    log_time: float, error: Spread, tokens: int, times: Sequence[Sequence[float]], statistic: RateStatistic = "median"
) -> Rate:
    """Tokens per second from a log time in nanoseconds, the spread of its error, and the times that it is of."""
    rate, reach = tokens / math.exp(log_time) * 1e9, _reach(error)
    high = rate * math.exp(reach) if reach < _MAX_REACH else None
    return Rate(rate, rate * math.exp(-reach), high, len(times), sum(len(row) for row in times), statistic)


def interval_reach(moments: LogTimes, prior: Spread = PROCESS_PRIOR) -> float:
    """Half the two-sided 95 % interval on the log scale; infinite with one process."""
    return _reach(error_of_mean(moments.variance, moments.count, prior))


def _reach(error: Spread) -> float:
    if not error.freedom or not math.isfinite(error.variance):
        return math.inf
    from scipy.special import stdtrit  # loads for a third of a second, which a run that estimates nothing saves

    return float(stdtrit(error.freedom, (1 + CONFIDENCE) / 2)) * math.sqrt(error.variance)


def time_ratio(new: Sequence[float], old: Sequence[float]) -> tuple[float, float, float]:
    """New over old times by their geometric means, with the bounds of the ratio's 95 % interval.

    It is Welch's t interval of the times' logarithms (Biometrika 34, 1947); both sides need two times at least.
    """
    from scipy.special import stdtrit

    logs = [np.log(np.asarray(times, dtype=float)) for times in (new, old)]
    ratio = float(logs[0].mean() - logs[1].mean())
    parts = [float(each.var(ddof=1)) / len(each) for each in logs]
    if not (variance := sum(parts)):
        return math.exp(ratio), math.exp(ratio), math.exp(ratio)
    freedom = variance**2 / sum(part**2 / (len(each) - 1) for part, each in zip(parts, logs, strict=True))
    reach = float(stdtrit(freedom, (1 + CONFIDENCE) / 2)) * math.sqrt(variance)
    return math.exp(ratio), math.exp(ratio - reach), math.exp(ratio + reach)
