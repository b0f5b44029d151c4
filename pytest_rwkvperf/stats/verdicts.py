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

POWER = 0.95
"""Share of the cases in which the smallest detectable slowdown is found."""

SESSION_SPREAD = 0.03
"""Standard deviation of a session's log-estimate around the machine's own level, for want of enough sessions to
measure it. 3 % is the middle of what a shared two-core machine showed for process medians and quantiles of identical
code (1.3 to 3.8 %); without this term two sessions an hour apart differ "significantly" again and again."""

_BEYOND_FLOATS = 700.0
"""Of the exponential function's argument."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Ratio of new to old tokens per second with its one-sided bounds, each wrong with probability `alpha`.

    `detectable` is the smallest slowdown (share of the time) that such a comparison calls a regression in POWER of all
    cases; infinite when nothing is.
    """

    verdict: Verdict
    ratio: float
    low: float
    high: float
    tolerance: float
    alpha: float
    detectable: float


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
    error, freedom = _noise(new_moments, old_moments, len(old))
    return conclude(old_moments.mean - new_moments.mean, error, freedom, Rule(tolerance, ALPHA / items, ALPHA / items))


@dataclass(frozen=True, slots=True)
class Rule:
    """What a comparison is held against: the tolerance, the error rate stated, and the part of it this look may use."""

    tolerance: float
    alpha: float
    alpha_of_look: float


def conclude(centre: float, error: float, freedom: float, rule: Rule) -> Comparison:
    """The verdict on a log-ratio with a standard error and its degrees of freedom (infinite: the normal's).

    The smallest detectable slowdown s solves log(1 + s) = log(1 + tolerance) + (t_alpha + t_power) error: the
    normal-theory formula (Cohen, Statistical Power Analysis, 1988, section 2.4) with Student's quantiles.
    """
    reach, power_reach = (_quantile(freedom, tail) * error for tail in (rule.alpha_of_look, 1 - POWER))
    ratio, factor = math.exp(centre), _exp(reach)
    low, high = ratio / factor, ratio * factor
    detectable = (1 + rule.tolerance) * _exp(reach + power_reach) - 1
    return Comparison(classify(low, high, rule.tolerance), ratio, low, high, rule.tolerance, rule.alpha, detectable)


def _quantile(freedom: float, tail: float) -> float:
    """Student's upper quantile."""
    return -float(ndtri(tail) if math.isinf(freedom) else stdtrit(freedom, tail))


def _exp(power: float) -> float:
    return math.exp(power) if power < _BEYOND_FLOATS else math.inf


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


def _noise(new: LogTimes, old: LogTimes, old_sessions: int) -> tuple[float, float]:
    """Standard error of the difference on the log scale, and its degrees of freedom."""
    if min(new.count, old.count) < 2:  # noqa: PLR2004 - a variance needs two
        return math.inf, math.inf
    parts = (new.variance / new.count, old.variance / old.count)
    between = SESSION_SPREAD**2 * (1 + 1 / old_sessions)
    variance = sum(parts) + between
    # Satterthwaite: the known part has no estimation error and drops out of the denominator.
    spread = parts[0] ** 2 / (new.count - 1) + parts[1] ** 2 / (old.count - 1)
    return math.sqrt(variance), variance**2 / spread if spread else math.inf
