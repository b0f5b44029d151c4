"""What one step of a bisection found: its types are those of the journal and of the result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pytest_rwkvperf.stats.slowdown import percent_slower

Kind = Literal["slower", "same", "identical", "invalid", "unbuildable", "broken", "undecided", "no-base"]
"""`identical`: the same code as a state that is known, so nothing was measured; `invalid`: wrong answers; `broken`: it
builds and does not run; `undecided`: noise hides the answer; `no-base`: what it is compared with cannot be measured."""


@dataclass(frozen=True, slots=True)
class Figures:
    """One workload of a comparison: the ratio of speeds, new over old, with its one-sided bounds."""

    quant: str
    workload: str
    verdict: str
    ratio: float
    low: float
    high: float | None
    work: str = ""
    """How the work that witnesses counted differs, with the operators; empty where it does not or was not counted."""

    def __str__(self) -> str:
        return f"{self.quant} {self.workload} {self.verdict} {percent_slower(self.ratio)}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was found of a state when it was compared with another one."""

    state: str
    against: str
    kind: Kind
    reason: str = ""
    """Why there is no answer; empty where there is one."""
    figures: tuple[Figures, ...] = ()
    pairs: int = 0
    build_seconds: float = 0.0
    seconds: float = 0.0
    """Time to measure."""
    notes: tuple[str, ...] = ()
    """Where the build differs from the others."""
    digest: str = ""
    """The same for states with the same code to the byte; empty where that is not known."""

    def __str__(self) -> str:
        return self.reason or ", ".join(map(str, self.figures))
