"""A/B: two environments measured in alternation. The pair of processes is the unit, and what slows both cancels out."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from pytest_rwkvperf.errors import MeasurementError
from pytest_rwkvperf.stats.verdicts import ALPHA, Comparison, Rule, conclude, student

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


def pair_ratio(new: Sequence[float], old: Sequence[float]) -> float:
    """The logarithm of new over old throughput in one pair, from times in any unit in order of taking.

    In the order old new new old a drift that is linear over the four cancels exactly; the mean over such blocks of the
    difference of logarithms keeps that.

    Raises:
        MeasurementError: uneven, empty or unusable times.
    """
    if len(new) != len(old) or not len(new):
        raise MeasurementError(f"a pair of {len(new)} and {len(old)} samples; measure again")
    times = np.array([new, old], dtype=np.float64)
    if not (np.isfinite(times).all() and (times > 0).all()):
        raise MeasurementError("a time that is not finite and positive; measure again")
    return float(np.mean(np.log(times[1]) - np.log(times[0])))


def compare_pairs(log_ratios: Sequence[float], tolerance: float, items: int) -> Comparison:
    """Judge pairs by Student's one-sided bounds on the mean log-ratio, at ALPHA / (items x number of looks).

    Raises:
        MeasurementError: no pairs.
    """
    if not len(log_ratios):
        raise MeasurementError("no pairs; measure again")
    count = len(log_ratios)
    error = float(np.std(log_ratios, ddof=1)) / math.sqrt(count) if count > 1 else math.inf
    alpha = ALPHA / items
    rule = Rule(tolerance, alpha, alpha / len(LOOKS))
    return replace(conclude(float(np.mean(log_ratios)), student(error, max(count - 1, 1)), rule), paired=True)
