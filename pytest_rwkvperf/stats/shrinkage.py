"""How far processes of one case lie apart: an interval from three processes uses what other cases and sessions showed.

Three processes hardly show their own variance: Student's quantile of two degrees of freedom is 4.3, and one process
that lies 20 % off makes an interval of two thirds of the figure. But cases of one machine are alike in this. Their
variances are taken for draws from a scaled inverse chi-squared distribution, the prior, whose centre s0^2 and degrees
of freedom d0 are estimated from what the baseline stores; a case's own variance s^2 with d degrees then becomes
(d0 s0^2 + d s^2) / (d0 + d) with d0 + d degrees (Smyth, Statistical Applications in Genetics and Molecular Biology
3(1), 2004, article 3: the moderated t statistic of limma).

The assumption is that this machine's cases are exchangeable in how far their processes lie apart. A case that is much
more restless than all others gets too narrow an interval from three processes; its own variance outweighs the prior as
processes are added.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from pytest_rwkvperf.stats.spread import MIN_VARIANCE, Spread

if TYPE_CHECKING:
    from collections.abc import Sequence

PROCESS_PRIOR = Spread(0.025**2, 0.9)
"""The prior of a machine of which nothing is stored: 2.5 %, for as much as 0.9 degrees of freedom.

Fitted as `prior_of` does to 287 variances of virtual machines (benchmarks/verdicts: one_thread.jsonl, before.jsonl and
sessions.jsonl) and of machines with an H200 (benchmarks/gpu/h200.json). By itself each of the four gives 1 to 9.5 %, so
that the prior counts for little.
"""

MIN_GROUPS = 4
"""Fewer variances show no distribution of them."""

MAX_PRIOR_FREEDOM = 10.0
"""The prior counts for no more than eleven processes, so that a case that differs from the others shows it soon."""


def shrunk(found: Spread, prior: Spread) -> Spread:
    """A variance with what the prior knows of it."""
    freedom = prior.freedom + found.freedom
    return Spread((prior.freedom * prior.variance + found.freedom * found.variance) / freedom, freedom)


def error_of_mean(variance: float, count: int, prior: Spread) -> Spread:
    """The error of the mean of `count` processes, from their sample variance; infinite with one process."""
    if count < 2 or not math.isfinite(variance):  # noqa: PLR2004 - a variance needs two
        return Spread(math.inf, 0)
    both = shrunk(Spread(variance, count - 1), prior)
    return Spread(both.variance / count, both.freedom)


def prior_of(groups: Sequence[Spread]) -> Spread:
    """The prior that these variances of the same machine are draws from; PROCESS_PRIOR where they are too few.

    By the moments of their logarithms (Smyth 2004, section 6.2): e = log s^2 - digamma(d/2) + log(d/2) has the variance
    trigamma(d/2) + trigamma(d0/2).
    """
    if len(groups) < MIN_GROUPS:
        return PROCESS_PRIOR
    from scipy.optimize import brentq
    from scipy.special import polygamma, psi  # SciPy loads for half a second, which a run without a baseline saves

    halves = np.array([group.freedom / 2 for group in groups])
    logs = np.log([max(group.variance, MIN_VARIANCE) for group in groups]) - psi(halves) + np.log(halves)
    excess = float(np.var(logs, ddof=1) - np.mean(polygamma(1, halves)))
    half = MAX_PRIOR_FREEDOM / 2
    if excess > float(polygamma(1, half)):
        half = brentq(lambda half: float(polygamma(1, half)) - excess, 1e-3, half)
    return Spread(math.exp(float(np.mean(logs)) + float(psi(half)) - math.log(half)), 2 * half)
