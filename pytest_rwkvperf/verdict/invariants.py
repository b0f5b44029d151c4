"""Judging an invariant: two workloads of one run, compared within its processes. No stored figure is needed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from pytest_rwkvperf.core.cases import Workload
from pytest_rwkvperf.core.invariants import InvariantQuestion
from pytest_rwkvperf.stats.paired import PairRatio, compare_within
from pytest_rwkvperf.stats.verdicts import DEFAULT_RATES, Comparison, Verdict
from pytest_rwkvperf.store.record import InvariantVerdict, RecordedInvariant
from pytest_rwkvperf.verdict.judged import upper_bound

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_rwkvperf.core.invariants import Invariant
    from pytest_rwkvperf.measure.record import CaseRecord
    from pytest_rwkvperf.stats.verdicts import ErrorRates

_VERDICTS: Mapping[Verdict, InvariantVerdict] = {
    "PASS": "HOLDS",
    "IMPROVEMENT": "HOLDS",
    "REGRESSION": "BROKEN",
    "INCONCLUSIVE": "INCONCLUSIVE",
}

DECIDED: tuple[InvariantVerdict, ...] = ("HOLDS", "BROKEN")
"""Verdicts that end a case's measurement."""


@dataclass(frozen=True, slots=True)
class JudgedInvariant:
    """The answer to a question, and why, in one sentence."""

    question: InvariantQuestion
    verdict: InvariantVerdict
    reason: str
    comparison: Comparison | None = None


def judge(
    record: CaseRecord, question: InvariantQuestion, comparisons: int, *, rates: ErrorRates = DEFAULT_RATES
) -> JudgedInvariant:
    """The verdict on an invariant; `comparisons` is how many of them share the error rates.

    A doubt about the GPU does not void it: both workloads took turns under the same conditions.

    Raises:
        MeasurementError: unusable samples.
    """
    invariant, at_look = question.invariant, record.ended_by == "verdict"
    if invariant.quantity == "memory":
        ratios = _memory_ratios(record, invariant)
    else:
        ratios = record.within(invariant.tested, invariant.reference)
    if not ratios:
        reason = "the GPU's driver does not tell how much memory the engine's process has there"
        return JudgedInvariant(question, "INCONCLUSIVE", reason)
    comparison = compare_within(ratios, question.tolerance, comparisons, rates=rates, at_look=at_look)
    verdict = _VERDICTS[comparison.verdict]
    return JudgedInvariant(question, verdict, _reason(comparison, invariant, len(ratios)), comparison)


def _memory_ratios(record: CaseRecord, invariant: Invariant) -> list[PairRatio]:
    """Log of the memory without a context over that with one, by process; empty where none was noted.

    Without one: after every workload that has none, since what a whole chunk needs is needed to read a context too.
    """
    logs = [_memory_ratio(run.memory, invariant.tested) for run in record.runs if str(invariant.tested) in run.memory]
    return [PairRatio(value, value) for value in logs]


def _memory_ratio(memory: Mapping[str, int], tested: Workload) -> float:
    by_depth = [(each.depth, held) for name, held in memory.items() if (each := Workload.parse(name)).batch == 1]
    before, after = (max(held for depth, held in by_depth if depth == wanted) for wanted in (0, tested.depth))
    return math.log(before / after)


def _reason(comparison: Comparison, invariant: Invariant, processes: int) -> str:
    """What was found, with the interval of the ratio."""
    deciding, tested = comparison.deciding, invariant.tested
    change = 1 / deciding.ratio - 1
    if invariant.quantity == "memory":
        more_memory = f"{abs(change):.1%} {'more' if change > 0 else 'less'} memory"
        found = f"with {tested.depth} tokens of context a process holds {more_memory} than without"
    else:
        longer = f"{abs(change):.1%} {'longer' if change > 0 else 'less time'}"
        found = f"{tested} takes {longer} per token than {invariant.reference}"
    which = " (all repetitions' mean)" if comparison.only_mean_regressed else ""
    ratio = f"ratio {deciding.ratio:.3f}, bounds {deciding.low:.3f} to {upper_bound(deciding.high, '.3f')}"
    more = "; more time would tell (--rwkv-budget)" if comparison.verdict == "INCONCLUSIVE" else ""
    return f"{found} in the same {processes} processes{which}: {ratio}{more}"


def describe(judged: JudgedInvariant) -> str:
    """What a failing test prints."""
    question, comparison = judged.question, judged.comparison
    lines = [
        f"{judged.verdict}: {question.case.label} {question.invariant.name}: expected that {question.invariant.claim}",
        f"  {judged.reason}",
    ]
    if comparison is not None:
        lines.append(
            f"  tolerance {question.tolerance:.1%}; the bounds are wrong with a chance of "
            f"{comparison.wrong_pass or comparison.alpha:.2%} (lower) and {comparison.alpha:.2%} (upper)"
        )
    return "\n".join(lines)


def recorded(judged: JudgedInvariant, *, fails: bool) -> RecordedInvariant:
    """As the measurement record has it."""
    question = judged.question
    return RecordedInvariant(
        name=question.invariant.name,
        claim=question.invariant.claim,
        tested=str(question.invariant.tested),
        reference=str(question.invariant.reference),
        quantity=question.invariant.quantity,
        verdict=judged.verdict,
        reason=judged.reason,
        fails=fails,
        tolerance=question.tolerance,
        comparison=judged.comparison,
    )


def to_json(judged: JudgedInvariant) -> str:
    """As text, for the trip from an xdist worker to the process that prints the summary."""
    return msgspec.json.encode(judged).decode()


def from_json(text: str) -> JudgedInvariant:
    """Read what `to_json` wrote."""
    return msgspec.json.decode(text, type=JudgedInvariant)
