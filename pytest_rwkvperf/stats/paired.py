"""A/B: two environments measured in alternation. The pair of processes is the unit, and what slows both cancels out."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from pytest_rwkvperf.core.errors import MeasurementError
from pytest_rwkvperf.stats.verdicts import ALPHA, MEAN_SHARE, Comparison, Rule, conclude, student, with_mean

if TYPE_CHECKING:
    from collections.abc import Sequence

LOOKS = (4, 6, 8, 12, 16, 20)
"""Numbers of pairs after which the verdict is looked at. Each look of an item gets ALPHA / (items x looks): by
Bonferroni's inequality the chance that any look errs stays under ALPHA / items, however the looks depend on each other
and whatever decides which of them is the last: another item of the case, or the budget (Jennison and Turnbull, Group
Sequential Methods, 2000, chapter 2, shows what unadjusted looks would cost). All are even, so that each side has been
the first of its pair equally often."""

MIN_PAIRS = LOOKS[0]
MAX_PAIRS = LOOKS[-1]


TRIMMED_SHARE = 1 / 4
"""Of the differences in a pair, at either end: what hit one of two neighbours in time alone. On recorded pairs of the
same code the middle half's mean lay within 1.6 % from pair to pair where the mean of all lay within 2.5 %
(benchmarks/ab)."""


@dataclass(frozen=True, slots=True)
class PairRatio:
    """Logarithms of new over old throughput in one pair: of most of it, and of all of it."""

    most: float
    whole: float


def pair_ratio(new: Sequence[float], old: Sequence[float]) -> PairRatio:
    """What one pair says, from times in any unit, those of the same place in both being neighbours in time.

    In the order old new new old a drift that is linear over the four cancels exactly; the mean over such blocks of the
    difference of logarithms keeps that. Of most of it: the mean of the middle half of the differences (trimmed mean;
    Huber, Robust Statistics, 1981, section 3.3), which a neighbour that falls on single ones does not move.

    Raises:
        MeasurementError: uneven, empty or unusable times.
    """
    if len(new) != len(old) or not len(new):
        raise MeasurementError(f"a pair of {len(new)} and {len(old)} samples; measure again")
    times = np.array([new, old], dtype=np.float64)
    if not (np.isfinite(times).all() and (times > 0).all()):
        raise MeasurementError("a time that is not finite and positive; measure again")
    differences = np.sort(np.log(times[1]) - np.log(times[0]))
    trimmed = int(TRIMMED_SHARE * differences.size)
    most = differences[trimmed : differences.size - trimmed]
    return PairRatio(float(np.mean(most)), float(np.mean(differences)))


def compare_pairs(ratios: Sequence[PairRatio], tolerance: float, items: int) -> Comparison:
    """Judge pairs by Student's one-sided bounds on the mean log-ratio, at ALPHA / (items x number of looks).

    Most of that error rate goes to most of each pair, MEAN_SHARE to all of it, where a slowdown of single repetitions
    or tokens shows (the tail).

    Raises:
        MeasurementError: no pairs.
    """
    if not len(ratios):
        raise MeasurementError("no pairs; measure again")
    alpha = ALPHA / items
    most, whole = (
        _concluded([getattr(one, name) for one in ratios], Rule(tolerance, alpha, alpha / len(LOOKS) * share))
        for name, share in (("most", 1 - MEAN_SHARE), ("whole", MEAN_SHARE))
    )
    return replace(with_mean(most, whole), paired=True)


def _concluded(log_ratios: Sequence[float], rule: Rule) -> Comparison:
    count = len(log_ratios)
    error = float(np.std(log_ratios, ddof=1)) / math.sqrt(count) if count > 1 else math.inf
    return conclude(float(np.mean(log_ratios)), student(error, max(count - 1, 1)), rule)
