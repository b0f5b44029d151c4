"""Judging one item: a record or a pair of environments joined with a baseline and the statistics.

The decision itself is `classify` and `compare` of `stats/verdicts.py`, in A/B `compare_pairs` of `stats/paired.py`;
`judged.py` has the types, `reasons.py` the words.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_rwkvperf.core.text import printable
from pytest_rwkvperf.stats import paired
from pytest_rwkvperf.stats.estimates import estimate_rate
from pytest_rwkvperf.stats.levels import drop_slow_handovers
from pytest_rwkvperf.stats.paired import compare_pairs
from pytest_rwkvperf.stats.verdicts import DEFAULT_RATES, compare, compared_rates
from pytest_rwkvperf.store.baseline import StoredCase
from pytest_rwkvperf.verdict import explaining, reasons, work
from pytest_rwkvperf.verdict.judged import Judgement, NewTimes

if TYPE_CHECKING:
    from pytest_rwkvperf.core.cases import Item
    from pytest_rwkvperf.measure.record import CaseRecord, Pairing
    from pytest_rwkvperf.stats.verdicts import ErrorRates, VoidedBy
    from pytest_rwkvperf.verdict.judged import Reference


def judge(
    measured: CaseRecord | StoredCase,
    item: Item,
    reference: Reference,
    tolerance: float,
    items: int,
    *,
    rates: ErrorRates = DEFAULT_RATES,
) -> Judgement:
    """Compare one workload with its baseline.

    Args:
        measured: a run's record, or a stored case, of which the newest session that timed the workload is compared.
        item: the workload and its case.
        reference: what it is compared with.
        tolerance: the relative slowdown that is allowed.
        items: how many items share the error rates.
        rates: the error rates of all items together.

    Raises:
        MeasurementError: unusable times.
    """
    if isinstance(measured, StoredCase):
        return _judge(_stored_times(measured, item), reference, tolerance, items, rates)
    judgement = _judge(_measured_times(measured, item), reference, tolerance, items, rates)
    return void(replace(judgement, parity=measured.parity), "gpu", measured.doubt)


def _measured_times(record: CaseRecord, item: Item) -> NewTimes:
    facts = (record.model.content_hash, record.device.name, record.protocol)
    times = record.session_times(item.workload)
    return NewTimes(
        item,
        times,
        record.probe_version,
        facts,
        ended_early=record.ended_by == "verdict",
        witnesses=record.witnesses,
        versions=record.versions,
    )


def _stored_times(stored: StoredCase, item: Item) -> NewTimes:
    name = str(item.workload)
    newest = stored.comparable_sessions(name)[-1]
    facts = (stored.model_hash, stored.device.name, newest.protocol)
    times = newest.session_times(name, newest.probe_version)
    return NewTimes(
        item,
        times,
        newest.probe_version,
        facts,
        ended_early=False,
        witnesses=newest.witnesses,
        versions=newest.versions,
    )


def judge_pairs(
    pairing: Pairing, item: Item, tolerance: float, items: int, *, rates: ErrorRates = DEFAULT_RATES
) -> Judgement:
    """Compare two environments that were measured in alternation; no baseline is needed.

    A doubt about the GPU does not void this verdict: both sides alternate under the same conditions.

    Raises:
        MeasurementError: unusable samples.
    """
    comparison = compare_pairs(pairing.log_ratios(item.workload), tolerance, items, rates=rates)
    pairs, tokens = pairing.pairs(item.workload)
    new_rate, old_rate = paired.compared_rates(pairs, comparison, tokens)
    judged = Judgement(
        item,
        comparison.verdict,
        reasons.compared_pairs(comparison, pairing),
        tolerance,
        new_rate,
        old_rate,
        comparison,
        pairing.new.parity,
        step="ab",
        work=work.judge(pairing.new.witnesses, pairing.old.witnesses, item.workload),
        software=reasons.versions(pairing.old.versions, pairing.new.versions),
    )
    return explaining.explained(judged, explaining.of_record(pairing.old), explaining.of_record(pairing.new))


def _judge(new: NewTimes, reference: Reference, tolerance: float, items: int, rates: ErrorRates) -> Judgement:
    item, tokens = new.item, new.item.workload.total_tokens
    process_spread = reference.process_spread(item.workload)
    stored = reference.baseline.cases.get(item.case.key) if reference.baseline else None
    reason = printable(reasons.no_reference(new, reference, stored))  # it may name a stored device
    if stored is None or reason:
        rate = estimate_rate(drop_slow_handovers(new.times).times, tokens, process_spread)
        return Judgement(item, "NO-BASELINE", reason, tolerance, rate)
    sessions = replace(
        stored.sessions_of(str(item.workload), new.probe_version),
        belief=reference.belief(item.workload),
        process_spread=process_spread,
    )
    comparison = compare(new.times, sessions, tolerance, items, rates=rates, at_look=new.ended_early)
    new_rate, old_rate = compared_rates(new.times, sessions, comparison, tokens)
    newest = stored.comparable_sessions(str(item.workload))[-1]
    counted = explaining.newest_witnesses(stored, str(item.workload))
    return Judgement(
        item,
        comparison.verdict,
        reasons.compared(comparison, new.times, sessions),
        tolerance,
        new_rate,
        old_rate,
        comparison,
        step="stored",
        work=work.judge(new.witnesses, counted, item.workload),
        software=reasons.versions(newest.versions, new.versions),
        stored=f"stored {newest.recorded}",
    )


def void(judgement: Judgement, by: VoidedBy, why: str) -> Judgement:
    """INCONCLUSIVE where there is a reason `why`; where nothing was compared, marked so that it is not stored."""
    if not why:
        return judgement
    if judgement.comparison is None:
        return replace(judgement, voided=by)
    reason = f"{why}, so no verdict rests on these figures ({judgement.reason})"
    return replace(judgement, verdict="INCONCLUSIVE", reason=reason, voided=by)


def invalid(item: Item, tolerance: float, reason: str) -> Judgement:
    """The judgement on figures that no verdict may rest on."""
    return Judgement(item, "INVALID", reason, tolerance)
