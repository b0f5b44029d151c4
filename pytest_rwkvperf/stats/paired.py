"""A/B: two environments measured in alternation. The unit is the pair of processes, and what slows both cancels."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from pytest_rwkvperf.core.errors import MeasurementError
from pytest_rwkvperf.stats.verdicts import (
    DEFAULT_RATES,
    Comparison,
    ErrorDistribution,
    ErrorRates,
    Rule,
    compare_log_ratio,
    student,
    with_mean,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

LOOKS = (4, 6, 8, 12, 16, 20)
"""Numbers of pairs after which the verdict is looked at. Each look gets an equal part of an item's error rates: by
Bonferroni's inequality the probability that any look errs stays under the whole, however the looks depend on each other
and whatever decides which of them is the last: another item of the case, or the budget (Jennison and Turnbull,
Group Sequential Methods, 2000, chapter 2, shows what unadjusted looks would cost). All are even, so that each side has
been the first of its pair equally often."""

MIN_PAIRS = LOOKS[0]

TRIMMED_SHARE = 1 / 4
"""Share of a pair's differences dropped at either end: those where a disturbance hit one of two neighbours alone. On
recorded pairs of the same code the trimmed mean varied by 1.6 % from pair to pair, the mean of all by 2.5 %
(benchmarks/ab)."""


@dataclass(frozen=True, slots=True)
class PairRatio:
    """The log of new over old throughput in one pair: the trimmed mean and the mean of its differences."""

    trimmed: float
    mean: float


def pair_ratio(new: Sequence[float], old: Sequence[float]) -> PairRatio:
    """The log-ratio of one pair of processes, from times in any unit; the same index was measured side by side.

    In the order old new new old a drift that is linear over the four cancels exactly, and the mean over such blocks of
    the difference of logarithms keeps that. The trimmed mean (Huber, Robust Statistics, 1981, section 3.3) does not
    move with a disturbance of single repetitions.

    Raises:
        MeasurementError: uneven, empty or unusable times.
    """
    if len(new) != len(old) or not len(new):
        raise MeasurementError(f"a pair of {len(new)} and {len(old)} samples; measure again")
    times = np.array([new, old], dtype=np.float64)
    if not (np.isfinite(times).all() and (times > 0).all()):
        raise MeasurementError("a time that is not finite and positive; measure again")
    differences = np.sort(np.log(times[1]) - np.log(times[0]))
    dropped = int(TRIMMED_SHARE * differences.size)
    middle = differences[dropped : differences.size - dropped]
    return PairRatio(float(np.mean(middle)), float(np.mean(differences)))


def compare_pairs(
    ratios: Sequence[PairRatio], tolerance: float, items: int, *, rates: ErrorRates = DEFAULT_RATES
) -> Comparison:
    """Compare by Student's one-sided bounds on the mean log-ratio of the pairs, at a look's part of `rates`.

    Of the rate of false alarms MEAN_SHARE goes to the pairs' means, which show a slowdown of single repetitions or
    tokens, and the rest to their trimmed means.

    Raises:
        MeasurementError: no pairs.
    """
    if not len(ratios):
        raise MeasurementError("no pairs; measure again")
    rule = Rule.of(tolerance, items, rates, 1 / len(LOOKS))
    trimmed = _compare([pair.trimmed for pair in ratios], rule)
    mean = _compare([pair.mean for pair in ratios], rule.for_mean())
    return replace(with_mean(trimmed, mean), paired=True)


def _compare(log_ratios: Sequence[float], rule: Rule) -> Comparison:
    return compare_log_ratio(float(np.mean(log_ratios)), _error(np.array(log_ratios)), rule)


def _error(log_ratios: npt.NDArray[np.float64]) -> ErrorDistribution:
    """The distribution of the mean's error, without the effect of which side was opened first.

    On some machines the side that is opened second is faster by several percent in every pair. The sides take turns, so
    the mean over an even number of pairs has no such bias, but the effect would count as scatter. It is estimated and
    taken out, at the price of one degree of freedom, as in a crossover of two periods (Jones and Kenward, Design and
    Analysis of Cross-Over Trials, 2014, chapter 2).
    """
    count = len(log_ratios)
    if count < MIN_PAIRS:
        return student(math.inf, 1)
    order = np.where(np.arange(count) % 2 == 0, 1.0, -1.0)
    design = np.stack([np.ones(count), order])
    left = log_ratios - np.linalg.lstsq(design.T, log_ratios, rcond=None)[0] @ design
    freedom = count - len(design)
    return student(math.sqrt(float(left @ left) / freedom / count), freedom)
