"""How the machine was doing while a case was measured."""

from __future__ import annotations

from dataclasses import dataclass

import psutil


@dataclass(frozen=True, slots=True)
class Conditions:
    """Load average before (processes wanting the CPU, over a minute), and the share of CPU time others took, 0..1."""

    load_before: float
    steal: float


class Watch:
    """Notes the CPU's counters at the start; `conditions()` gives the difference."""

    def __init__(self) -> None:
        self._load = psutil.getloadavg()[0]
        self._before = psutil.cpu_times()

    def conditions(self) -> Conditions:
        """What happened since the watch was made. Steal time exists on Linux guests only; elsewhere it is 0."""
        after = psutil.cpu_times()
        total = sum(after) - sum(self._before)
        stolen = getattr(after, "steal", 0.0) - getattr(self._before, "steal", 0.0)
        return Conditions(round(self._load, 2), round(stolen / total, 4) if total > 0 else 0.0)
