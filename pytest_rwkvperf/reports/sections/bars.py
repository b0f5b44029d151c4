"""Figures as bars that begin at zero, for several sections."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_rwkvperf.reports.plots import Mark, Tick


@dataclass(frozen=True, slots=True)
class Bar:
    """A figure that begins at zero."""

    name: str
    value: float
    mark: Mark
    note: str = ""


@dataclass(frozen=True, slots=True)
class Bars:
    """Figures on one scale."""

    title: str
    bars: Sequence[Bar]
    ticks: Sequence[Tick]
