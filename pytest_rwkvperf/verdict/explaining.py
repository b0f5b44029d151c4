"""Why a workload is slower: the differences between two measurements, those that weigh most first.

First the operators whose time changed, then those that ran more or less often, then what was loaded, how it was run,
and the machine. Nothing here is a verdict: a difference stands beside a slowdown and need not be its cause.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pytest_rwkvperf.core.cause import Cause
from pytest_rwkvperf.core.engine_settings import in_words
from pytest_rwkvperf.core.work import Amount, comparable_counts, differences
from pytest_rwkvperf.stats.verdicts import MIN_CONTENTION

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pytest_rwkvperf.core.cases import Case
    from pytest_rwkvperf.core.cause import CauseKind
    from pytest_rwkvperf.core.engine import Device
    from pytest_rwkvperf.core.software import Software
    from pytest_rwkvperf.core.work import Reading, WorkCount
    from pytest_rwkvperf.machine.fingerprint import Fingerprint
    from pytest_rwkvperf.machine.system import System
    from pytest_rwkvperf.measure.record import CaseRecord
    from pytest_rwkvperf.store.baseline import StoredCase
    from pytest_rwkvperf.verdict.judged import Judgement

_LEAST = 0.01
"""Smallest change of an operator's time that is shown, as a share of all operators' time; smaller ones are added up."""

_MOST = 20
"""Most operators that are shown, of changed times and of changed counts each."""

ELSE = "everything else"
"""The name under which the operators that are not shown are added up."""


@dataclass(frozen=True, slots=True)
class Facts:
    """One side: what is known of how a case was measured. `foreign` is the share of processor time others took.

    `software` is None and `identity` empty where that is not known; so are `fingerprint` and `system` where both sides
    are of one machine.
    """

    case: Case
    device: Device
    model_hash: str
    versions: Mapping[str, str]
    identity: str
    software: Software | None
    witnesses: Sequence[Reading]
    foreign: float
    fingerprint: Fingerprint | None = None
    system: System | None = None


def of_record(record: CaseRecord, fingerprint: Fingerprint | None = None, system: System | None = None) -> Facts:
    """What a measured case tells."""
    return Facts(
        case=record.case,
        device=record.device,
        model_hash=record.model.content_hash,
        versions=record.versions,
        identity=record.software.identity if record.software else "",
        software=record.software,
        witnesses=record.witnesses,
        foreign=record.conditions.foreign,
        fingerprint=fingerprint,
        system=system,
    )


def of_stored(stored: StoredCase, workload: str, software: Software | None) -> Facts:
    """What a baseline tells of the session that a workload is compared with; `software` counts if it is that one's."""
    entry = stored.comparable_sessions(workload)[-1]
    return Facts(
        case=stored.case,
        device=stored.device,
        model_hash=stored.model_hash,
        versions=entry.versions,
        identity=entry.software,
        software=software if software is not None and software.identity == entry.software else None,
        witnesses=newest_witnesses(stored, workload),
        foreign=entry.foreign,
    )


def newest_witnesses(stored: StoredCase, workload: str) -> tuple[Reading, ...]:
    """The readings of the newest session to compare with that has any."""
    newest_first = stored.comparable_sessions(workload)[::-1]
    return next((session.witnesses for session in newest_first if session.witnesses), ())


def explained(judged: Judgement, old: Facts, new: Facts) -> Judgement:
    """A REGRESSION with what differs; any other judgement as it is."""
    if judged.verdict != "REGRESSION":
        return judged
    return replace(judged, causes=causes(old, new, str(judged.item.workload)))


def causes(old: Facts, new: Facts, workload: str) -> tuple[Cause, ...]:
    """What differs between two sides of a workload, what weighs most first."""
    return (
        *_operators(old.witnesses, new.witnesses, workload),
        *_software(old, new),
        *_settings(old, new),
        *_machine(old, new),
    )


def _operators(old: Sequence[Reading], new: Sequence[Reading], workload: str) -> list[Cause]:
    """Changes of operators' times, as all witnesses measured them, then changes of counts."""
    times: list[Cause] = []
    counts: list[Cause] = []
    for reading, then, now in comparable_counts(old, new, workload):
        times += _times(then, now, reading.witness)
        counts += _counts(then, now, reading)
    return [*times, *counts]


def _times(old: WorkCount, new: WorkCount, witness: str) -> Iterator[Cause]:
    """The operators whose time changed most, the slower ones first, and the rest together."""
    before, after = old.by_name(), new.by_name()
    total = sum(amount.nanoseconds for amount in before.values())
    if not total or not any(amount.nanoseconds for amount in after.values()):
        return
    nothing = Amount(0)
    pairs = {
        name: (before.get(name, nothing).nanoseconds, after.get(name, nothing).nanoseconds)
        for name in {**before, **after}
    }
    extra = {name: (now - then) / total for name, (then, now) in pairs.items()}
    shown = sorted((name for name in pairs if abs(extra[name]) >= _LEAST), key=lambda name: -extra[name])[:_MOST]
    for name in shown:
        yield _time(name, *pairs[name], total, witness)
    if shown and (rest := [pair for name, pair in pairs.items() if name not in shown]):
        yield _time(ELSE, sum(then for then, _ in rest), sum(now for _, now in rest), total, witness)


def _time(name: str, old: int, new: int, total: int, witness: str) -> Cause:
    change = new / old - 1 if old else None
    return Cause("operator", name, _milliseconds(old), _milliseconds(new), change, (new - old) / total, witness)


def _milliseconds(nanoseconds: int) -> str:
    return f"{nanoseconds / 1e6:.3g} ms"


def _counts(old: WorkCount, new: WorkCount, reading: Reading) -> Iterator[Cause]:
    """The operators that ran more or less often, or with results of another size."""
    for each in differences(old, new, reading.allowance)[:_MOST]:
        (then, now), unit = (each.old.number, each.new.number), ""
        if then == now:
            (then, now), unit = (each.old.bytes, each.new.bytes), " bytes"
        change = now / then - 1 if then else None
        yield Cause("count", each.operator, f"{then}{unit}", f"{now}{unit}", change, witness=reading.witness)


def _software(old: Facts, new: Facts) -> Iterator[Cause]:
    """Releases, builds, variables and libraries; only that something differs where no more is known."""
    if old.software is not None and new.software is not None:
        yield from (Cause("software", sentence) for sentence in old.software.differences(new.software))
        return
    changed = [name for name in {**old.versions, **new.versions} if old.versions.get(name) != new.versions.get(name)]
    for name in changed:
        yield Cause("software", name, old.versions.get(name, "absent"), new.versions.get(name, "absent"))
    if not changed and old.identity and new.identity and old.identity != new.identity:
        yield Cause("software", "another build of the same releases")


def _settings(old: Facts, new: Facts) -> Iterator[Cause]:
    values = {
        "threads": (old.case.threads, new.case.threads),
        "chunk": (old.case.chunk, new.case.chunk),
        "own settings": (in_words(old.case.settings) or "none", in_words(new.case.settings) or "none"),
        "protocol": (old.case.protocol, new.case.protocol),
        "model": (old.model_hash[:12], new.model_hash[:12]),
    }
    yield from _changed("settings", values)


def _machine(old: Facts, new: Facts) -> Iterator[Cause]:
    values: dict[str, tuple[object, object]] = {
        "device": (old.device.name, new.device.name),
        "driver": (old.device.detail, new.device.detail),
    }
    if old.fingerprint is not None and new.fingerprint is not None:
        values |= old.fingerprint.differences(new.fingerprint)
    if old.system is not None and new.system is not None:
        values["operating system"] = (old.system.operating_system, new.system.operating_system)
        values["memory"] = (old.system.memory_bytes, new.system.memory_bytes)
        drivers = {**old.system.drivers, **new.system.drivers}
        values |= {name: (old.system.drivers.get(name, ""), new.system.drivers.get(name, "")) for name in drivers}
    yield from _changed("machine", values)
    if abs(new.foreign - old.foreign) > MIN_CONTENTION:
        yield Cause("machine", "processor time that others took", f"{old.foreign:.0%}", f"{new.foreign:.0%}")


def _changed(kind: CauseKind, values: Mapping[str, tuple[object, object]]) -> Iterator[Cause]:
    for name, (then, now) in values.items():
        if then != now:
            yield Cause(kind, name, _words(then), _words(now))


def _words(value: object) -> str:
    return ", ".join(map(str, value)) or "none" if isinstance(value, tuple) else str(value)
