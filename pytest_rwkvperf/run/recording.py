"""Make the measurement record of a run."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from pytest_rwkvperf import __version__
from pytest_rwkvperf.core.cases import Workload
from pytest_rwkvperf.core.text import safe, without_passwords
from pytest_rwkvperf.machine import fingerprint, system
from pytest_rwkvperf.measure.measurement import Measurement
from pytest_rwkvperf.measure.record import CaseRecord, Pairing
from pytest_rwkvperf.run import git, options, verdicts
from pytest_rwkvperf.run import invariants as invariant_checks
from pytest_rwkvperf.store.record import (
    CaseFigures,
    InterToken,
    Record,
    RecordedCase,
    RecordedInvariant,
    RecordedItem,
    SkippedEngine,
)
from pytest_rwkvperf.verdict import invariants
from pytest_rwkvperf.verdict.judged import recorded_item

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pytest

    from pytest_rwkvperf.core.cases import Case, Item
    from pytest_rwkvperf.run.session import Session
    from pytest_rwkvperf.run.settings import Settings
    from pytest_rwkvperf.verdict.invariants import JudgedInvariant
    from pytest_rwkvperf.verdict.judged import Judgement

_NOT_REACHED = "the run ended before it"
_FOR_INVARIANTS = "measured for the invariants that compare it with other workloads of this run"
_NOT_JUDGED = "measured, not judged: no test called check() for it"


def of_run(
    pytest_session: pytest.Session,
    session: Session,
    judgements: Mapping[Item, Judgement],
    judged_invariants: Sequence[JudgedInvariant] = (),
) -> Record:
    """The record of what there is at the end of a run, which may have been interrupted."""
    config, outline = pytest_session.config, session.folder.outline()
    elapsed = datetime.now(timezone.utc) - session.started
    return Record(
        id=session.folder.path.name,
        started=session.started.strftime("%Y-%m-%dT%H:%M:%SZ"),
        seconds=round(elapsed.total_seconds(), 3),
        project_version=__version__,
        command=tuple(safe(without_passwords(str(argument))) for argument in config.invocation_params.args),
        options={name: safe(without_passwords(text), keep="\n") for name, text in options.texts(config).items()},
        exit_status=int(pytest_session.exitstatus),
        fingerprint=fingerprint.read(),
        system=system.read(),
        cases=_with_invariants(_cases(session, outline.items, judgements), judged_invariants, session.settings),
        skipped=tuple(SkippedEngine(engine.name, engine.reason) for engine in outline.missing),
        commit=git.commit(config.rootpath),
    )


def _with_invariants(
    cases: Sequence[RecordedCase], judged: Sequence[JudgedInvariant], settings: Settings
) -> tuple[RecordedCase, ...]:
    by_case: dict[Case, list[RecordedInvariant]] = {}
    for each in judged:
        one = invariants.recorded(each, fails=invariant_checks.fails(each, settings))
        by_case.setdefault(each.question.case, []).append(one)
    return tuple(_with_own(case, tuple(by_case.get(case.case, ()))) for case in cases)


def _with_own(case: RecordedCase, own: tuple[RecordedInvariant, ...]) -> RecordedCase:
    """The case with its invariants; the workloads that they compare have no verdict of their own."""
    compared = {name for each in own for name in (each.tested, each.reference)}
    items = (
        replace(item, reason=_FOR_INVARIANTS) if item.workload in compared and item.verdict is None else item
        for item in case.items
    )
    return replace(case, items=tuple(items), invariants=own)


def _cases(session: Session, items: Sequence[Item], judgements: Mapping[Item, Judgement]) -> tuple[RecordedCase, ...]:
    pairings = {pairing.new.case: pairing for pairing in session.folder.pairings()}
    records = {record.case: record for record in session.folder.records()}
    kind = Pairing if session.settings.ab else CaseRecord
    # Judged items are planned ones, unless the outline was lost with an xdist worker.
    chosen = dict.fromkeys([*items, *judgements])
    by_case: dict[Case, list[Item]] = {}
    for item in chosen:
        by_case.setdefault(item.case, []).append(item)
    cases = []
    for case, own in by_case.items():
        record, pairing, failure = records.get(case), pairings.get(case), session.folder.failure(case, kind)
        measured, old = (pairing.new, pairing.old) if pairing and record is None else (record, None)
        recorded = RecordedCase(
            case=case,
            measured=measured,
            figures=figures_of(measured) if measured else None,
            items=(),
            old=old,
            failure=failure,
            settled=pairing if record else None,
        )
        cases.append(
            replace(recorded, items=tuple(_item(session, item, judgements.get(item), recorded) for item in own))
        )
    return tuple(cases)


def figures_of(measured: CaseRecord) -> CaseFigures:
    """The figures of a case; any of its workloads has them."""
    measurement = Measurement(measured, Workload.parse(next(iter(measured.runs[0].samples))))
    memory = measurement.memory
    return CaseFigures(
        load_seconds=measurement.load_seconds,
        peak_rss_bytes=memory.peak_rss_bytes,
        file_bytes=memory.file_bytes,
        parity=measured.parity,
        peak_device_bytes=memory.peak_device_bytes,
    )


def _item(session: Session, item: Item, judged: Judgement | None, case: RecordedCase) -> RecordedItem:
    if judged is None:
        reason = case.failure or (_NOT_JUDGED if case.measured else _NOT_REACHED)
        recorded = RecordedItem(str(item.workload), None, reason, fails=bool(case.failure))
    else:
        recorded = recorded_item(judged, fails=verdicts.fails(judged, session.settings))
    measured, _ = case.sides(recorded)
    return with_figures(recorded, Measurement(measured, item.workload)) if measured else recorded


def with_figures(item: RecordedItem, measurement: Measurement) -> RecordedItem:
    """The item with everything that was measured of its workload."""
    between = measurement.inter_token_latency_seconds()
    return replace(
        item,
        rate=item.rate if item.comparison else measurement.tokens_per_second,
        median_rate=measurement.tokens_per_second,
        first_token_seconds=measurement.time_to_first_token_seconds,
        inter_token_seconds=InterToken(*between) if between else None,
        roofline_share=measurement.roofline_share,
        joules_per_token=measurement.joules_per_token,
        net_joules_per_token=measurement.net_joules_per_token,
        utilisation=measurement.utilisation,
        device_seconds_per_token=measurement.device_seconds_per_token,
        device_share=measurement.device_share,
    )
