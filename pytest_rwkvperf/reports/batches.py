"""How speed grows with the number of sequences that advance together: one table and one plot for every report."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from pytest_rwkvperf.core.cases import Workload
from pytest_rwkvperf.machine import roofline
from pytest_rwkvperf.measure.measurement import ceilings_of
from pytest_rwkvperf.reports import figures
from pytest_rwkvperf.worker.protocol import share_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_rwkvperf.measure.record import CaseRecord
    from pytest_rwkvperf.store.record import Record, RecordedCase, RecordedItem


@dataclass(frozen=True, slots=True)
class Point:
    """A workload with one number of sequences; speeds are in tokens per second of all of them."""

    workload: Workload
    item: RecordedItem
    speed: float
    factor: float | None
    """Its speed over that of a single sequence; None where that was not measured."""
    sequence_bytes: float | None
    """Memory beyond that with a single sequence, divided by the sequences; None where it was not noted."""


@dataclass(frozen=True, slots=True)
class Scaling:
    """One workload of a case with several numbers of sequences, the smallest first."""

    case: RecordedCase
    workload: Workload
    """That of a single sequence."""
    points: Sequence[Point]

    def limits(self, batches: Sequence[int]) -> list[float] | None:
        """The speed that the device's measured ceilings allow with each number of sequences; None if they are unknown.

        A step moves the weights once and each sequence's state, and computes a token of each: the slower of the two
        counts. A prefill is bounded by its products.
        """
        measured = self.case.measured
        ceilings = ceilings_of(measured) if measured else None
        work = measured.work if measured else None
        if work is None or ceilings is None or not work.state_bytes:
            return None
        if self.workload.kind == "generation":
            return [roofline.generation_limit(work, ceilings, batch) for batch in batches]
        chunk, tokens = self.case.case.chunk, self.workload.tokens
        shares = [roofline.compute_share(work, ceilings, tokens, share_of(chunk, batch), 1.0) for batch in batches]
        return [1 / share for share in shares if share] or None


def scalings(record: Record) -> list[Scaling]:
    """Every workload that was measured with more than one number of sequences; INVALID speeds are left out."""
    found: list[Scaling] = []
    for case in record.cases:
        groups: dict[Workload, dict[int, RecordedItem]] = {}
        for item in case.items:
            if item.typical_rate and item.verdict != "INVALID":
                workload = Workload.parse(item.workload)
                groups.setdefault(replace(workload, batch=1), {})[workload.batch] = item
        found += [Scaling(case, workload, _points(case, own)) for workload, own in groups.items() if len(own) > 1]
    return found


def _points(case: RecordedCase, items: dict[int, RecordedItem]) -> list[Point]:
    single = items.get(1)
    points = []
    for batch, item in sorted(items.items()):
        rate, base = item.typical_rate, single.typical_rate if single else None
        assert rate is not None  # noqa: S101 - only such items are grouped
        held = _sequence_bytes(case.measured, item, single, batch)
        factor = rate.median / base.median if base else None
        points.append(Point(Workload.parse(item.workload), item, rate.median, factor, held))
    return points


def _sequence_bytes(
    measured: CaseRecord | None, item: RecordedItem, single: RecordedItem | None, batch: int
) -> float | None:
    """The median over processes; None where memory did not grow, which of small models the heap may hide."""
    if measured is None or single is None or batch == 1:
        return None
    pairs = [(run.memory.get(item.workload), run.memory.get(single.workload)) for run in measured.runs]
    grown = [(held - before) / batch for held, before in pairs if held is not None and before is not None]
    median = float(np.median(grown)) if grown else 0.0
    return median if median > 0 else None


def rows(found: Sequence[Scaling]) -> list[dict[str, str]]:
    """The table of all reports, by column. A step is one token of every sequence."""
    return [_cells(scaling.case, point) for scaling in found for point in scaling.points]


def _cells(case: RecordedCase, point: Point) -> dict[str, str]:
    workload, item = point.workload, point.item
    step = item.inter_token_seconds
    share = figures.two_digits(item.roofline_share)
    generation = workload.kind == "generation"
    return {
        **figures.names(case),
        "workload": str(replace(workload, batch=1)),
        "batch": str(workload.batch),
        "t/s": figures.speed(point.speed),
        f"{figures.TIMES} b1": figures.number(point.factor, ".2f"),
        "t/s each": figures.speed(point.speed / workload.batch),
        "step p50": figures.milliseconds(step.p50 if step else None),
        "step p99": figures.milliseconds(step.p99 if step else None),
        "memory each": figures.mebibytes(point.sequence_bytes),
        "J/token": figures.joules(item),
        "MBU": share if generation else "",
        "MFU": "" if generation else share,
    }
