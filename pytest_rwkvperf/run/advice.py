"""Advice for INCONCLUSIVE verdicts: for each cause, what to change so that a run gives a verdict."""

from __future__ import annotations

from collections import Counter
from statistics import median
from typing import TYPE_CHECKING

from pytest_rwkvperf.core.cases import Workload
from pytest_rwkvperf.reports.figures import item_name, speed
from pytest_rwkvperf.stats.modes import two_levels
from pytest_rwkvperf.stats.paired import LOOKS
from pytest_rwkvperf.stats.verdicts import MAX_CONTENTION
from pytest_rwkvperf.verdict import steps

if TYPE_CHECKING:
    from pytest_rwkvperf.measure.record import CaseRecord
    from pytest_rwkvperf.stats.verdicts import Comparison, VoidedBy
    from pytest_rwkvperf.store.record import Record, RecordedCase, RecordedItem

_VOIDED: dict[VoidedBy, str] = {
    "watched": "A debugger or a coverage tool is active, so no verdict counts: run without it (pytest-cov: --no-cov).",
    "gpu": "A GPU was throttled or busy, which voided verdicts: run again when it is idle and cool.",
}

_MOST_SENTENCES = 3
"""More advice than this is not read."""


def inconclusive(record: Record) -> list[str]:
    """How to get the missing verdicts: one sentence for each cause, the cause of most workloads first."""
    unsure = [(case, item) for case, item in record.items() if item.verdict == "INCONCLUSIVE"]
    watched = [item for _, item in unsure if item.voided == "watched"]
    if watched:
        return [_VOIDED["watched"]]
    causes = Counter(_advice(case, item) for case, item in unsure)
    return [sentence for sentence, _ in causes.most_common(_MOST_SENTENCES)]


def _advice(case: RecordedCase, item: RecordedItem) -> str:
    if item.voided:
        return _VOIDED[item.voided]
    side, _ = case.sides(item)
    if side is not None and side.conditions.foreign > MAX_CONTENTION:
        return (
            "Other processes took more of the processors than verdicts allow: run again when the machine is idle, or "
            "leave them a processor with --rwkv-threads."
        )
    if steps.NOT_ASKED in item.reason:
        return "Stored figures leave it open, and A/B could not be asked: the test's reason says why."
    if side is not None and (modes := _modes(case, item, side)):
        return modes
    if item.comparison is None:
        return "The test's reason says why there is no verdict."
    return _of_pairs(side) if item.comparison.paired else _of_stored(item, item.comparison, side)


def _modes(case: RecordedCase, item: RecordedItem, side: CaseRecord) -> str:
    """A sentence if processes of one build run at two speeds, which no budget averages; empty if they do not."""
    workload = Workload.parse(item.workload)
    medians = [workload.total_tokens / (median(row) / 1e9) for row in side.times(workload)]
    levels = two_levels(medians, item.tolerance or 0.0)
    if levels is None:
        return ""
    slow, fast, slower = levels
    return (
        f"{item_name(case, item)} runs at two speeds, {speed(slow)} t/s in {slower} of {len(medians)} processes and "
        f"{speed(fast)} t/s in the others. More time does not average that: find what differs between processes "
        "when they start (placement of threads, memory, a kernel), or try --rwkv-threads=1."
    )


def _of_pairs(side: CaseRecord | None) -> str:
    pairs = len(side.runs) if side else 0
    if pairs >= LOOKS[-1]:
        return f"{pairs} pairs, the most that are measured, leave it open: use a wider --rwkv-tolerance."
    return f"The budget ended A/B after {pairs} pairs: raise --rwkv-budget, or --rwkv-tolerance."


def _of_stored(item: RecordedItem, comparison: Comparison, side: CaseRecord | None) -> str:
    """Advice after a comparison with stored sessions.

    A larger budget narrows the intervals within a session. It does not change how far sessions differ, which is most of
    the noise.
    """
    if comparison.detectable is None:
        return (
            "The machine allowed no verdict, now or when the baseline was stored: it was crowded, or its processors "
            "were slow to hand over work. Run again when it is idle, or use --rwkv-ab; --rwkv-strict=inconclusive says "
            "more."
        )
    width = item.rate.half_width if item.rate else None
    tolerance = item.tolerance or comparison.tolerance
    if side is not None and side.ended_by == "budget" and width is not None and width > tolerance:
        return (
            "The budget ended cases whose own figures are less certain than the tolerance: raise --rwkv-budget (four "
            "times the seconds halve an interval), or measure fewer workloads."
        )
    if comparison.settled_by is not None:
        return (
            f"Too few stored sessions: {comparison.settled_by} would suffice if they differ as now. Each run with "
            "--rwkv-save-baseline adds one; --rwkv-ab decides now."
        )
    return (
        "Sessions on this machine differ by more than the tolerance: use --rwkv-ab, or a wider --rwkv-tolerance; a "
        "larger budget does not help."
    )
