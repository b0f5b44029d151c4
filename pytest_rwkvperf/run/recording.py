"""From what a run knows to its measurement record."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from pytest_rwkvperf import __version__
from pytest_rwkvperf.core.cases import Workload
from pytest_rwkvperf.core.text import safe, without_passwords
from pytest_rwkvperf.machine import fingerprint, system
from pytest_rwkvperf.measure.measurement import Measurement
from pytest_rwkvperf.run import options, verdicts
from pytest_rwkvperf.store import record

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import pytest

    from pytest_rwkvperf.core.cases import Case, Item
    from pytest_rwkvperf.measure.record import CaseRecord, Pairing
    from pytest_rwkvperf.run.session import Session
    from pytest_rwkvperf.store.record import Record, RecordedCase, RecordedItem
    from pytest_rwkvperf.verdict.judged import Judgement

_GIT_SECONDS = 10.0
_NOT_REACHED = "the run ended before it"
_NOT_JUDGED = "measured and not judged: its test calls no check()"


def of_run(pytest_session: pytest.Session, session: Session, judgements: Mapping[Item, Judgement]) -> Record:
    """Everything there is now; the run may have been interrupted."""
    config, planned = pytest_session.config, session.folder.outline()
    elapsed = datetime.now(timezone.utc) - session.started
    return record.Record(
        id=session.folder.path.name,
        started=session.started.strftime("%Y-%m-%dT%H:%M:%SZ"),
        seconds=round(elapsed.total_seconds(), 3),
        project_version=__version__,
        command=tuple(safe(without_passwords(str(one))) for one in config.invocation_params.args),
        options={name: safe(without_passwords(value), keep="\n") for name, value in options.values(config).items()},
        exit_status=int(pytest_session.exitstatus),
        fingerprint=fingerprint.read(),
        system=system.read(),
        cases=_cases(session, planned.items, judgements),
        skipped=tuple(record.SkippedEngine(one.name, one.reason) for one in planned.missing),
        commit=_commit(config.rootpath),
    )


def _commit(folder: Path) -> str:
    """The revision under test; empty where there is no git, or no repository."""
    try:
        asked = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=_GIT_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return asked.stdout.strip() if asked.returncode == 0 else ""


def _cases(session: Session, items: Sequence[Item], judgements: Mapping[Item, Judgement]) -> tuple[RecordedCase, ...]:
    measured = {one.case: one for one in session.folder.records()}
    pairings = {one.new.case: one for one in session.folder.pairings()}
    # A judged item is always a planned one, except in a run whose outline was lost with an xdist worker.
    chosen = dict.fromkeys([*items, *judgements])
    by_case: dict[Case, list[Item]] = {}
    for item in chosen:
        by_case.setdefault(item.case, []).append(item)
    return tuple(
        _case(session, case, {item: judgements.get(item) for item in own}, measured, pairings)
        for case, own in by_case.items()
    )


def _case(
    session: Session,
    case: Case,
    items: Mapping[Item, Judgement | None],
    measured: Mapping[Case, CaseRecord],
    pairings: Mapping[Case, Pairing],
) -> RecordedCase:
    pairing = pairings.get(case)
    taken = pairing.new if pairing else measured.get(case)
    failure = session.folder.failure(case)
    return record.RecordedCase(
        case=case,
        measured=taken,
        figures=_figures(taken) if taken else None,
        items=tuple(_item(session, item, judged, taken, failure) for item, judged in items.items()),
        old=pairing.old if pairing else None,
        failure=failure,
    )


def _figures(taken: CaseRecord) -> record.CaseFigures:
    any_workload = Measurement(taken, Workload.parse(next(iter(taken.runs[0].samples))))
    memory = any_workload.memory
    return record.CaseFigures(
        any_workload.load_seconds, memory.peak_rss_bytes, memory.file_bytes, taken.parity, memory.peak_device_bytes
    )


def _item(session: Session, item: Item, one: Judgement | None, taken: CaseRecord | None, failure: str) -> RecordedItem:
    measurement = Measurement(taken, item.workload) if taken else None
    if one is None:
        reason = failure or (_NOT_JUDGED if measurement else _NOT_REACHED)
        rate = measurement.tokens_per_second if measurement else None
        judged = record.RecordedItem(str(item.workload), None, reason, bool(failure), rate=rate)
    else:
        judged = record.RecordedItem(
            str(item.workload),
            one.verdict,
            one.reason,
            verdicts.fails(one, session.settings),
            one.tolerance,
            one.new,
            one.old,
            one.comparison,
        )
    return _with_latencies(judged, measurement) if measurement else judged


def _with_latencies(item: RecordedItem, measurement: Measurement) -> RecordedItem:
    between = measurement.inter_token_latency_seconds()
    return replace(
        item,
        first_token_seconds=measurement.time_to_first_token_seconds,
        inter_token_seconds=record.InterToken(*between) if between else None,
        roofline_share=measurement.roofline_share,
        joules_per_token=measurement.joules_per_token,
        net_joules_per_token=measurement.net_joules_per_token,
        utilisation=measurement.utilisation,
        device_seconds_per_token=measurement.device_seconds_per_token,
        device_share=measurement.device_share,
    )
