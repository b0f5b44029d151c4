"""How far a session's level moves on one machine while nothing changes: noise that no repetition averages out.

Machines differ in this more than workloads do: one that nobody else uses moves by less than 1 %, neighbours' use of the
cache can cost another 5 %. So it is no single figure but a belief, the chance of each of a few spreads, which stored
sessions and A/A runs sharpen. A machine that shows itself to be quiet gets narrow bounds, a restless one wide ones.
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
"""Standard deviations of a session's log level, beyond what probes and hand-overs account for, that are held possible.
Steps of two: what lies between is a mixture of its neighbours."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Evidence: a variance of log levels, and how many observations it is worth (degrees of freedom)."""

    variance: float
    freedom: float


@dataclass(frozen=True, slots=True)
class Belief:
    """The chance of each of SPREADS; they add up to 1."""

    chances: tuple[float, ...]

    @property
    def variance(self) -> float:
        """What is expected of the variance."""
        return sum(chance * spread**2 for chance, spread in zip(self.chances, SPREADS, strict=True))

    def after(self, seen: Spread) -> Belief:
        """The belief once this has been seen: Bayes' rule with the likelihood of normal levels.

        The variance of `freedom` degrees is a scaled chi-squared one (Gelman et al., Bayesian Data Analysis, 3rd
        edition, section 2.6).
        """
        return self._weighed(
            [-seen.freedom * (math.log(spread) + seen.variance / (2 * spread**2)) for spread in SPREADS]
        )

    def after_sessions(self, groups: Sequence[Sequence[Level]]) -> Belief:
        """The belief once stored sessions have been seen, grouped by software version.

        Levels are normal around their version's own, which may be anything, and follow the machine's probe by a
        coefficient that is integrated out: what the probes explain is no spread, whatever the coefficient (the
        marginal likelihood of a linear model with known variance: Bayesian Data Analysis, section 14.8). What chance
        within sessions adds counts as spread between them: three processes tell it too badly to be taken off.
        """
        several = [group for group in groups if len(group) > 1]
        count = sum(len(group) - 1 for group in several)
        if not count:
            return self
        levels = _centred([[one.value for one in group] for group in several])
        known = all(one.probe is not None for group in several for one in group)
        probes = _centred([[one.probe or 0.0 for one in group] for group in several]) if known else 0 * levels
        left, moved = levels - FOLLOWED * probes, float(probes @ probes)
        logarithms = []
        for spread in SPREADS:
            variance = spread**2
            doubt = FOLLOWED_DOUBT**2 / variance
            explained = doubt * float(probes @ left) ** 2 / (1 + doubt * moved)
            squares = (float(left @ left) - explained) / variance
            logarithms.append(-(count * math.log(variance) + math.log1p(doubt * moved) + squares) / 2)
        return self._weighed(logarithms)

    def _weighed(self, logarithms: Sequence[float]) -> Belief:
        """By likelihoods; nothing is ever held impossible by rounding."""
        if not all(map(math.isfinite, logarithms)):
            return self
        likelihoods = np.exp(np.array(logarithms) - max(logarithms))
        weights = np.maximum(likelihoods * self.chances, _LEAST_CHANCE)
        return Belief(tuple(float(one) for one in weights / weights.sum()))


FOLLOWED = 0.5
FOLLOWED_DOUBT = 0.5
"""How far times follow a probe before anything is known of it, a normal belief: between not at all and wholly."""

_LEAST_CHANCE = 1e-300

ASSUMED = Belief((0.10, 0.40, 0.476, 0.02, 0.003, 0.0008, 0.0002))
"""What is believed of a machine before its sessions have shown it: 1 or 2 %, rarely 4, hardly ever more.

Chosen on sessions of one virtual machine, of 23 and 24 November 2026 (benchmarks/verdicts: before.jsonl and
one_thread.jsonl): beyond what probes and hand-overs explain, items moved by 0.9 to 3 % there, and one, which waits for
memory, by 5 %. Of 14 figures of machines with an H200 13 lay within 1.6 % of the stored ones, one 3 % off
(benchmarks/gpu/h200.md): a spread of 0.8 %. The two largest are there since the first ten sessions of another virtual
machine (sessions.jsonl), where one item moved by 40 %. What all this leads to is told from that machine's later ones.
"""


def process_spread(items: Sequence[Sequence[Level]]) -> Spread:
    """How far processes of the same code lie apart, pooled over items of several sessions or sides each.

    The items of a run share its minutes, so they count as one: the freedom is the smallest item's. Never below a
    thousandth, which no machine's clock and scheduler stay under.
    """
    variance = float(np.mean([_pooled([one.processes for one in sides]).variance for sides in items]))
    freedom = min(max(len(one.processes) for one in sides) - 1 for sides in items)
    return Spread(max(variance, 1e-6), max(freedom, 1))


def _centred(groups: Sequence[Sequence[float]]) -> npt.NDArray[np.float64]:
    """Differences from their own group's mean, of all groups."""
    return np.concatenate([np.array(group) - np.mean(group) for group in groups])


def _pooled(groups: Sequence[Sequence[float]]) -> Spread:
    """The variance of values around their own group's mean, over all groups; 0 where no group has two."""
    squares = sum(float(np.var(group)) * len(group) for group in groups)
    freedom = sum(len(group) - 1 for group in groups)
    return Spread(squares / freedom if freedom else 0.0, freedom)
