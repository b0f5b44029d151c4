"""The verdict on one item: the log-ratio of two sets of processes, with a stated chance of being wrong."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
from scipy.optimize import brentq
from scipy.special import stdtr, stdtrit

from pytest_rwkvperf.core.errors import MeasurementError
from pytest_rwkvperf.stats.drift import drift
from pytest_rwkvperf.stats.levels import Statistic, Timed, alike, level, standing
from pytest_rwkvperf.stats.spread import ASSUMED, SPREADS, Belief, Spread

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Verdict = Literal["PASS", "REGRESSION", "IMPROVEMENT", "INCONCLUSIVE", "NO-BASELINE", "INVALID"]

ALPHA = 0.01
"""Chance that a whole run of unchanged code is called a regression; each of its m items gets ALPHA / m."""

POWER = 0.95
"""Share of the cases in which the smallest detectable slowdown is found."""

MOST_SESSIONS = 10
"""A baseline keeps no more of a case."""

IDLE_SHARE = 0.03
"""Of the processor time that a case wants: what a quiet system's own services may take."""

CROWDED_SHARE = 0.10
"""Beyond this a session is too crowded for any verdict."""

MAX_EXPONENT = 700.0
"""The exponential function of more leaves the range of floats."""

_AS_GOOD_AS_NORMAL = 1e6
"""Degrees of freedom beyond which Student's distribution is the normal one to all digits that are printed."""

_LEAST_DOUBT = 1e-30

_EXACT = 1e-9
"""Of a bound's logarithm: far finer than what is printed."""

_A_LITTLE_MORE = 1 + 1e-9
"""So that rounding leaves the root of a single component inside its bracket."""


LOOKS = (3, 6, 12)
"""Numbers of processes after which a run that compares looks at its verdicts, and may end early by them. Each look may
use LOOK_SHARE of an item's error rate and the end the rest: by Bonferroni's inequality the chance that any errs stays
under the whole (Jennison and Turnbull, Group Sequential Methods, 2000, chapter 2, shows what unpaid looks would cost).
"""

LOOK_SHARE = 1 / 8

MEAN_SHARE = 1 / 4
"""Of a look's error rate, for the second question: whether all repetitions together got slower where the fast ones did
not."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """New over old tokens per second with one-sided bounds, each wrong with probability `alpha`.

    `low` is 0 and `high` None (null in JSON) where there is no bound. `detectable` is the smallest slowdown, as a share
    of the time, that such a comparison calls a REGRESSION in POWER of all cases; None where no slowdown is. `drift` is
    the part of the new log time that the probes account for. `settled_by` is the number of baseline sessions with which
    this ratio would have had another verdict than INCONCLUSIVE; None where no number would, or where it has another.
    `paired` says that two environments were measured in alternation (A/B).
    """

    ratio: float
    low: float
    high: float | None
    tolerance: float
    alpha: float
    detectable: float | None
    drift: float = 0.0
    settled_by: int | None = None
    paired: bool = False
    mean: MeanRatio | None = None

    @property
    def verdict(self) -> Verdict:
        """What the bounds allow, or REGRESSION where the mean of all repetitions regressed."""
        return "REGRESSION" if self.mean and self.mean.regression else classify(self.low, self.high, self.tolerance)

    @property
    def only_mean_regressed(self) -> bool:
        """Whether it is a REGRESSION by the mean of all repetitions alone: some of them got slower, not most."""
        return self.verdict == "REGRESSION" != classify(self.low, self.high, self.tolerance)


@dataclass(frozen=True, slots=True)
class MeanRatio:
    """The ratio of the means of all repetitions; only its `regression` counts. `high` is None where it is unbounded."""

    ratio: float
    low: float
    high: float | None
    regression: bool


@dataclass(frozen=True, slots=True)
class Old:
    """What new times are held against: the reference's sessions, and what else is known of this machine's noise.

    `others` are the sessions of other software versions, grouped by version; `belief` is what is assumed of this
    machine, or what an A/A run has made of that.
    """

    sessions: Sequence[Timed]
    others: Sequence[Sequence[Timed]] = ()
    belief: Belief = ASSUMED


def compare(new: Timed, old: Old, tolerance: float, items: int, *, early: bool = False) -> Comparison:
    """Judge a new session against the reference's at ALPHA / items; `early` at a look, else at the end.

    A bound on the difference of log levels. Its variance is the session-to-session spread, once for the new session and
    once shared by the k old ones, plus what chance did within each of them.

    Raises:
        MeasurementError: times that carry no figure.
    """
    if not old.sessions:
        raise MeasurementError("no session to compare with; store one")
    alpha = ALPHA / items
    share = LOOK_SHARE if early else 1 - LOOK_SHARE * len(LOOKS)
    rule = Rule(tolerance, alpha, alpha * share * (1 - MEAN_SHARE))
    noise, slow = _noise(new, old, "fast"), _noise(new, old, "mean")
    fast = noise.conclude(noise.sessions, rule)
    mean = slow.conclude(slow.sessions, replace(rule, alpha_of_look=alpha * share * MEAN_SHARE))
    comparison = replace(with_mean(fast, mean), drift=noise.drift)
    settled = _settled_by(noise, rule) if comparison.verdict == "INCONCLUSIVE" else None
    return replace(comparison, settled_by=settled)


def with_mean(comparison: Comparison, of_mean: Comparison) -> Comparison:
    """The comparison with that of the means of all repetitions, of which only a REGRESSION counts."""
    mean = MeanRatio(of_mean.ratio, of_mean.low, of_mean.high, of_mean.verdict == "REGRESSION")
    return replace(comparison, mean=mean)


def machine_slowdown(new: Timed, old: Old) -> float:
    """The log of how much slower the probes were than in the stored sessions, beyond the drift; negative: faster."""
    return _noise(new, old, "fast").slower


@dataclass(frozen=True, slots=True)
class _Noise:
    """A log-ratio and what it is uncertain by.

    `own` and `theirs` are the variances that chance within the new and within an old session adds, with their degrees
    of freedom; `excuse` is what others' work could have cost at most, on the log scale: both bounds are wider by it.
    By `slower`, the log of how much slower the probes were, only the upper one is; the lower one where it is negative.
    """

    centre: float
    belief: Belief
    own: tuple[float, int]
    theirs: tuple[float, int]
    sessions: int
    drift: float
    excuse: float
    slower: float

    def conclude(self, sessions: int, rule: Rule) -> Comparison:
        """With so many old sessions, of which further ones would lie apart as is believed now."""
        belief = self.belief.after(Spread(self.belief.variance, sessions - self.sessions))
        parts = (self.own, (self.theirs[0] / sessions, self.theirs[1] * sessions / self.sessions))
        return conclude(self.centre, _mixture(belief, 1 + 1 / sessions, parts), rule, self.excuse, self.slower)


def _mixture(belief: Belief, times: float, parts: Sequence[tuple[float, float]]) -> Callable[[float], float]:
    """The upper quantile, by its tail, of a difference of levels whose spread is one of several, each with its chance.

    Given the spread, the difference is Student's: `times` the spread's variance, which is then known, and `parts`,
    variances of chance within sessions with their degrees of freedom, put together by Satterthwaite's formula
    (Biometrics Bulletin 2, 1946).
    """
    chances = np.array(belief.chances)
    variances = np.array([spread**2 * times for spread in SPREADS]) + sum(part for part, _ in parts)
    doubt = sum(part**2 / free for part, free in parts)
    if not math.isfinite(doubt):
        return lambda _tail: math.inf
    freedoms = np.minimum(variances**2 / max(doubt, _LEAST_DOUBT), _AS_GOOD_AS_NORMAL)
    errors = np.sqrt(variances)

    def beyond(reach: float) -> float:
        return float(chances @ stdtr(freedoms, -reach / errors))

    def quantile(tail: float) -> float:
        most = float(np.max(-stdtrit(freedoms, tail) * errors))
        return float(brentq(lambda reach: beyond(reach) - tail, 0.0, most * _A_LITTLE_MORE, xtol=_EXACT))

    return quantile


def calm(sessions: Sequence[Timed]) -> Sequence[Timed]:
    """Those that were not crowded; all where none was calm."""
    return [one for one in sessions if one.foreign <= CROWDED_SHARE] or sessions


def comparable(new: Timed, sessions: Sequence[Timed]) -> Sequence[Timed]:
    """The calm sessions whose processors stood as the new one's; none where all stood otherwise."""
    return [one for one in calm(sessions) if alike(new, one)]


def _noise(new: Timed, old: Old, statistic: Statistic) -> _Noise:
    level_new = level(standing(new), statistic)
    same = comparable(new, old.sessions)
    reference = same or calm(old.sessions)
    levels = [level(standing(one), statistic) for one in reference]
    # The spread is what is left of the differences between sessions that can be compared.
    groups = [group for one in old.others if (group := comparable(new, one))]
    others = [[level(standing(one), statistic) for one in group] for group in groups]
    belief = old.belief.after_sessions([levels, *others])
    moved = drift(level_new, levels, belief)
    centre = float(np.mean([one.value for one in levels])) - (level_new.value - moved.shift)
    excuse = _excuse(new) + max(map(_excuse, reference)) if same else math.inf
    own = (level_new.error**2 + moved.variance, max(1, len(level_new.processes) - 1))
    theirs = (float(np.mean([one.error**2 for one in levels])), max(1, sum(len(one.processes) - 1 for one in levels)))
    return _Noise(centre, belief, own, theirs, len(levels), moved.shift, excuse, moved.left)


def _excuse(timed: Timed) -> float:
    """What other processes could have cost a session, log of a factor of its time.

    With a share f of what its threads want taken, each gets 1 - f of its time, and a step that waits for all of them
    as often waits for the last: 1 / (1 - f)^2. Shares up to IDLE_SHARE are any system's own; beyond CROWDED_SHARE
    recorded sessions were slower still (benchmarks/verdicts), so no verdict rests on those.
    """
    if timed.foreign > CROWDED_SHARE:
        return math.inf
    return -2 * math.log1p(-timed.foreign) if timed.foreign > IDLE_SHARE else 0.0


def _settled_by(noise: _Noise, rule: Rule) -> int | None:
    """The smallest number of sessions, up to MOST_SESSIONS, that would bring a verdict if the ratio stayed."""
    more = range(noise.sessions + 1, MOST_SESSIONS + 1)
    if not more or noise.conclude(MOST_SESSIONS, rule).verdict == "INCONCLUSIVE":
        return None
    return next(one for one in more if noise.conclude(one, rule).verdict != "INCONCLUSIVE")


@dataclass(frozen=True, slots=True)
class Rule:
    """What a comparison is held against: the tolerance, the error rate stated, and the part of it this look may use."""

    tolerance: float
    alpha: float
    alpha_of_look: float


def conclude(
    centre: float, quantile: Callable[[float], float], rule: Rule, excuse: float = 0.0, slower: float = 0.0
) -> Comparison:
    """The verdict on a log-ratio whose error has these upper quantiles, by their tails.

    Both bounds are wider by `excuse`, the upper one by `slower` too, the lower one where that is negative. The smallest
    detectable slowdown s solves log(1 + s) = log(1 + tolerance) + excuse + slower + q_alpha + q_power: the
    normal-theory formula (Cohen, Statistical Power Analysis, 1988, section 2.4) with the error's own quantiles.
    """
    reach, power_reach = (quantile(tail) for tail in (rule.alpha_of_look, 1 - POWER))
    reach += excuse
    low, high = _exp(centre - reach + min(0.0, slower)), _exp(centre + reach + max(0.0, slower))
    factor = _exp(reach + max(0.0, slower) + power_reach)
    detectable = None if factor is None else (1 + rule.tolerance) * factor - 1
    return Comparison(math.exp(centre), low or 0.0, high, rule.tolerance, rule.alpha, detectable)


def student(error: float, freedom: float) -> Callable[[float], float]:
    """The upper quantiles of Student's distribution, scaled by a standard error."""
    return lambda tail: -float(stdtrit(freedom, tail)) * error


def _exp(power: float) -> float | None:
    """None and 0 where floats end, alike at both ends: a bound turned over is the other bound."""
    if abs(power) >= MAX_EXPONENT:
        return None if power > 0 else 0.0
    return math.exp(power)


def classify(low: float, high: float | None, tolerance: float) -> Verdict:
    """The verdict that one-sided bounds on the ratio allow; `high` is None where there is no upper bound."""
    floor, ceiling = 1 / (1 + tolerance), 1 + tolerance
    if high is not None and high < floor:
        return "REGRESSION"
    if low > ceiling:
        return "IMPROVEMENT"
    if low > floor:
        return "PASS"
    return "INCONCLUSIVE"
