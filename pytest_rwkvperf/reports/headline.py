"""The headline of a report: one sentence on whether something got slower, and the counts of verdicts."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pytest_rwkvperf.reports import wording

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pytest_rwkvperf.store.record import CaseItem, Record, RecordedCase, RecordedItem

Tone = Literal["bad", "unsure", "good", "plain"]

INTERRUPTED = 2
"""pytest's exit status after Ctrl-C and SIGTERM."""

_BROKEN = {"BROKEN", "INVALID"}
"""Verdicts on invariants that do not hold."""

_COUNTS = {
    "REGRESSION": "slower beyond the tolerance",
    "INVALID": "with wrong answers",
    "INCONCLUSIVE": "not settled",
    "PASS": "within the tolerance",
    "IMPROVEMENT": "faster",
    "NO-BASELINE": "without a baseline",
    "": "without a verdict",
}


@dataclass(frozen=True, slots=True)
class Headline:
    """The sentence, how good the news is, and how many workloads have each verdict."""

    sentence: str
    tone: Tone
    counts: tuple[tuple[str, str], ...]
    """Pairs of a verdict and of words such as `9 within the tolerance`."""


def of(record: Record) -> Headline:
    """The headline of a run, which may have been interrupted or have measured nothing."""
    by_verdict: dict[str, list[CaseItem]] = {verdict: [] for verdict in _COUNTS}
    for case, item in record.items():
        by_verdict[item.verdict or ""].append((case, item))
    tone, sentence = _sentence(record, by_verdict)
    if record.exit_status == INTERRUPTED and tone != "bad":
        tone, sentence = "unsure", _interrupted(by_verdict, sentence)
    return Headline(sentence, tone, counts(item for _, item in record.items()))


def counts(items: Iterable[RecordedItem]) -> tuple[tuple[str, str], ...]:
    """How many items have each verdict: pairs of a verdict and words such as `9 within the tolerance`."""
    found: Counter[str] = Counter(item.verdict or "" for item in items)
    return tuple((verdict, f"{found[verdict]} {words}") for verdict, words in _COUNTS.items() if found[verdict])


def _sentence(record: Record, found: dict[str, list[CaseItem]]) -> tuple[Tone, str]:
    total = sum(map(len, found.values()))
    if slower := sorted(found["REGRESSION"], key=ratio_of):
        return "bad", _slower(record, slower, total)
    if wrong := found["INVALID"]:
        engines = list(dict.fromkeys(engine(case) for case, _ in wrong))
        return "bad", f"Wrong answers from {wording.names(engines)}: their speed does not count"
    if broken := _broken(record):
        return "bad", broken
    lost = list(dict.fromkeys(engine(case) for case in record.cases if case.failure))
    if lost:
        return "bad", f"{wording.names(lost)} could not be measured"
    return _without_failures(record, found, total)


def _interrupted(found: dict[str, list[CaseItem]], sentence: str) -> str:
    total = sum(map(len, found.values()))
    if not (judged := total - len(found[""])):
        return "Interrupted before anything was judged"
    return f"Interrupted after {judged} of {wording.count(total, 'workload')}. {sentence}"


def _without_failures(record: Record, found: dict[str, list[CaseItem]], total: int) -> tuple[Tone, str]:
    settled = len(found["PASS"]) + len(found["IMPROVEMENT"])
    if unsettled := len(found["INCONCLUSIVE"]):
        every = "it" if total == 1 else "any workload" if unsettled == total else f"{unsettled} of {total} workloads"
        return "unsure", f"Not settled: noise hides whether {every} got slower"
    if faster := sorted(found["IMPROVEMENT"], key=ratio_of, reverse=True):
        rest = "; nothing got slower" if total > 1 else ""
        return "good", f"{_one(record, faster[0])}{rest}"
    if settled:
        every = "all " if 1 < settled == total else ""
        which = f"{every}{wording.count(settled, 'workload')}"
        return "good", f"Nothing got slower: {which} within the tolerance of {tolerances(record)}"
    return _without_verdicts(record, len(found["NO-BASELINE"]))


def _without_verdicts(record: Record, uncompared: int) -> tuple[Tone, str]:
    invariants = [each for case in record.cases for each in case.invariants]
    if unsettled := sum(each.verdict != "HOLDS" for each in invariants):
        return "unsure", f"Not settled: whether {unsettled} of {wording.count(len(invariants), 'invariant')} hold"
    if invariants:
        return "good", "The invariant holds" if len(invariants) == 1 else f"All {len(invariants)} invariants hold"
    if uncompared:
        why = "no baseline to compare with" if record.against is None else "none comparable with the older run's"
        return "plain", f"{wording.count(uncompared, 'speed')} measured; {why}"
    if measured := sum(item.rate is not None for _, item in record.items()):
        return "plain", f"{wording.count(measured, 'speed')} measured, none judged"
    return "plain", "Nothing was measured"


def _broken(record: Record) -> str:
    """A sentence on invariants that do not hold; empty if all hold."""
    broken = [(case, each) for case in record.cases for each in case.invariants if each.verdict in _BROKEN]
    if not broken:
        return ""
    case, first = broken[0]
    rest = f", nor {len(broken) - 1} more" if len(broken) > 1 else ""
    return f"The invariant {first.name} does not hold on {engine(case)}{rest}"


def _slower(record: Record, slower: list[CaseItem], total: int) -> str:
    if len(slower) == 1:
        return _one(record, slower[0])
    return f"{len(slower)} of {wording.count(total, 'workload')} got slower: {_one(record, slower[0])}"


def _one(record: Record, found: CaseItem) -> str:
    """`pp64 is 35 % slower on rwkv 0.8.32 than on 0.8.31`."""
    case, item = found
    new, old = case.sides(item)
    was, now = (version(side.versions, case.case.backend) if side else "" for side in (old, new))
    than = f" than on {was}" if was and was != now else ""
    which = f" ({' '.join(own)})" if (own := _distinct(record, case)) else ""
    return f"{item.workload} is {wording.change(ratio_of(found))} on {engine(case)}{which}{than}"


def _distinct(record: Record, case: RecordedCase) -> list[str]:
    """What distinguishes a case from others of its engine: quant, device, both or neither."""
    rivals = [other.case for other in record.cases if other.case.backend == case.case.backend]
    quants, devices = {other.variant for other in rivals}, {other.device for other in rivals}
    return [case.case.variant] * (len(quants) > 1) + [case.case.device] * (len(devices) > 1)


def ratio_of(found: CaseItem) -> float:
    """New over old speed, as it was judged; 1 where nothing was compared."""
    comparison = found[1].comparison
    return comparison.deciding.ratio if comparison else 1.0


def engine(case: RecordedCase) -> str:
    """An engine with its version, where that is known."""
    own = version(case.measured.versions, case.case.backend) if case.measured else ""
    return f"{case.case.backend} {own}".rstrip()


def version(versions: dict[str, str], backend: str) -> str:
    """The version that people know an engine by: of the package of its name, else of its first package."""
    return versions.get(backend) or next(iter(versions.values()), "")


def tolerances(record: Record) -> str:
    """The tolerance, or the range of several; empty if nothing was judged."""
    found = sorted({item.tolerance for _, item in record.items() if item.tolerance is not None})
    if not found:
        return ""
    return wording.share(found[0]) if len(found) == 1 else f"{wording.share(found[0])} to {wording.share(found[-1])}"
