"""What witnesses add to a verdict: whether the code does more work than before, and by which operators.

They never change a verdict of times: a slowdown without more work (memory, clock, caches) is a slowdown.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_rwkvperf.core.work import WorkJudgement, comparable_counts, differences
from pytest_rwkvperf.stats.estimates import time_ratio

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_rwkvperf.core.cases import Workload
    from pytest_rwkvperf.core.work import Difference, Reading, WorkCount, WorkVerdict

_NAMED = 3
"""Operators that a sentence names."""

_REPEATED = 3
"""Repetitions of each side whose times have an interval."""

_GRAVEST_FIRST: tuple[WorkVerdict, ...] = ("MORE WORK", "OTHER WORK", "LESS WORK", "SAME WORK")


def judge(new: Sequence[Reading], old: Sequence[Reading], workload: Workload) -> WorkJudgement | None:
    """What the readings of both sides say of a workload; None where none of one side is like one of the other."""
    found = [_compared(reading, now, then) for reading, then, now in comparable_counts(old, new, str(workload))]
    if not found:
        return None
    verdicts = {verdict for verdict, _ in found}
    gravest = next(verdict for verdict in _GRAVEST_FIRST if verdict in verdicts)
    return WorkJudgement(gravest, tuple(sentence for _, sentence in found))


def _compared(reading: Reading, new: WorkCount, old: WorkCount) -> tuple[WorkVerdict, str]:
    """The verdict of one witness, with its sentence."""
    changed = differences(old, new, reading.allowance)
    verdict = _verdict(reading, new, old, changed)
    total = f"{new.count} {reading.unit} for {new.tokens} tokens"
    timed = _timed(new, old)
    if verdict == "SAME WORK" and not reading.allowance:
        return verdict, f"the same {total}, by the same operators{timed}"
    total += f" ({_percent(new.count, old.count)})"
    if verdict == "SAME WORK":
        return verdict, f"{total}, by the same operators{timed}"
    named = ", ".join(f"{each.operator} {_change(each)}" for each in changed[:_NAMED])
    more = f" and {len(changed) - _NAMED} more operators" if len(changed) > _NAMED else ""
    sizes = f", {_percent(new.bytes, old.bytes)} bytes of results" if new.bytes != old.bytes else ""
    return verdict, f"{total}{sizes}: {named}{more}{timed}"


def _verdict(reading: Reading, new: WorkCount, old: WorkCount, changed: Sequence[Difference]) -> WorkVerdict:
    least = reading.allowance * old.count
    for now, then in ((new.count, old.count), (new.bytes, old.bytes)):
        if now > then + least:
            return "MORE WORK"
        if now < then - least:
            return "LESS WORK"
    return "OTHER WORK" if changed else "SAME WORK"


def _timed(new: WorkCount, old: WorkCount) -> str:
    """How the time of the repetitions changed, where both sides have several: no part of the verdict."""
    if min(len(new.nanoseconds), len(old.nanoseconds)) < _REPEATED:
        return ""
    ratio, low, high = (each - 1 for each in time_ratio(new.nanoseconds, old.nanoseconds))
    return f"; device time {ratio:+.1%} (95 % interval {low:+.1%} to {high:+.1%})"


def _change(each: Difference) -> str:
    if each.old.number != each.new.number:
        return f"{each.old.number} → {each.new.number}"
    return f"{each.old.bytes} → {each.new.bytes} bytes"


def _percent(new: int, old: int) -> str:
    return f"{new / old - 1:+.2%}" if old else "none before"
