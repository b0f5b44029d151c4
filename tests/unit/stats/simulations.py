"""Simulated sessions and A/B runs, and how they end: hundreds in the tests, thousands in benchmarks/verdicts."""

from __future__ import annotations

import math
from collections import Counter
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from scipy import stats

from pytest_rwkvperf.stats.levels import SessionTimes
from pytest_rwkvperf.stats.paired import LOOKS, PairRatio, compare_pairs
from pytest_rwkvperf.stats.spread import PRIOR, SPREADS
from pytest_rwkvperf.stats.verdicts import ALPHA, DEFAULT_RATES, MEAN_SHARE, ErrorRates, StoredSessions, compare

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

    from pytest_rwkvperf.stats.verdicts import Comparison, MeanRatio

    Draw = Callable[[np.random.Generator, int], npt.NDArray[np.float64]]


def allowed(chance: float, runs: int) -> int:
    """The most that 999 in 1000 such simulations count if the chance is what is said."""
    return int(stats.binom.ppf(0.999, runs, chance))


def high(bounds: Comparison | MeanRatio | None) -> float:
    """The upper bound; infinite where there is none."""
    return math.inf if bounds is None or bounds.high is None else bounds.high


def detectable(comparison: Comparison) -> float:
    """The smallest detectable slowdown; infinite where there is none."""
    return math.inf if comparison.detectable is None else comparison.detectable


# Against stored sessions


def session(random: np.random.Generator, shift: float, processes: int = 5) -> SessionTimes:
    """A session: its level moves by a spread as believed, its processes by 2 %, their repetitions by 1 %."""
    level = shift + random.normal(0, SPREADS[random.choice(len(SPREADS), p=PRIOR.probabilities)])
    logs = level + random.normal(0, 0.02, (processes, 1)) + random.normal(0, 0.01, (processes, 3))
    return SessionTimes((1e8 * np.exp(logs)).tolist())


def regressions(slowdown: float, tolerance: float, sessions: int, runs: int) -> int:
    """How many of so many new sessions, slower by `slowdown`, are called slower than stored ones."""
    random = np.random.default_rng(2024)
    verdicts = (
        compare(
            session(random, math.log1p(slowdown)),
            StoredSessions([session(random, 0.0) for _ in range(sessions)]),
            tolerance,
            items=1,
        ).verdict
        for _ in range(runs)
    )
    return sum(one == "REGRESSION" for one in verdicts)


# In alternation


def normal(random: np.random.Generator, size: int) -> npt.NDArray[np.float64]:
    """Nothing but chance."""
    return random.normal(0, 0.03, size)


def interrupted(random: np.random.Generator, size: int) -> npt.NDArray[np.float64]:
    """A neighbour falls on one of the two, whichever, in a tenth of the pairs."""
    blow = random.choice([-1.0, 1.0], size) * random.exponential(0.3, size)
    return random.normal(0, 0.01, size) + np.where(random.random(size) < 0.1, blow, 0.0)


def alternating(random: np.random.Generator, size: int) -> npt.NDArray[np.float64]:
    """Whoever is opened first is 3 % faster."""
    return random.normal(0, 0.01, size) + np.where(np.arange(size) % 2, 0.03, -0.03)


DRAWS: tuple[Draw, ...] = (normal, interrupted, alternating)


def compared(ratios: Sequence[float], tolerance: float, items: int, rates: ErrorRates = DEFAULT_RATES) -> Comparison:
    """Pairs whose every repetition says the same."""
    return compare_pairs([PairRatio(one, one) for one in ratios], tolerance, items, rates=rates)


def even_rates(items: int) -> ErrorRates:
    """Error rates at which both bounds of one of `items` items are as far out."""
    return ErrorRates(ALPHA, ALPHA / items * (1 - MEAN_SHARE))


@cache
def ends(ratio: float, draw: Draw, tolerance: float, runs: int, items: int = 1) -> Counter[str]:
    """How simulated A/B runs end: looked at as planned, ended by the first look that says something."""
    random, found = np.random.default_rng(5), Counter[str]()
    for _ in range(runs):
        ratios = math.log(ratio) + draw(random, LOOKS[-1])
        looks = (compared(ratios[:look].tolist(), tolerance, items).verdict for look in LOOKS)
        found[next((said for said in looks if said != "INCONCLUSIVE"), "INCONCLUSIVE")] += 1
    return found


def chosen_alarms(ratio: float, tolerance: float, runs: int) -> int:
    """How many A/B runs an opponent who stops as soon as it looks bad can have called slower."""
    random, alarms = np.random.default_rng(6), 0
    for _ in range(runs):
        ratios = math.log(ratio) + normal(random, LOOKS[-1])
        alarms += any(compared(ratios[:look].tolist(), tolerance, 1).verdict == "REGRESSION" for look in LOOKS)
    return alarms
