"""Whether processes of one build run at two speeds: an engine that draws its speed when it starts."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

FEWEST = 8
"""Least number of processes: among fewer, two groups are seen too often by chance."""

GAP = 3.0
"""The gap between the groups is at least this many times as wide as the wider group. With normally distributed levels
of 8 to 40 processes that happens in one case of 500 (tests/unit/stats/test_modes.py)."""


def two_levels(speeds: Sequence[float], least: float) -> tuple[float, float, int] | None:
    """The geometric means of the slower and the faster group, and how many are slower; None where there is one group.

    Args:
        speeds: of each process, in tokens per second.
        least: the relative difference from which on two groups matter.
    """
    logs = sorted(map(math.log, speeds))
    if len(logs) < FEWEST:
        return None
    # At least two in each group: one process that is slow by itself was disturbed.
    cut = max(range(2, len(logs) - 1), key=lambda index: logs[index] - logs[index - 1])
    slow, fast = logs[:cut], logs[cut:]
    gap = fast[0] - slow[-1]
    if gap < math.log1p(least) or gap < GAP * max(slow[-1] - slow[0], fast[-1] - fast[0]):
        return None
    return math.exp(math.fsum(slow) / len(slow)), math.exp(math.fsum(fast) / len(fast)), len(slow)
