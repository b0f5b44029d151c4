"""How far a session's level moves on one machine while nothing changes: noise that no repetition averages out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_rwkvperf.stats.levels import Level


@dataclass(frozen=True, slots=True)
class Spread:
    """A variance of log levels, and how many observations it is worth (degrees of freedom)."""

    variance: float
    freedom: float


PRIOR = Spread(0.02**2, 20)
"""What is assumed of a machine before its sessions have shown it: 2 %, worth twenty sessions, beyond what probes and
hand-overs account for. Chosen on the sessions of a virtual machine that benchmarks/verdicts recorded first; what it
leads to is told from those recorded after. Without probes and hand-overs 3 % called unchanged code slower there in 15 %
of all runs (`before.jsonl`). Of 14 figures of machines with an H200 13 lay within 1.6 % of the stored ones and one 3 %
off (benchmarks/gpu/h200.md), which is a spread of 0.8 %."""


def session_spread(sessions: Sequence[Sequence[Level]], prior: Spread = PRIOR, coefficient: float = 0.0) -> Spread:
    """The variance of a session's level around its software version's own; `sessions` are grouped by version.

    What their probes account for, with drift's `coefficient`, is no part of it.

    The prior and the sessions are pooled as a scaled inverse chi-squared prior and normal data are (Gelman et al.,
    Bayesian Data Analysis, 3rd edition, section 2.6; Smyth, Statistical Applications in Genetics 3, 2004, for doing so
    with few observations).
    """
    seen = _pooled([[one.value - coefficient * (one.probe or 0.0) for one in group] for group in sessions])
    freedom = prior.freedom + seen.freedom
    return Spread((prior.variance * prior.freedom + seen.variance * seen.freedom) / freedom, freedom)


def process_spread(items: Sequence[Sequence[Level]]) -> Spread:
    """How far processes of the same code lie apart, pooled over items of several sessions or sides each.

    The items of a run share its minutes, so they count as one: the freedom is the smallest item's. Never below a
    thousandth, which no machine's clock and scheduler stay under.
    """
    variance = float(np.mean([_pooled([one.processes for one in sides]).variance for sides in items]))
    freedom = min(max(len(one.processes) for one in sides) - 1 for sides in items)
    return Spread(max(variance, 1e-6), max(freedom, 1))


def _pooled(groups: Sequence[Sequence[float]]) -> Spread:
    """The variance of values around their own group's mean, over all groups; 0 where no group has two."""
    squares = sum(float(np.var(group)) * len(group) for group in groups)
    freedom = sum(len(group) - 1 for group in groups)
    return Spread(squares / freedom if freedom else 0.0, freedom)
