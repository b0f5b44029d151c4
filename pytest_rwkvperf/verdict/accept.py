"""What of a run is stored in the baseline: every valid figure, a REGRESSION only where the user replaces.

Whoever stores the result must leave out the records that `refusal` names: they would contaminate later verdicts.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pytest_rwkvperf.core.cases import Workload
from pytest_rwkvperf.measure.record import medians
from pytest_rwkvperf.stats.levels import Level, level
from pytest_rwkvperf.stats.spread import process_spread
from pytest_rwkvperf.store.baseline import BaselineEntry, Noise, StoredCase

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pytest_rwkvperf.core.cases import WorkloadKind
    from pytest_rwkvperf.measure.record import CaseRecord, Pairing
    from pytest_rwkvperf.store.record import RecordedItem
    from pytest_rwkvperf.verdict.judged import Judgement


def accepted(judgements: Iterable[Judgement], *, replacing: bool) -> dict[str, set[str]]:
    """Workloads to store by case key."""
    keep: dict[str, set[str]] = {}
    for judgement in judgements:
        if is_accepted(judgement, replacing=replacing):
            keep.setdefault(judgement.item.case.key, set()).add(str(judgement.item.workload))
    return keep


def is_accepted(judged: Judgement | RecordedItem, *, replacing: bool) -> bool:
    """Whether to store an item's figures: it has a verdict, not INVALID or voided; REGRESSION only when replacing."""
    refused = {None, "INVALID"} if replacing else {None, "INVALID", "REGRESSION"}
    return judged.verdict not in refused and not judged.voided


def refusal(record: CaseRecord, *, crowded: bool) -> str:
    """Why a case's figures are not stored, in words; empty where they are. `crowded`: store also crowded sessions."""
    if record.crowded and not crowded and not record.doubt:
        return (
            f"other processes took {record.conditions.foreign:.0%} of the processor meanwhile, and no verdict rests on "
            "such figures; end those processes and save again (or save append,crowded to store them all the same)"
        )
    return record.doubt


def stored_cases(records: Iterable[CaseRecord], keep: dict[str, set[str]], recorded: str) -> list[StoredCase]:
    """The records of a run as stored cases with one session each, with only the workloads to keep."""
    return [
        StoredCase(record.case, record.model.content_hash, record.device, (_entry(record, names, recorded),))
        for record in records
        if (names := keep.get(record.case.key))
    ]


def _entry(record: CaseRecord, names: set[str], recorded: str) -> BaselineEntry:
    workloads = {name: record.times(Workload.parse(name)) for name in sorted(names)}
    conditions = record.conditions
    readings = [run.probes for run in record.runs]
    probes = {name: row for name in sorted(names) if (row := medians(readings, name))}
    handovers = {name: rows for name in sorted(names) if (rows := record.handovers(Workload.parse(name)))}
    return BaselineEntry(
        recorded=recorded,
        versions=record.versions,
        protocol=record.protocol,
        load_before=conditions.load_before,
        steal=conditions.steal,
        workloads=workloads,
        probe_version=record.probe_version,
        probes=probes,
        foreign=conditions.foreign,
        handovers=handovers,
        software=record.software.identity if record.software else "",
        witnesses=tuple(reading.without(reading.workloads.keys() - names) for reading in record.witnesses),
    )


def noise_of(pairings: Sequence[Pairing], recorded: str) -> dict[WorkloadKind, Noise]:
    """How far processes of the same code lie apart, by kind of workload, from an A/A run's pairings.

    Raises:
        MeasurementError: unusable samples.
    """
    levels: dict[WorkloadKind, list[list[Level]]] = {}
    for pairing in pairings:
        for name in pairing.new.runs[0].samples:
            workload = Workload.parse(name)
            sides = [level(side.session_times(workload), "fast") for side in (pairing.new, pairing.old)]
            levels.setdefault(workload.kind, []).append(sides)
    spreads = {kind: process_spread(items) for kind, items in levels.items()}
    return {kind: Noise(recorded, math.sqrt(spread.variance), spread.freedom) for kind, spread in spreads.items()}
