"""The verdict on one item: the log-ratio of two sets of processes, with a stated chance of being wrong."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from scipy.special import ndtri, stdtrit

from pytest_rwkvperf.stats.estimates import LogTimes, log_times

if TYPE_CHECKING:
    from collections.abc import Sequence

Verdict = Literal["PASS", "REGRESSION", "IMPROVEMENT", "INCONCLUSIVE", "NO-BASELINE", "INVALID"]

ALPHA = 0.01
"""Chance that a whole run of unchanged code is called a regression; each of its m items gets ALPHA / m."""

SESSION_SPREAD = 0.03
"""Standard deviation of a session's log-estimate around the machine's own level, for want of enough sessions to
measure it. 3 % is the middle of what a shared two-core machine showed for process medians and quantiles of identical
code (1.3 to 3.8 %); without this term two sessions an hour apart differ "significantly" again and again."""

_BEYOND_FLOATS = 700.0
"""Of the exponential function's argument."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Ratio of new to old tokens per second with its one-sided bounds, each wrong with probability `alpha`."""

    verdict: Verdict
    ratio: float
    low: float
    high: float
    tolerance: float
    alpha: float


def compare(
    new: Sequence[Sequence[float]], old: Sequence[Sequence[Sequence[float]]], tolerance: float, items: int
) -> Comparison:
    """Judge new times (by process) against old ones (sessions of processes) at ALPHA / items.

    The margins are 1/(1+tolerance) and 1+tolerance. Welch's interval (Biometrika 34, 1947, with Satterthwaite's
    degrees of freedom) on the difference of mean log times, its variance widened by each side's session-to-session
    spread; that part is taken as known, so it adds variance without adding uncertainty about the variance.

    Raises:
        MeasurementError: times that carry no figure.
    """
    new_moments = log_times(new)
    old_moments = log_times([row for session in old for row in session])
    alpha = ALPHA / items
    ratio = math.exp(old_moments.mean - new_moments.mean)
    reach = _reach(new_moments, old_moments, len(old), alpha)
    factor = math.exp(reach) if reach < _BEYOND_FLOATS else math.inf
    low, high = ratio / factor, ratio * factor
    return Comparison(classify(low, high, tolerance), ratio, low, high, tolerance, alpha)


def classify(low: float, high: float, tolerance: float) -> Verdict:
    """The verdict that one-sided bounds on the ratio allow."""
    floor, ceiling = 1 / (1 + tolerance), 1 + tolerance
    if high < floor:
        return "REGRESSION"
    if low > ceiling:
        return "IMPROVEMENT"
    if low > floor:
        return "PASS"
    return "INCONCLUSIVE"


def _reach(new: LogTimes, old: LogTimes, old_sessions: int, alpha: float) -> float:
    """One-sided reach of the interval on the log scale."""
    if min(new.count, old.count) < 2:  # noqa: PLR2004 - a variance needs two
        return math.inf
    parts = (new.variance / new.count, old.variance / old.count)
    between = SESSION_SPREAD**2 * (1 + 1 / old_sessions)
    variance = sum(parts) + between
    # Satterthwaite: the known part has no estimation error and drops out of the denominator.
    spread = parts[0] ** 2 / (new.count - 1) + parts[1] ** 2 / (old.count - 1)
    quantile = -float(ndtri(alpha)) if spread == 0 else -float(stdtrit(variance**2 / spread, alpha))
    return quantile * math.sqrt(variance)
