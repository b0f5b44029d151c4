"""Where a verdict is decided: `compare` bounds the ratio of new to stored speed.

`Comparison.verdict` reads the verdict off the bounds: by `classify`, or REGRESSION by the mean.
`verdict/judgement.py` calls `compare` with a run's times and a baseline's; `paired.py` does the same for A/B.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from pytest_rwkvperf.core.errors import MeasurementError
from pytest_rwkvperf.stats.drift import drift
from pytest_rwkvperf.stats.estimates import Rate, rate_of
from pytest_rwkvperf.stats.levels import Level, SessionTimes, Statistic, drop_slow_handovers, level, same_placement
from pytest_rwkvperf.stats.shrinkage import PROCESS_PRIOR, error_of_mean
from pytest_rwkvperf.stats.spread import PRIOR, SPREADS, Belief, Spread

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Verdict = Literal["PASS", "REGRESSION", "IMPROVEMENT", "INCONCLUSIVE", "NO-BASELINE", "INVALID"]

VoidedBy = Literal["", "watched", "gpu"]
"""Why a verdict that the figures allow does not count: a debugger or a coverage tool was active, or the GPU's state."""

Step = Literal["", "identity", "stored", "ab"]
"""What decided: that the software is the same, stored figures, or A/B; empty where nothing did."""

ALPHA = 0.01
"""Probability that a whole run of unchanged code has a REGRESSION, unless `--rwkv-false-alarms` says otherwise; each of
its m items gets ALPHA / m."""

WRONG_PASS = 0.05
"""Probability that an item passes whose slowdown exceeds the tolerance, unless `--rwkv-wrong-pass` says otherwise. It
is each item's own: a wrong PASS of one item and a false alarm of a whole run are different harms."""

POWER = 0.95
"""Probability with which the smallest detectable slowdown is found."""

MAX_SESSIONS = 10
"""The most sessions of a workload that a baseline keeps."""

MIN_CONTENTION = 0.03
"""Share of the processor time a case wants that a quiet system's own services may take."""

MAX_CONTENTION = 0.10
"""Beyond this share taken by other processes a session carries no verdict: recorded sessions were slower there than
`contention_margin` allows (benchmarks/verdicts)."""

LOOKS = (3, 6, 12)
"""Numbers of processes after which a run that compares looks at its verdicts, and may end early by them. Each look may
use LOOK_SHARE of an item's error rate and the end the rest: by Bonferroni's inequality the probability that any errs
stays under the whole (Jennison and Turnbull, Group Sequential Methods, 2000, chapter 2, shows what unadjusted looks
would cost)."""

LOOK_SHARE = 1 / 8
"""Share of an item's error rates that each look may use."""

MEAN_SHARE = 1 / 4
"""Share of a look's error rate that goes to the mean level: whether all repetitions together got slower where the fast
ones did not."""

MAX_EXPONENT = 700.0
"""The exponential function of more leaves the range of floats."""

_BRACKET_SLACK = 1 + 1e-9
"""A factor on the bracket's upper end: with one component, rounding would otherwise put the root outside."""

_ROOT_TOLERANCE = 1e-9
"""Precision of a bound's logarithm: far finer than what is printed."""

_MAX_FREEDOM = 1e6
"""Beyond these degrees of freedom Student's distribution is the normal one to all digits that are printed."""

_TINY = 1e-30
"""Keeps the quotient of two variances finite where the second is 0."""


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


@dataclass(frozen=True, slots=True)
class ErrorRates:
    """How often verdicts may be wrong: a REGRESSION anywhere in a run of unchanged code, a PASS of an item."""

    false_alarms: float = ALPHA
    wrong_pass: float = WRONG_PASS


DEFAULT_RATES = ErrorRates()


@dataclass(frozen=True, slots=True)
class Comparison:
    """New over old tokens per second with one-sided bounds.

    `high` is wrong with probability `alpha`, `low` with probability `wrong_pass` (in records without one: `alpha`).
    `probability_exceeded` is that of a slowdown beyond the tolerance, given these times (a confidence distribution;
    Cox, Annals of Mathematical Statistics 29, 1958); None where nothing bounds it. `low` is 0 and `high` None (null in
    JSON) where there is no bound. `detectable` is the smallest slowdown, as a share of the time, that such a comparison
    calls a REGRESSION with probability POWER; None where no slowdown is. `drift` is the part of the new log time that
    the probes account for. `settled_by` is the number of baseline sessions with which this ratio would have had another
    verdict than INCONCLUSIVE; None where no number would, or where it has another. `paired` says that the repetitions
    were compared side by side: of two environments in alternation (A/B), or of two workloads of the same processes.
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
    wrong_pass: float | None = None
    probability_exceeded: float | None = None

    @property
    def deciding(self) -> Comparison | MeanRatio:
        """The ratio with its bounds that the verdict rests on: of the mean where that alone regressed."""
        return self.mean if self.mean and self.only_mean_regressed else self

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
class StoredSessions:
    """What new times are compared with: stored `sessions` of one software version.

    `other_versions` are the sessions of others, grouped by version, which show this machine's spread. `belief` is what
    is assumed of that spread, after an A/A run if there was one, `process_spread` of that between processes.
    """

    sessions: Sequence[SessionTimes]
    other_versions: Sequence[Sequence[SessionTimes]] = ()
    belief: Belief = PRIOR
    process_spread: Spread = PROCESS_PRIOR


def compare(
    new: SessionTimes,
    stored: StoredSessions,
    tolerance: float,
    items: int,
    *,
    rates: ErrorRates = DEFAULT_RATES,
    at_look: bool = False,
) -> Comparison:
    """Compare a new session with stored ones at `rates`; `at_look` says that it is not the run's end.

    The bounds are on the difference of log levels. Its variance is the spread between sessions, once for the new
    session and once shared by the k stored ones, plus the standard errors within them.

    Raises:
        MeasurementError: no stored session, or unusable times.
    """
    if not stored.sessions:
        raise MeasurementError("no session to compare with; store one")
    rule = Rule.of(tolerance, items, rates, error_share(at_look=at_look))
    fast, mean = _log_ratio(new, stored, "fast"), _log_ratio(new, stored, "mean")
    of_mean = mean.compare(mean.sessions, rule.for_mean())
    comparison = replace(with_mean(fast.compare(fast.sessions, rule), of_mean), drift=fast.drift)
    settled = _settled_by(fast, rule) if comparison.verdict == "INCONCLUSIVE" else None
    return replace(comparison, settled_by=settled)


def error_share(*, at_look: bool) -> float:
    """The part of an item's error rates for a comparison at one of LOOKS, or at a run's end."""
    return LOOK_SHARE if at_look else 1 - LOOK_SHARE * len(LOOKS)


def with_mean(comparison: Comparison, of_mean: Comparison) -> Comparison:
    """The comparison with that of the means of all repetitions, of which only a REGRESSION counts."""
    mean = MeanRatio(of_mean.ratio, of_mean.low, of_mean.high, of_mean.verdict == "REGRESSION")
    return replace(comparison, mean=mean)


def compared_rates(new: SessionTimes, stored: StoredSessions, comparison: Comparison, tokens: int) -> tuple[Rate, Rate]:
    """New and old tokens per second of the statistic that decided: their quotient is the ratio of `deciding`.

    The new one is as it was measured. The old one is that of the stored sessions' mean level, at the machine's speed of
    now: it has the drift, which the ratio is free of.
    """
    statistic: Statistic = "mean" if comparison.only_mean_regressed else "fast"
    ratio = _log_ratio(new, stored, statistic)
    old_times = [row for session in ratio.old_times for row in session.times]
    new_count, old_count = len(ratio.level.processes), len(old_times)
    old_variance = ratio.within_stored.variance / ratio.sessions
    new_error = error_of_mean(ratio.level.error**2 * new_count, new_count, stored.process_spread)
    old_error = error_of_mean(old_variance * old_count, old_count, stored.process_spread)
    return (
        rate_of(ratio.level.value, new_error, tokens, ratio.new_times.times, statistic),
        rate_of(ratio.level.value + ratio.value, old_error, tokens, old_times, statistic),
    )


def machine_slowdown(new: SessionTimes, stored: StoredSessions) -> float:
    """The log of how much slower the probes were than in the stored sessions, beyond the drift; negative: faster."""
    return _log_ratio(new, stored, "fast").slowdown


@dataclass(frozen=True, slots=True)
class Rule:
    """What a comparison is held to: the tolerance, the error rates stated, and the parts of them for this look."""

    tolerance: float
    alpha: float
    wrong_pass: float
    alpha_of_look: float
    wrong_pass_of_look: float

    @classmethod
    def of(cls, tolerance: float, items: int, rates: ErrorRates, share: float) -> Rule:
        """One of `items` items, at a look with this share of the error rates; of the fast repetitions."""
        alpha = rates.false_alarms / items
        return cls(tolerance, alpha, rates.wrong_pass, alpha * share * (1 - MEAN_SHARE), rates.wrong_pass * share)

    def for_mean(self) -> Rule:
        """The rule for the means of all repetitions, of which only a REGRESSION counts."""
        return replace(self, alpha_of_look=self.alpha_of_look * MEAN_SHARE / (1 - MEAN_SHARE))


@dataclass(frozen=True, slots=True)
class ErrorDistribution:
    """A symmetric distribution of a log-ratio's error: its upper quantiles by their tails, and the tails beyond."""

    quantile: Callable[[float], float]
    tail: Callable[[float], float]


def compare_log_ratio(
    log_ratio: float,
    error: ErrorDistribution,
    rule: Rule,
    *,
    contention: float = 0.0,
    slowdown: float = 0.0,
) -> Comparison:
    """The comparison that a log-ratio of speeds makes, whose error has this distribution.

    Both bounds are wider by `contention`; by `slowdown`, of the machine, the upper one where it is positive and the
    lower one where it is negative. The smallest detectable slowdown s solves log(1 + s) = log(1 + tolerance) +
    contention + slowdown + q_alpha + q_power: the normal-theory formula (Cohen, Statistical Power Analysis, 1988,
    section 2.4) with the error's own quantiles.
    """
    reach, power_reach = error.quantile(rule.alpha_of_look) + contention, error.quantile(1 - POWER)
    low = _exp(log_ratio - error.quantile(rule.wrong_pass_of_look) - contention + min(0.0, slowdown)) or 0.0
    high = _exp(log_ratio + reach + max(0.0, slowdown))
    factor = _exp(reach + max(0.0, slowdown) + power_reach)
    detectable = None if factor is None else (1 + rule.tolerance) * factor - 1
    above_floor = log_ratio + math.log1p(rule.tolerance)
    return Comparison(
        math.exp(log_ratio),
        low,
        high,
        rule.tolerance,
        rule.alpha,
        detectable,
        wrong_pass=rule.wrong_pass,
        probability_exceeded=error.tail(above_floor) if math.isfinite(reach) else None,
    )


def _exp(power: float) -> float | None:
    """The exponential; None and 0 where floats end, at the same magnitude: swapping new and old inverts the bounds."""
    if abs(power) >= MAX_EXPONENT:
        return None if power > 0 else 0.0
    return math.exp(power)


def student(error: float, freedom: float) -> ErrorDistribution:
    """Student's distribution, scaled by a standard error that may be 0 or infinite."""
    from scipy.special import stdtr, stdtrit

    def tail(reach: float) -> float:
        return float(stdtr(freedom, -reach / error)) if error > 0 else float(reach < 0)

    return ErrorDistribution(lambda tail: -float(stdtrit(freedom, tail)) * error, tail)


@dataclass(frozen=True, slots=True)
class _LogRatio:
    """The log-ratio of new to stored speed and its uncertainty.

    `within_new` and `within_stored` are the variances within the new session and within a stored one. `contention` is
    what other processes could have cost, `slowdown` how much slower the probes were beyond the drift, both logs of a
    factor. `level` is the new session's; `new_times` and `old_times` are those that the levels are of.
    """

    value: float
    belief: Belief
    within_new: Spread
    within_stored: Spread
    sessions: int
    drift: float
    contention: float
    slowdown: float
    level: Level
    new_times: SessionTimes
    old_times: Sequence[SessionTimes]

    def compare(self, sessions: int, rule: Rule) -> Comparison:
        """The comparison with this number of stored sessions, further ones as far apart as is believed now."""
        belief = self.belief.after(Spread(self.belief.variance, sessions - self.sessions))
        within = self.within_stored
        stored = Spread(within.variance / sessions, within.freedom * sessions / self.sessions)
        error = _mixture(belief, 1 + 1 / sessions, (self.within_new, stored))
        return compare_log_ratio(self.value, error, rule, contention=self.contention, slowdown=self.slowdown)


def _mixture(belief: Belief, scale: float, within: Sequence[Spread]) -> ErrorDistribution:
    """The distribution of a difference of levels' error: a mixture over the possible spreads.

    Given a spread, the difference is Student's. Its variance is `scale` times the spread's, which is then known, plus
    the variances `within` sessions; Satterthwaite's formula (Biometrics Bulletin 2, 1946) gives the freedom.
    """
    from scipy.optimize import brentq  # SciPy loads for half a second, which a run that compares nothing saves
    from scipy.special import stdtr, stdtrit

    probabilities = np.array(belief.probabilities)
    variances = np.array([spread**2 * scale for spread in SPREADS]) + sum(part.variance for part in within)
    uncertainty = sum(part.variance**2 / part.freedom for part in within)
    if not math.isfinite(uncertainty):
        return ErrorDistribution(lambda _tail: math.inf, lambda _reach: 0.5)
    freedoms = np.minimum(variances**2 / max(uncertainty, _TINY), _MAX_FREEDOM)
    errors = np.sqrt(variances)

    def tail_beyond(reach: float) -> float:
        return float(probabilities @ stdtr(freedoms, -reach / errors))

    def quantile(tail: float) -> float:
        largest = float(np.max(-stdtrit(freedoms, tail) * errors))
        return float(
            brentq(lambda reach: tail_beyond(reach) - tail, 0.0, largest * _BRACKET_SLACK, xtol=_ROOT_TOLERANCE)
        )

    return ErrorDistribution(quantile, tail_beyond)


def uncontended(sessions: Sequence[SessionTimes]) -> Sequence[SessionTimes]:
    """Sessions without too much contention; all of them where each had too much."""
    return [session for session in sessions if session.foreign <= MAX_CONTENTION] or sessions


def comparable(new: SessionTimes, sessions: Sequence[SessionTimes]) -> Sequence[SessionTimes]:
    """The uncontended sessions with the new one's placement of processors; there may be none."""
    return [session for session in uncontended(sessions) if same_placement(new, session)]


def _log_ratio(new: SessionTimes, stored: StoredSessions, statistic: Statistic) -> _LogRatio:
    new_times = drop_slow_handovers(new)
    new_level = level(new_times, statistic)
    same = comparable(new, stored.sessions)
    reference = same or uncontended(stored.sessions)
    old_times = [drop_slow_handovers(session) for session in reference]
    levels = [level(session, statistic) for session in old_times]
    # Only sessions that can be compared with each other show the spread.
    calm = [[session for session in version if session.foreign <= MAX_CONTENTION] for version in stored.other_versions]
    versions = [group for version in calm if (group := comparable(new, version))]
    others = [[level(drop_slow_handovers(session), statistic) for session in group] for group in versions]
    belief = stored.belief.after_sessions([levels, *others])
    drifted = drift(new_level, levels, belief)
    contention = contention_margin(new) + max(map(contention_margin, reference)) if same else math.inf
    new_variance = new_level.error**2 + drifted.variance
    stored_variance = float(np.mean([session.error**2 for session in levels]))
    return _LogRatio(
        value=float(np.mean([session.value for session in levels])) - (new_level.value - drifted.shift),
        belief=belief,
        within_new=Spread(new_variance, max(1, len(new_level.processes) - 1)),
        within_stored=Spread(stored_variance, max(1, sum(len(session.processes) - 1 for session in levels))),
        sessions=len(levels),
        drift=drifted.shift,
        contention=contention,
        slowdown=drifted.unexplained,
        level=new_level,
        new_times=new_times,
        old_times=old_times,
    )


def contention_margin(session: SessionTimes) -> float:
    """The most that other processes could have slowed a session, as the log of a factor of its time.

    With a share f of the time its threads want taken, each gets 1 - f of its time, and a step that waits for all of
    them waits for the last as often again: 1 / (1 - f)^2. Shares up to MIN_CONTENTION are any system's own; beyond
    MAX_CONTENTION recorded sessions were slower still (benchmarks/verdicts), so the margin is infinite.
    """
    if session.foreign > MAX_CONTENTION:
        return math.inf
    return -2 * math.log1p(-session.foreign) if session.foreign > MIN_CONTENTION else 0.0


def _settled_by(log_ratio: _LogRatio, rule: Rule) -> int | None:
    """The fewest stored sessions that would bring a verdict if the ratio stayed.

    None if more than MAX_SESSIONS would be needed.
    """
    more = range(log_ratio.sessions + 1, MAX_SESSIONS + 1)
    if not more or log_ratio.compare(MAX_SESSIONS, rule).verdict == "INCONCLUSIVE":
        return None
    return next(count for count in more if log_ratio.compare(count, rule).verdict != "INCONCLUSIVE")
