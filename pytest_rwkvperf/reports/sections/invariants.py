"""The verdicts on invariants."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_rwkvperf.reports import figures, plots
from pytest_rwkvperf.reports.sections.ratio_marks import band, ratio_mark

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_rwkvperf.reports.plots import Mark, Tick
    from pytest_rwkvperf.reports.sections.shown import Shown
    from pytest_rwkvperf.store.record import RecordedInvariant


@dataclass(frozen=True, slots=True)
class InvariantRow:
    """An invariant of a case, what it compares, and its ratio's mark if it was compared."""

    name: str
    invariant: RecordedInvariant
    compares: str
    mark: Mark | None
    band: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Invariants:
    """Every invariant, the broken ones first."""

    rows: Sequence[InvariantRow]
    ticks: Sequence[Tick]
    same: float


def invariants(shown: Shown) -> Invariants | None:
    """The verdicts on invariants; None if the run judged none."""
    found = [(case, each) for case in shown.record.cases for each in case.invariants]
    if not found:
        return None
    found.sort(key=lambda row: (not row[1].fails, row[1].verdict == "HOLDS"))
    compared = [each.comparison.deciding for _, each in found if each.comparison]
    scale = plots.ratios([(one.ratio, one.low, one.high) for one in compared], max(each.tolerance for _, each in found))
    rows = [
        InvariantRow(
            shown.names[case.case],
            each,
            figures.invariant_cells(case, each)["compares"],
            ratio_mark(scale, each.comparison),
            band(scale, each.tolerance),
        )
        for case, each in found
    ]
    return Invariants(rows, plots.ratio_ticks(scale), scale.at(1.0))
