"""Speed against the number of sequences that advance together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_rwkvperf.reports import batches, plots
from pytest_rwkvperf.reports.sections.tables import Table, table_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_rwkvperf.reports.batches import Scaling
    from pytest_rwkvperf.reports.plots import Curve
    from pytest_rwkvperf.reports.sections.shown import Shown


@dataclass(frozen=True, slots=True)
class Batches:
    """A plot of each workload that was measured with several numbers of sequences, and the table of all of them."""

    plots: Sequence[tuple[str, Curve]]
    table: Table
    gist: str


def scaling(shown: Shown) -> Batches | None:
    """Speed against the number of sequences; None where only one number was measured."""
    found = batches.scalings(shown.record)
    if not found:
        return None
    most = max(point.workload.batch for each in found for point in each.points)
    curves = [(f"{shown.names[each.case.case]} {each.workload}", _curve(each)) for each in found]
    return Batches(curves, table_of("Speed by the number of sequences", batches.rows(found)), f"up to {most} at once")


def _curve(scaling: Scaling) -> Curve:
    """The measured speeds, and the limit by the roofline where it is known."""
    measured = [(float(point.workload.batch), point.speed) for point in scaling.points]
    first, last = measured[0][0], measured[-1][0]
    between = [round(first * (last / first) ** (index / 24)) for index in range(25)]
    sizes = list(dict.fromkeys(between))
    limits = [(float(size), limit) for size, limit in zip(sizes, scaling.limits(sizes) or [], strict=False)]
    rates = [(float(point.workload.batch), point.item.typical_rate) for point in scaling.points]
    intervals = [(size, rate.low, rate.high) for size, rate in rates if rate and rate.low and rate.high is not None]
    return plots.curve(measured, limits, intervals)
