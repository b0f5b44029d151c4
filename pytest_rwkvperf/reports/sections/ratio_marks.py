"""Marks of compared ratios, for workloads and invariants."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_rwkvperf.reports import plots

if TYPE_CHECKING:
    from pytest_rwkvperf.reports.plots import Mark, Scale
    from pytest_rwkvperf.stats.verdicts import Comparison


def ratio_mark(scale: Scale, comparison: Comparison | None) -> Mark | None:
    """The mark of the ratio that decided; None where nothing was compared."""
    if comparison is None:
        return None
    deciding = comparison.deciding
    high = float("inf") if deciding.high is None else deciding.high
    return plots.mark(scale, deciding.ratio, deciding.low, high)


def band(scale: Scale, tolerance: float | None) -> tuple[float, float]:
    """Both ends of the tolerance."""
    return (scale.at(1 / (1 + (tolerance or 0.0))), scale.at(1 + (tolerance or 0.0)))
