"""Comparing what was measured in alternation: what slows both sides cancels.

In A/B the sides are two environments, and the unit is the pair of processes. Of two workloads of the same processes the
unit is the process.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from pytest_rwkvperf.core.errors import MeasurementError
from pytest_rwkvperf.stats.estimates import Rate, RateStatistic, rate_of
from pytest_rwkvperf.stats.shrinkage import PROCESS_PRIOR, error_of_mean
from pytest_rwkvperf.stats.verdicts import (
    DEFAULT_RATES,
    Comparison,
    ErrorDistribution,
    ErrorRates,
    Rule,
    compare_log_ratio,
    error_share,
    student,
    with_mean,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

LOOKS = (4, 6, 8, 10, 12, 16, 20, 28, 40)
"""Numbers of pairs after which the verdict is looked at. Each look gets an equal part of an item's error rates: by
Bonferroni's inequality the probability that any look errs stays under the whole, however the looks depend on each other
and whatever decides which of them is the last: another item of the case, or the budget (Jennison and Turnbull,
Group Sequential Methods, 2000, chapter 2, shows what unadjusted looks would cost). All are even, so that each side has
been the first of its pair equally often."""

MIN_PAIRS = LOOKS[0]

_MANY_BLOCKS = 1000
"""What `best_blocks` gives where more blocks are always worth their cost."""

FAST_SHARE = 1 / 4
"""Share of a side's repetitions or tokens in a pair, the fastest, that its level is the mean of. A disturbance makes a
time longer, never shorter, and hits one side or the other: between pairs of one code on a virtual machine with busy
neighbours the ratio of these levels varied half as much as the mean of the middle half of the differences between
neighbours in time (benchmarks/ab)."""

TRIMMED_PAIRS = 0.15
"""Share of the pairs that is left out at either end, from TRIMMED_FROM pairs on (benchmarks/ab/levels.md compares the
trimmed mean with that of all)."""

TRIMMED_FROM = 12
"""With fewer pairs the degrees of freedom that trimming costs weigh more than what it gains."""

_PARAMETERS = 2
"""How many parameters are estimated of the pairs: their mean and the effect of the order."""


@dataclass(frozen=True, slots=True)
class Costs:
    """Seconds: of a pair before its first sample, and of a block of samples."""

    pair: float
    block: float


def best_blocks(differences: Sequence[Sequence[float]], costs: Costs) -> int:
    """The number of blocks in a pair that costs least for the same precision of the mean over pairs.

    The square root of (pair's cost / block's cost) times (variance of blocks within a pair / variance of pairs beyond
    it): Kalibera and Jones, Rigorous Benchmarking in Reasonable Time, 2013, section 6.2. Very large where pairs differ
    by no more than their blocks do; the caller bounds it. With one block in each pair the two variances cannot be told
    apart, and the repetitions decide nothing: 2.
    """
    blocks = np.array([len(row) for row in differences])
    if blocks.max() < 2:  # noqa: PLR2004 - a variance needs two
        return 2
    several = [row for row in differences if len(row) > 1]
    within = float(np.mean([np.var(row, ddof=1) for row in several]))
    of_means = _residual_variance(np.array([float(np.mean(row)) for row in differences]))
    between = of_means - within * float(np.mean(1 / blocks))
    if between <= 0:
        return _MANY_BLOCKS
    return max(1, min(_MANY_BLOCKS, round(math.sqrt(costs.pair / costs.block * within / between))))


@dataclass(frozen=True, slots=True)
class PairRatio:
    """The log of new over old throughput in one pair: of the sides' fast levels, and of their means."""

    fast: float
    mean: float


def pair_ratio(new: Sequence[float], old: Sequence[float]) -> PairRatio:
    """The log-ratio of one pair of processes, from times in any unit; the same index was measured side by side.

    In the order old new new old a drift that is linear over the four cancels exactly in the means of the logarithms.

    Raises:
        MeasurementError: uneven, empty or unusable times.
    """
    if len(new) != len(old) or not len(new):
        raise MeasurementError(f"a pair of {len(new)} and {len(old)} samples; measure again")
    logs = _logs(new, old)
    fast, whole = (np.mean(_fastest(logs, share), axis=1) for share in (FAST_SHARE, 1.0))
    return PairRatio(float(fast[1] - fast[0]), float(whole[1] - whole[0]))


def _logs(new: Sequence[float], old: Sequence[float]) -> npt.NDArray[np.float64]:
    times = np.array([new, old], dtype=np.float64)
    if not (np.isfinite(times).all() and (times > 0).all()):
        raise MeasurementError("a time that is not finite and positive; measure again")
    return np.log(times)


def _fastest(logs: npt.NDArray[np.float64], share: float) -> npt.NDArray[np.float64]:
    """The fastest share of each side's times, at least one."""
    return np.sort(logs, axis=1)[:, : max(1, math.ceil(share * logs.shape[1]))]


def compared_rates(
    pairs: Sequence[tuple[Sequence[float], Sequence[float]]], comparison: Comparison, tokens: int
) -> tuple[Rate, Rate]:
    """New and old tokens per second of the statistic that decided: their quotient is the ratio of `deciding`.

    They are geometric means over the same times as the ratio; `tokens` is how many tokens each time is of.
    """
    whole = comparison.only_mean_regressed
    logs = [_logs(*pair) for pair in pairs]
    levels = np.array([np.mean(_fastest(pair, 1.0 if whole else FAST_SHARE), axis=1) for pair in logs]).T
    count, new_level = len(pairs), float(np.mean(levels[0]))
    variances = [float(np.var(side, ddof=1)) if count > 1 else math.inf for side in levels]
    errors = [error_of_mean(variance, count, PROCESS_PRIOR) for variance in variances]
    new_times, old_times = ([pair[side] for pair in pairs] for side in (0, 1))
    statistic: RateStatistic = "mean" if whole else "fast"
    return (
        rate_of(new_level, errors[0], tokens, new_times, statistic),
        rate_of(new_level + math.log(comparison.deciding.ratio), errors[1], tokens, old_times, statistic),
    )


def compare_pairs(
    ratios: Sequence[PairRatio], tolerance: float, items: int, *, rates: ErrorRates = DEFAULT_RATES
) -> Comparison:
    """Compare by Student's one-sided bounds on the mean log-ratio of the pairs, at a look's part of `rates`.

    Of the rate of false alarms MEAN_SHARE goes to the sides' means, which show a slowdown of single repetitions, tokens
    or processes, and the rest to their fast levels, of which outlying pairs are trimmed.

    Raises:
        MeasurementError: no pairs.
    """
    if not len(ratios):
        raise MeasurementError("no pairs; measure again")
    rule = Rule.of(tolerance, items, rates, 1 / len(LOOKS))
    fast = compare_log_ratio(*_estimate(np.array([pair.fast for pair in ratios])), rule)
    means = np.array([pair.mean for pair in ratios])
    mean = compare_log_ratio(float(np.mean(means)), _error(means), rule.for_mean())
    return replace(with_mean(fast, mean), paired=True)


def _estimate(log_ratios: npt.NDArray[np.float64]) -> tuple[float, ErrorDistribution]:
    """The trimmed mean of the pairs, and the distribution of its error by their Winsorized variance.

    Yuen, The two-sample trimmed t for unequal population variances, Biometrika 61, 1974; for one sample Wilcox,
    Introduction to Robust Estimation and Hypothesis Testing, 2012, section 4.3.1. The effect of which side was opened
    first is taken out with the medians of both kinds of pairs, at the price of one degree of freedom, as in `_error`.
    """
    count = len(log_ratios)
    dropped = int(TRIMMED_PAIRS * count)
    if count < TRIMMED_FROM:
        return float(np.mean(log_ratios)), _error(log_ratios)
    effect = (np.median(log_ratios[::2]) - np.median(log_ratios[1::2])) / 2
    ordered = np.sort(log_ratios - effect * _order(count))
    kept = ordered[dropped : count - dropped]
    variance = float(np.var(np.clip(ordered, kept[0], kept[-1]), ddof=1)) * (count - 1) / (len(kept) - 1)
    return float(np.mean(kept)), student(math.sqrt(variance / len(kept)), len(kept) - _PARAMETERS)


def compare_within(
    ratios: Sequence[PairRatio], tolerance: float, items: int, *, rates: ErrorRates = DEFAULT_RATES, at_look: bool
) -> Comparison:
    """Compare two workloads that the same processes measured in turn; each ratio is of one process.

    As `compare_pairs`, with the looks of a run that compares with stored figures (`verdicts.LOOKS`) and without the
    effect of an order: the workloads of a block stand in a random one.

    Raises:
        MeasurementError: no processes.
    """
    if not len(ratios):
        raise MeasurementError("no process measured both workloads; measure again")
    rule = Rule.of(tolerance, items, rates, error_share(at_look=at_look))
    fast = _compare_mean([ratio.fast for ratio in ratios], rule)
    mean = _compare_mean([ratio.mean for ratio in ratios], rule.for_mean())
    return replace(with_mean(fast, mean), paired=True)


def _compare_mean(log_ratios: Sequence[float], rule: Rule) -> Comparison:
    """Compare by the mean log-ratio and Student's distribution of its error."""
    count = len(log_ratios)
    error = float(np.std(log_ratios, ddof=1)) / math.sqrt(count) if count > 1 else math.inf
    return compare_log_ratio(float(np.mean(log_ratios)), student(error, max(1, count - 1)), rule)


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
    return student(math.sqrt(_residual_variance(log_ratios) / count), count - _PARAMETERS)


def _residual_variance(log_ratios: npt.NDArray[np.float64]) -> float:
    """The pairs' variance around their mean and the effect of the order."""
    count = len(log_ratios)
    design = np.stack([np.ones(count), _order(count)])
    left = log_ratios - np.linalg.lstsq(design.T, log_ratios, rcond=None)[0] @ design
    return float(left @ left) / (count - _PARAMETERS)


def _order(count: int) -> npt.NDArray[np.float64]:
    """1 for pairs in which the old side was opened first, -1 for the others."""
    return np.where(np.arange(count) % 2 == 0, 1.0, -1.0)
