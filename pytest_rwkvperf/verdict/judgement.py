"""The verdict on one item with everything a report says about it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import msgspec

from pytest_rwkvperf.core.cases import Item, Workload, told_apart
from pytest_rwkvperf.core.text import printable
from pytest_rwkvperf.stats.estimates import Rate, estimate_rate
from pytest_rwkvperf.stats.levels import Level, Timed, level
from pytest_rwkvperf.stats.paired import compare_pairs
from pytest_rwkvperf.stats.spread import ASSUMED, Belief, Spread, process_spread
from pytest_rwkvperf.stats.verdicts import (
    CROWDED_SHARE,
    IDLE_SHARE,
    MOST_SESSIONS,
    Comparison,
    Old,
    Verdict,
    calm,
    comparable,
    compare,
    machine_slowdown,
)
from pytest_rwkvperf.store.baseline import Noise

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from pytest_rwkvperf.core.cases import WorkloadKind
    from pytest_rwkvperf.machine.fingerprint import Fingerprint
    from pytest_rwkvperf.measure.record import CaseRecord, Pairing
    from pytest_rwkvperf.store.baseline import Baseline, StoredCase

VoidedBy = Literal["", "watched", "gpu"]
"""What took a verdict away that the figures would bear: a debugger, a coverage tool or the like, or the GPU's state."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """One item's verdict; `new` and `old` in tokens per second, `reason` one sentence for a person.

    `parity` is the largest relative L2 of the engine's logits from the oracle's.
    """

    item: Item
    verdict: Verdict
    reason: str
    tolerance: float
    new: Rate | None = None
    old: Rate | None = None
    comparison: Comparison | None = None
    parity: float | None = None
    voided: VoidedBy = ""


@dataclass(frozen=True, slots=True)
class Reference:
    """What there is to compare with: this machine's baseline, or else the other machine that is most alike."""

    fingerprint: Fingerprint
    baseline: Baseline | None
    nearest: Fingerprint | None

    def belief(self, workload: Workload) -> Belief:
        """What is assumed of this machine's noise, after what an A/A run has found out about this kind of workload."""
        found = self.baseline.noise.get(workload.kind) if self.baseline else None
        return ASSUMED if found is None else ASSUMED.after(Spread(found.spread**2, found.freedom))


def judge(record: CaseRecord, item: Item, reference: Reference, tolerance: float, items: int) -> Judgement:
    """Compare one workload of a record with its baseline at ALPHA / items.

    Raises:
        MeasurementError: the new samples carry no figure.
    """
    taken = _Taken(
        item,
        record.timed(item.workload),
        record.probe_version,
        (record.model.content_hash, record.device.name, record.protocol),
        early=record.ended_by == "verdict",
    )
    return void(replace(_judge(taken, reference, tolerance, items), parity=record.parity), "gpu", record.doubt)


def void(judged: Judgement, by: VoidedBy, why: str) -> Judgement:
    """The judgement as INCONCLUSIVE where there is a reason `why`; one without a comparison is no verdict already."""
    if not why or judged.comparison is None:
        return judged
    reason = f"{why}, so no verdict rests on these figures ({judged.reason})"
    return replace(judged, verdict="INCONCLUSIVE", reason=reason, voided=by)


def judge_stored(stored: StoredCase, item: Item, reference: Reference, tolerance: float, items: int) -> Judgement:
    """The same for a stored case's newest session that timed the workload, judged as at a run's end.

    Raises:
        MeasurementError: the stored times carry no figure.
    """
    name = str(item.workload)
    newest = stored.reference(name)[-1]
    facts = (stored.model_hash, stored.device.name, newest.protocol)
    taken = _Taken(item, newest.timed(name, newest.probe_version), newest.probe_version, facts, early=False)
    return _judge(taken, reference, tolerance, items)


@dataclass(frozen=True, slots=True)
class _Taken:
    """New times of an item; `facts` are model content, device name and protocol, which must be the stored ones'."""

    item: Item
    timed: Timed
    probe_version: str
    facts: tuple[str, str, int]
    early: bool


def _judge(taken: _Taken, reference: Reference, tolerance: float, items: int) -> Judgement:
    item, tokens = taken.item, taken.item.workload.tokens
    new = estimate_rate(taken.timed.times, tokens)
    stored = reference.baseline.cases.get(item.case.key) if reference.baseline else None
    reason = printable(_no_reference(taken, reference, stored))  # it may name a stored device
    if stored is None or reason:
        return Judgement(item, "NO-BASELINE", reason, tolerance, new)
    against = stored.held_against(str(item.workload), taken.probe_version)
    old = estimate_rate([row for session in against.sessions for row in session.times], tokens)
    against = replace(against, belief=reference.belief(item.workload))
    comparison = compare(taken.timed, against, tolerance, items, early=taken.early)
    times = (taken.timed, against)
    reason = _explain(comparison) + _moved(machine_slowdown(*times)) + _busy(*times) + _apart(*times)
    return Judgement(item, comparison.verdict, reason, tolerance, new, old, comparison)


def judge_pairs(pairing: Pairing, item: Item, tolerance: float, items: int) -> Judgement:
    """Compare two environments that were measured in alternation; no baseline is needed.

    A GPU's doubt is told beside it and takes no verdict away: both sides alternate under the same conditions.

    Raises:
        MeasurementError: the samples carry no figure.
    """
    tokens = item.workload.tokens
    new, old = (estimate_rate(side.times(item.workload), tokens) for side in (pairing.new, pairing.old))
    comparison = compare_pairs(pairing.log_ratios(item.workload), tolerance, items)
    reason = f"{_explain(comparison)}; {len(pairing.new.runs)} pairs, {_versions(pairing)}"
    return Judgement(item, comparison.verdict, reason, tolerance, new, old, comparison, pairing.new.parity)


def noise_of(pairings: Sequence[Pairing], recorded: str) -> dict[WorkloadKind, Noise]:
    """How far processes of the same code lie apart, by kind of workload, from an A/A run's pairings.

    Raises:
        MeasurementError: the samples carry no figure.
    """
    levels: dict[WorkloadKind, list[list[Level]]] = {}
    for pairing in pairings:
        for name in pairing.new.runs[0].samples:
            workload = Workload.parse(name)
            sides = [level(side.timed(workload), "fast") for side in (pairing.new, pairing.old)]
            levels.setdefault(workload.kind, []).append(sides)
    spreads = {kind: process_spread(items) for kind, items in levels.items()}
    return {kind: Noise(recorded, math.sqrt(one.variance), one.freedom) for kind, one in spreads.items()}


def _versions(pairing: Pairing) -> str:
    """What was compared: the versions that differ, or that none does."""
    new, old = pairing.new.versions, pairing.old.versions
    names = sorted(name for name in {*new, *old} if new.get(name) != old.get(name))
    if not names:
        return "the same versions on both sides"
    return ", ".join(f"{name} {old.get(name, 'none')} -> {new.get(name, 'none')}" for name in names)


def invalid(item: Item, tolerance: float, reason: str) -> Judgement:
    """The verdict on figures that no verdict may rest on."""
    return Judgement(item, "INVALID", reason, tolerance)


def to_json(judgement: Judgement) -> str:
    """As text, for the trip from an xdist worker to the process that prints the summary."""
    return msgspec.json.encode(judgement).decode()


def from_json(text: str) -> Judgement:
    """Read what `to_json` wrote."""
    return msgspec.json.decode(text, type=Judgement)


def figures(judgement: Judgement) -> Iterator[tuple[str, str]]:
    """What a JUnit file says of a test, as properties that other programs can plot."""
    yield "rwkv_verdict", judgement.verdict
    if (new := judgement.new) is not None:
        yield "rwkv_tokens_per_second", f"{new.median:.6g}"
        yield "rwkv_tokens_per_second_low", f"{new.low:.6g}"
        yield "rwkv_tokens_per_second_high", _bound(new.high, ".6g")
    if (old := judgement.old) is not None:
        yield "rwkv_baseline_tokens_per_second", f"{old.median:.6g}"
        yield "rwkv_baseline_tokens_per_second_low", f"{old.low:.6g}"
        yield "rwkv_baseline_tokens_per_second_high", _bound(old.high, ".6g")
    if judgement.comparison is not None:
        yield "rwkv_ratio", f"{judgement.comparison.ratio:.6g}"
        yield "rwkv_ratio_low", f"{judgement.comparison.low:.6g}"
        yield "rwkv_ratio_high", _bound(judgement.comparison.high, ".6g")
    if judgement.parity is not None:
        yield "rwkv_parity", f"{judgement.parity:.3g}"


def each_told_apart(judgements: Iterable[Judgement]) -> list[Judgement]:
    """Each with its case as people are shown it beside the others' (cases.told_apart)."""
    found = list(judgements)
    shown = told_apart(one.item.case for one in found)
    return [replace(one, item=replace(one.item, case=shown[one.item.case])) for one in found]


def describe(judgement: Judgement) -> str:
    """Old, new, ratio and interval: what a failing test prints."""
    reason = printable(judgement.reason)
    lines = [f"{judgement.verdict}: {judgement.item.case.label} {judgement.item.workload}", f"  {reason}"]
    if judgement.new is not None:
        lines.append(f"  new    {_rate(judgement.new)}")
    if judgement.old is not None:
        lines.append(f"  old    {_rate(judgement.old)}")
    if (comparison := judgement.comparison) is not None:
        lines.append(
            f"  ratio  {comparison.ratio:.3f} (new / old, of {_most(comparison)}), "
            f"bounds {comparison.low:.3f} to {_bound(comparison.high, '.3f')}, "
            f"each wrong with a chance of {comparison.alpha:.2%}; tolerance {comparison.tolerance:.1%}, "
            f"smallest slowdown found 19 times in 20: {_detectable(comparison)}"
        )
    return "\n".join(lines)


def _rate(rate: Rate) -> str:
    return (
        f"{rate.median:.2f} tokens/s, 95 % interval {rate.low:.2f} to {_bound(rate.high, '.2f')} "
        f"({rate.processes} processes, {rate.samples} samples)"
    )


def _bound(value: float | None, spec: str) -> str:
    return format(math.inf if value is None else value, spec)


def _most(comparison: Comparison) -> str:
    """Whose ratio it is: the table's figures are medians of all repetitions."""
    return "most repetitions" if comparison.paired else "the fast repetitions"


def _detectable(comparison: Comparison) -> str:
    return "none" if comparison.detectable is None else f"{comparison.detectable:.1%}"


def _explain(comparison: Comparison) -> str:
    floor, ceiling = 1 / (1 + comparison.tolerance), 1 + comparison.tolerance
    if comparison.mean is not None and comparison.only_mean_regressed:
        return (
            f"{_most(comparison)} are as fast as the bounds say, but all together they take longer: their ratio of "
            f"{comparison.mean.ratio:.3f} lies wholly below {floor:.3f}, so some repetitions got slower (tail)"
        )
    plain = {
        "REGRESSION": f"the ratio lies wholly below {floor:.3f}",
        "IMPROVEMENT": f"the ratio lies wholly above {ceiling:.3f}",
        "PASS": f"the ratio lies wholly above {floor:.3f}",
    }.get(comparison.verdict, f"the ratio's bounds hold {floor:.3f}: noise hides whether the tolerance was passed")
    return plain + (_what_would_settle(comparison) if comparison.verdict == "INCONCLUSIVE" else "")


def _busy(new: Timed, old: Old) -> str:
    """A machine that others worked on is named, here and when the baseline was stored."""
    shares = (("", new.foreign), ("stored ", max(one.foreign for one in calm(old.sessions))))
    busy = [f"{which}{share:.0%}" for which, share in shares if share > IDLE_SHARE]
    effect = f"which widens the bounds, and beyond {CROWDED_SHARE:.0%} voids them"
    if max(share for _, share in shares) > CROWDED_SHARE:
        effect += " (measure or store again when it is idle, or take --rwkv-ab)"
    return f"; other processes took {' and '.join(busy)} of the processor, {effect}" if busy else ""


def _moved(slowdown: float) -> str:
    """A machine that the probes say was slower or faster is named; `slowdown` is a logarithm."""
    if abs(slowdown) <= IDLE_SHARE:
        return ""
    how, bound = ("slower", "upper") if slowdown > 0 else ("faster", "lower")
    by = math.expm1(abs(slowdown))
    return f"; by its probes the machine was {by:.0%} {how}, which widens the {bound} bound"


def _apart(new: Timed, old: Old) -> str:
    """Processors that stood otherwise than in every stored session are named."""
    if comparable(new, old.sessions):
        return ""
    there = " or ".join(sorted({f"{one.handover / 1e3:.0f}" for one in calm(old.sessions) if one.handover}))
    return (
        f"; the processors handed work over in {(new.handover or 0) / 1e3:.0f} microseconds, in the stored sessions in "
        f"{there}: their host had put them elsewhere, which voids the bounds (run again, or take --rwkv-ab)"
    )


def _what_would_settle(comparison: Comparison) -> str:
    if comparison.settled_by is not None:
        return f"; {comparison.settled_by} stored sessions would tell, if it stays so"
    if comparison.paired:
        return "; more pairs would tell (--rwkv-budget)"
    if comparison.detectable is None:  # no number of sessions helps; what does is said with what voided the bounds
        return ""
    return (
        f"; not even {MOST_SESSIONS} stored sessions would tell if they lay as far apart as is believed now: store "
        "more, which shows a quiet machine to be one, or take --rwkv-ab, or a wider --rwkv-tolerance"
    )


def _no_reference(taken: _Taken, reference: Reference, stored: StoredCase | None) -> str:
    """Why nothing stored can be compared with, naming the fields that differ; empty when something can."""
    item = taken.item
    content, device, protocol = taken.facts
    if reference.baseline is None:
        if reference.nearest is None:
            return "no baseline is stored yet; --rwkv-save-baseline stores one"
        return (
            f"the stored machines differ from this one in {_differences(reference)}; "
            "--rwkv-save-baseline stores this one's beside them"
        )
    if stored is None:
        return f"this machine's baseline lacks the case {item.case.key!r}; --rwkv-save-baseline adds it"
    pairs = {
        "model content": (stored.model_hash[:12], content[:12]),
        "device": (stored.device.name, device),
    }
    sessions = stored.reference(str(item.workload))
    if sessions:
        pairs["protocol"] = (str(sessions[-1].protocol), str(protocol))
    differing = [f"{name} ({old} stored, {new} here)" for name, (old, new) in pairs.items() if old != new]
    if differing:
        return f"the stored case differs in {', '.join(differing)}; --rwkv-save-baseline=replace stores it anew"
    return "" if sessions else f"the stored case has no {item.workload}; --rwkv-save-baseline adds it"


def _differences(reference: Reference) -> str:
    assert reference.nearest is not None  # noqa: S101 - the caller has asked
    fields = reference.fingerprint.differences(reference.nearest)
    return ", ".join(f"{name} ({_said(there)} stored, {_said(here)} here)" for name, (here, there) in fields.items())


def _said(value: object) -> str:
    """A field of a fingerprint in words; of several GPUs each."""
    if isinstance(value, tuple):
        return " and ".join(map(repr, value)) or "none"
    return repr(value)
