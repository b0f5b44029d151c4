"""Words for verdicts: the sentence that says why an item has its verdict, and what a failing test prints."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pytest_rwkvperf.core.cause import why
from pytest_rwkvperf.core.text import printable
from pytest_rwkvperf.stats.paired import LOOKS
from pytest_rwkvperf.stats.slowdown import percent_slower
from pytest_rwkvperf.stats.verdicts import (
    MAX_CONTENTION,
    MAX_SESSIONS,
    MIN_CONTENTION,
    Comparison,
    StoredSessions,
    comparable,
    machine_slowdown,
    uncontended,
)
from pytest_rwkvperf.verdict.judged import upper_bound

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_rwkvperf.measure.record import Pairing
    from pytest_rwkvperf.stats.estimates import Rate
    from pytest_rwkvperf.stats.levels import SessionTimes
    from pytest_rwkvperf.store.baseline import StoredCase
    from pytest_rwkvperf.verdict.judged import Judgement, NewTimes, Reference


_TWO_DIGITS, _THREE_DIGITS = 10, 100

_SHOWN_DRIFT = 1e-3
"""The smallest drift of a log time that is shown: less is not seen in the digits that are printed."""


def describe(judgement: Judgement, repeat: str = "") -> str:
    """What a failing test prints: how much slower, why, with which versions, since when, and how to `repeat` it.

    The percentage comes first: pytest's short summary shows the beginning of the first line.
    """
    verdict = "REGRESSION: " if judgement.verdict == "REGRESSION" else ""  # of others the headline says it
    lines = [headline(judgement), f"  {verdict}{printable(judgement.reason)}"]
    if judgement.software:
        lines.append(f"  with   {printable(judgement.software)}")
    if judgement.stored:
        lines.append(f"  since  {printable(judgement.stored)}")
    if judgement.new is not None:
        lines.append(f"  new    {_rate(judgement.new)}")
    if judgement.old is not None:
        drift = judgement.comparison.drift if judgement.comparison else 0.0
        now = f", with the machine's drift: {percent_slower(math.exp(-drift))}" if abs(drift) >= _SHOWN_DRIFT else ""
        lines.append(f"  old    {_rate(judgement.old)}{now}")
    if (comparison := judgement.comparison) is not None:
        deciding = comparison.deciding
        of = "all repetitions' mean" if comparison.only_mean_regressed else "the fast repetitions"
        lines.append(
            f"  ratio  {deciding.ratio:.3f} (new / old, of {of}), "
            f"bounds {deciding.low:.3f} to {upper_bound(deciding.high, '.3f')}, "
            f"wrong with a chance of {comparison.wrong_pass or comparison.alpha:.2%} (lower) "
            f"and {comparison.alpha:.2%} (upper); "
            f"tolerance {comparison.tolerance:.1%}, {_probability(comparison)}"
            f"smallest slowdown found 19 times in 20: {_detectable(comparison)}"
        )
    if judgement.work is not None:
        lines += [f"  work   {judgement.work.verdict}: {printable(each)}" for each in judgement.work.sentences]
    if judgement.verdict == "REGRESSION":
        lines += [f"  why    {printable(sentence)}" for sentence in why(judgement.causes)]
    if repeat:
        lines.append(f"  repeat {printable(repeat)}")
    return "\n".join(lines)


def headline(judgement: Judgement) -> str:
    """A judgement as one short line: `-37 % (5506 → 3483 t/s, limit 15 %) llama-cpp f16 pp64`."""
    case = judgement.item.case
    place = "" if case.device == "cpu" else f" {case.device}"
    item = f"{case.backend} {case.variant}{place} {judgement.item.workload}"
    change = changed(judgement.comparison, judgement.new, judgement.old, judgement.tolerance)
    if not change or judgement.verdict != "REGRESSION":
        item = f"{judgement.verdict} {item}"
    return f"{change} {item}" if change else item


def changed(comparison: Comparison | None, new: Rate | None, old: Rate | None, tolerance: float | None) -> str:
    """How a speed changed: `-37 % (5506 → 3483 t/s, limit 15 %)`; empty where nothing was compared."""
    if comparison is None or new is None or old is None:
        return ""
    limit = "" if tolerance is None else f", limit {_digits(100 * tolerance)} %"
    ratio = comparison.deciding.ratio
    return f"{_signed(100 * (ratio - 1))} % ({_digits(old.median)} → {_digits(new.median)} t/s{limit})"


def _signed(percent: float) -> str:
    return f"{percent:+.0f}" if abs(percent) >= _TWO_DIGITS else f"{percent:+.1f}"


def _digits(value: float) -> str:
    """A number with about three digits, and without a fraction of zero."""
    return f"{value:.0f}" if value >= _THREE_DIGITS else f"{value:.3g}"


def _rate(rate: Rate) -> str:
    return (
        f"{rate.median:.2f} tokens/s, 95 % interval {rate.low:.2f} to {upper_bound(rate.high, '.2f')}{rate.remark} "
        f"({rate.processes} processes, {rate.samples} samples)"
    )


def _probability(comparison: Comparison) -> str:
    probability = comparison.probability_exceeded
    return "" if probability is None else f"exceeded with a probability of {probability:.2%}; "


def _detectable(comparison: Comparison) -> str:
    return "none" if comparison.detectable is None else f"{comparison.detectable:.1%}"


def compared(comparison: Comparison, new: SessionTimes, stored: StoredSessions) -> str:
    """Why a comparison with stored sessions has its verdict, and what widened its bounds."""
    conditions = (
        _slowdown(machine_slowdown(new, stored)),
        _contention(new, stored),
        _placement(new, stored),
    )
    return _bounds(comparison) + "".join(conditions)


def compared_pairs(comparison: Comparison, pairing: Pairing) -> str:
    """Why an A/B comparison has its verdict, with the number of pairs, the versions that differ and the neighbours."""
    foreign, used = pairing.new.conditions.foreign, pairing.new.fewer_threads
    crowded = f"; other processes took {foreign:.0%} of the processors" if foreign > MIN_CONTENTION else ""
    if used is not None:
        threads = pairing.new.case.threads
        crowded += f"; with {used} of {threads} threads, because other processes used the rest of the processors"
    return f"{_bounds(comparison, len(pairing.new.runs))}; {len(pairing.new.runs)} pairs, {_versions(pairing)}{crowded}"


def versions(old: Mapping[str, str], new: Mapping[str, str]) -> str:
    """The versions of an engine and its parts, those that differ as old → new; if none does, the engine's own."""
    names = sorted(name for name in {*new, *old} if new.get(name) != old.get(name))
    changes = [f"{name} {old.get(name, 'none')} → {new.get(name, 'none')}" for name in names]
    same = [f"{name} {version}, as the old figures" for name, version in new.items()][:1]
    return ", ".join(changes or same)


def _versions(pairing: Pairing) -> str:
    """What differs between the sides: releases, and builds of one release by what was loaded."""
    new, old = pairing.new, pairing.old
    changes = [versions(old.versions, new.versions)] if new.versions != old.versions else []
    if new.software is None or old.software is None:
        return ", ".join(changes) or "the same versions on both sides"
    return ", ".join(dict.fromkeys([*changes, *old.software.differences(new.software)])) or (
        "the same software on both sides"
    )


def _bounds(comparison: Comparison, pairs: int = 0) -> str:
    """Where the bounds lie. `pairs` is the number of pairs of an A/B comparison."""
    floor, ceiling = 1 / (1 + comparison.tolerance), 1 + comparison.tolerance
    if comparison.mean is not None and comparison.only_mean_regressed:
        return (
            "the fast repetitions are as fast as the bounds say, but all together they take longer: their ratio "
            f"of {comparison.mean.ratio:.3f} lies wholly below {floor:.3f}, so some repetitions got slower (tail)"
        )
    plain = {
        "REGRESSION": f"the ratio lies wholly below {floor:.3f}",
        "IMPROVEMENT": f"the ratio lies wholly above {ceiling:.3f}",
        "PASS": f"the ratio lies wholly above {floor:.3f}",
    }.get(comparison.verdict, f"the ratio's bounds hold {floor:.3f}: noise hides whether the tolerance was passed")
    return plain + (_what_would_settle(comparison, pairs) if comparison.verdict == "INCONCLUSIVE" else "")


def _what_would_settle(comparison: Comparison, pairs: int) -> str:
    if comparison.settled_by is not None:
        return f"; {comparison.settled_by} stored sessions would tell, if it stays so"
    if comparison.paired:
        return "; more pairs would tell (--rwkv-budget)" if pairs < LOOKS[-1] else "; more pairs are not measured"
    if comparison.detectable is None:  # no number of sessions helps; what does is said with what voided the bounds
        return ""
    return (
        f"; not even {MAX_SESSIONS} stored sessions would tell if they lay as far apart as is believed now: store "
        "more, which shows a quiet machine to be one, or take --rwkv-ab, or a wider --rwkv-tolerance"
    )


def _slowdown(log_factor: float) -> str:
    """A clause for probes that were slower or faster than in the stored sessions; empty where they hardly were."""
    if abs(log_factor) <= MIN_CONTENTION:
        return ""
    how, which = percent_slower(math.exp(-log_factor)), "upper" if log_factor > 0 else "lower"
    return f"; by its probes the machine was {how}, which widens the {which} bound"


def _contention(new: SessionTimes, stored: StoredSessions) -> str:
    """A clause for what other processes took of the processor, now or when the baseline was stored; empty if little."""
    shares = (("", new.foreign), ("stored ", max(session.foreign for session in uncontended(stored.sessions))))
    named = [f"{when}{share:.0%}" for when, share in shares if share > MIN_CONTENTION]
    effect = f"which widens the bounds, and beyond {MAX_CONTENTION:.0%} voids them"
    if max(share for _, share in shares) > MAX_CONTENTION:
        effect += " (measure or store again when it is idle, or take --rwkv-ab)"
    return f"; other processes took {' and '.join(named)} of the processor, {effect}" if named else ""


def _placement(new: SessionTimes, stored: StoredSessions) -> str:
    """A clause for processors that were placed differently in every stored session; empty where they were not."""
    if comparable(new, stored.sessions):
        return ""
    handovers = sorted(
        {f"{session.handover / 1e3:.0f}" for session in uncontended(stored.sessions) if session.handover}
    )
    return (
        f"; the threads handed work over in {(new.handover or 0) / 1e3:.0f} microseconds, in the stored sessions in "
        f"{' or '.join(handovers)}: the host placed the processors differently, which voids the bounds (run again, or "
        "take --rwkv-ab)"
    )


def no_reference(new: NewTimes, reference: Reference, stored: StoredCase | None) -> str:
    """Why nothing stored can be compared with, naming the fields that differ; empty where something can."""
    content, device, protocol = new.facts
    if reference.baseline is None:
        if reference.nearest is None:
            return "no baseline is stored yet; --rwkv-save-baseline stores one"
        fields = reference.fingerprint.differences(reference.nearest)
        differing = [f"{name} ({_field(there)} stored, {_field(here)} here)" for name, (here, there) in fields.items()]
        return (
            f"the stored machines differ from this one in {', '.join(differing)}; "
            "--rwkv-save-baseline stores this one's beside them"
        )
    if stored is None:
        return f"this machine's baseline lacks the case {new.item.case.key!r}; --rwkv-save-baseline adds it"
    pairs = {
        "model content": (stored.model_hash[:12], content[:12]),
        "device": (stored.device.name, device),
    }
    sessions = stored.comparable_sessions(str(new.item.workload))
    if sessions:
        pairs["protocol"] = (str(sessions[-1].protocol), str(protocol))
    differing = [f"{name} ({old} stored, {here} here)" for name, (old, here) in pairs.items() if old != here]
    if differing:
        return f"the stored case differs in {', '.join(differing)}; --rwkv-save-baseline=replace stores it anew"
    return "" if sessions else f"the stored case has no {new.item.workload}; --rwkv-save-baseline adds it"


def _field(value: object) -> str:
    """A field of a fingerprint in words; each of several GPUs."""
    if isinstance(value, tuple):
        return " and ".join(map(repr, value)) or "none"
    return repr(value)
