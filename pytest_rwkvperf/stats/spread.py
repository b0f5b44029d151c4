"""The spread between sessions: how far a session's level moves on one machine while nothing is changed.

Repetitions do not average this noise out, and machines differ in it more than workloads do: one that nobody else uses
moves by less than 1 %, neighbours' use of the cache can cost another 5 %. So it is not one figure but a belief, the
probability of each of a few spreads, which stored sessions and A/A runs sharpen: a machine that has shown itself to be
quiet gets narrow bounds, a restless one wide bounds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from pytest_rwkvperf.stats.levels import Level

SPREADS = (0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32)
"""The possible standard deviations of a session's log level, beyond what probes and handovers account for. Steps of
two: a spread between two of them is a mixture of both."""

COEFFICIENT_MEAN = 0.5
COEFFICIENT_DEVIATION = 0.5
"""The normal prior of the coefficient by which times follow a probe: between not at all and wholly."""

MIN_VARIANCE = 1e-6
"""Least variance of log times that is believed: a thousandth squared, below which no machine's clock and scheduler
stay. Few values may agree by luck."""

_MIN_PROBABILITY = 1e-300


@dataclass(frozen=True, slots=True)
class Spread:
    """A variance of log times or levels, and the degrees of freedom that it was estimated with."""

    variance: float
    freedom: float


@dataclass(frozen=True, slots=True)
class Belief:
    """The probability of each of SPREADS; they add up to 1."""

    probabilities: tuple[float, ...]

    @property
    def variance(self) -> float:
        """The variance to expect, over all possible spreads."""
        return sum(chance * spread**2 for chance, spread in zip(self.probabilities, SPREADS, strict=True))

    def after(self, evidence: Spread) -> Belief:
        """The posterior after an estimated variance: Bayes' rule with the likelihood of normal levels.

        A variance with `freedom` degrees is scaled chi-squared (Gelman et al., Bayesian Data Analysis, 3rd edition,
        section 2.6).
        """
        return self._posterior(
            [-evidence.freedom * (math.log(spread) + evidence.variance / (2 * spread**2)) for spread in SPREADS]
        )

    def after_sessions(self, groups: Sequence[Sequence[Level]]) -> Belief:
        """The posterior after stored sessions, grouped by software version.

        Levels are normal around their version's own, which may be anything, and follow the machine's probe by a
        coefficient that is integrated out, so that what the probes explain is not spread (the marginal likelihood of a
        linear model with known variance: Bayesian Data Analysis, section 14.8). The sessions' own standard errors are
        not subtracted: three processes estimate them too badly.
        """
        groups = [group for group in groups if len(group) > 1]
        freedom = sum(len(group) - 1 for group in groups)
        if not freedom:
            return self
        levels = _centred([[session.value for session in group] for group in groups])
        probed = all(session.probe is not None for group in groups for session in group)
        probes = _centred([[session.probe or 0.0 for session in group] for group in groups]) if probed else 0 * levels
        residuals, probe_squares = levels - COEFFICIENT_MEAN * probes, float(probes @ probes)
        log_likelihoods = []
        for spread in SPREADS:
            # Covariance spread^2 I + COEFFICIENT_DEVIATION^2 probes probes^T, inverted by Sherman and Morrison.
            weight = COEFFICIENT_DEVIATION**2 / spread**2
            explained = weight * float(probes @ residuals) ** 2 / (1 + weight * probe_squares)
            squares = (float(residuals @ residuals) - explained) / spread**2
            log_determinant = freedom * math.log(spread**2) + math.log1p(weight * probe_squares)
            log_likelihoods.append(-(log_determinant + squares) / 2)
        return self._posterior(log_likelihoods)

    def _posterior(self, log_likelihoods: Sequence[float]) -> Belief:
        """Bayes' rule; rounding makes no spread impossible."""
        if not all(map(math.isfinite, log_likelihoods)):
            return self
        likelihoods = np.exp(np.array(log_likelihoods) - max(log_likelihoods))
        weights = np.maximum(likelihoods * self.probabilities, _MIN_PROBABILITY)
        return Belief(tuple(float(weight) for weight in weights / weights.sum()))


PRIOR = Belief((0.10, 0.40, 0.476, 0.02, 0.003, 0.0008, 0.0002))
"""The belief about a machine without stored sessions: 1 or 2 %, rarely 4, hardly ever more.

Chosen on sessions of one virtual machine, of 23 and 24 November 2026 (benchmarks/verdicts: before.jsonl and
one_thread.jsonl): beyond what probes and handovers explain, items moved by 0.9 to 3 % there, and one, which waits for
memory, by 5 %. Of 14 figures of machines with an H200 13 lay within 1.6 % of the stored ones, one 3 % off
(benchmarks/gpu/h200.md): a spread of 0.8 %. The two largest were added after the first ten sessions of another virtual
machine (sessions.jsonl), where one item moved by 40 %; error rates are stated from that machine's later sessions.
"""


def process_spread(items: Sequence[Sequence[Level]]) -> Spread:
    """How far processes of the same code lie apart, pooled over items that each have several sessions or sides.

    The items of a run share its minutes, so the freedom is only the smallest item's. The variance is at least
    MIN_VARIANCE.
    """
    variance = float(np.mean([_pooled([side.processes for side in sides]) for sides in items]))
    freedom = min(max(len(side.processes) for side in sides) - 1 for sides in items)
    return Spread(max(variance, MIN_VARIANCE), max(freedom, 1))


def _centred(groups: Sequence[Sequence[float]]) -> npt.NDArray[np.float64]:
    """Differences from their own group's mean, of all groups."""
    return np.concatenate([np.array(group) - np.mean(group) for group in groups])


def _pooled(groups: Sequence[Sequence[float]]) -> float:
    """The variance of values around their own group's mean, over all groups; 0 where no group has two."""
    squares = sum(float(np.var(group)) * len(group) for group in groups)
    freedom = sum(len(group) - 1 for group in groups)
    return squares / freedom if freedom else 0.0
