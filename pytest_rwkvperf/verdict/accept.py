"""What of a run goes into the baseline: everything judged sound, except a regression nobody accepted.

Who stores leaves out records with a `doubt`: they carry no verdict now, and later ones would rest on them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_rwkvperf.core.cases import Workload
from pytest_rwkvperf.measure.record import medians
from pytest_rwkvperf.store.baseline import BaselineEntry, StoredCase

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pytest_rwkvperf.measure.record import CaseRecord
    from pytest_rwkvperf.verdict.judgement import Judgement


def accepted(judgements: Iterable[Judgement], *, replacing: bool) -> dict[str, set[str]]:
    """Workloads to store by case key. INVALID never; REGRESSION only where the user replaces."""
    refused = {"INVALID"} if replacing else {"INVALID", "REGRESSION"}
    keep: dict[str, set[str]] = {}
    for judgement in judgements:
        if judgement.verdict not in refused:
            keep.setdefault(judgement.item.case.key, set()).add(str(judgement.item.workload))
    return keep


def stored_cases(records: Iterable[CaseRecord], keep: dict[str, set[str]], recorded: str) -> list[StoredCase]:
    """The records of a run as stored cases with one session each, cut down to the workloads to keep."""
    return [
        StoredCase(record.case, record.model.content_hash, record.device, (_session(record, names, recorded),))
        for record in records
        if (names := keep.get(record.case.key))
    ]


def _session(record: CaseRecord, names: set[str], recorded: str) -> BaselineEntry:
    workloads = {name: record.times(Workload.parse(name)) for name in sorted(names)}
    conditions = record.conditions
    readings = [run.probes for run in record.runs]
    probes = {name: row for name in sorted(names) if (row := medians(readings, name))}
    handovers = {name: rows for name in sorted(names) if (rows := record.handovers(Workload.parse(name)))}
    return BaselineEntry(
        recorded,
        record.versions,
        record.protocol,
        conditions.load_before,
        conditions.steal,
        workloads,
        record.probe_version,
        probes,
        conditions.foreign,
        handovers,
    )
