"""Series of runs of unchanged code as machines have shown them, as logarithms of tokens per second."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    Logs = npt.NDArray[np.float64]

STEP = math.log(1.08)
"""The planted slowdown: 8 % more time."""


def normal(spread: float) -> Callable[[np.random.Generator, int], Logs]:
    """Independent runs."""
    return lambda source, count: source.normal(0, spread, count)


def drifting(source: np.random.Generator, count: int) -> Logs:
    """Each run resembles the one before: 3 % with the autocorrelation 0.4 that processes minutes apart have shown."""
    logs = np.empty(count)
    logs[0] = source.normal(0, 0.03)
    for index in range(1, count):
        logs[index] = 0.4 * logs[index - 1] + source.normal(0, 0.03 * math.sqrt(1 - 0.4**2))
    return logs


def neighbours(source: np.random.Generator, count: int) -> Logs:
    """1.5 %, and in one run of eight a neighbour who costs 10 % on average."""
    slowed = source.random(count) < 1 / 8
    return source.normal(0, 0.015, count) - slowed * source.exponential(0.10, count)


def heavy(source: np.random.Generator, count: int) -> Logs:
    """Student's t with three degrees of freedom, scaled to 2 %."""
    return 0.02 * source.standard_t(3, count)


# 1.3 and 3 %: the best and the middle of what sessions of identical code showed on a shared two-core machine.
NOISES: dict[str, Callable[[np.random.Generator, int], Logs]] = {
    "1.3 %": normal(0.013),
    "3 %": normal(0.03),
    "3 %, drifting": drifting,
    "1.5 % and neighbours": neighbours,
    "2 %, heavy tails": heavy,
}


def planted(logs: Logs, at: int) -> Logs:
    """The series with the slowdown from run `at` (from 0) on."""
    changed = logs.copy()
    changed[at:] -= STEP
    return changed
