"""How far each case's logits are from the reference's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_rwkvperf.oracle.bounds import bound_for
from pytest_rwkvperf.reports import plots

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_rwkvperf.reports.plots import Mark
    from pytest_rwkvperf.reports.sections.shown import Shown
    from pytest_rwkvperf.store.record import RecordedCase


@dataclass(frozen=True, slots=True)
class Answers:
    """The largest relative L2 of each case's logits on a logarithmic scale, with a tick at the bound."""

    rows: Sequence[tuple[str, float, float, Mark]]
    """Name, distance, bound, mark."""
    within: int


def answers(shown: Shown) -> Answers | None:
    """How far each case's logits are from the reference's, and how far they may be."""
    found = [
        (shown.names[case.case], own.parity, _bound(case))
        for case in shown.record.cases
        if (own := case.figures) and own.parity is not None
    ]
    if not found:
        return None
    ends = [value for _, distance, bound in found for value in (distance, bound) if value > 0]
    scale = plots.Scale(min(ends) / 3, max(ends) * 3, logarithmic=True)
    rows = [(name, distance, bound, plots.mark(scale, distance, reference=bound)) for name, distance, bound in found]
    return Answers(rows, sum(distance <= bound for _, distance, bound in found))


def _bound(case: RecordedCase) -> float:
    """The largest relative L2 of correct logits."""
    device = case.measured.device if case.measured else None
    return bound_for(case.case.backend, case.case.quant, device).relative_l2
