"""What judging takes and gives: an item's new times, what they are compared with, and the judgement."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import msgspec

from pytest_rwkvperf.core.cases import Item, disambiguated
from pytest_rwkvperf.core.cause import Cause
from pytest_rwkvperf.core.work import Reading, WorkJudgement
from pytest_rwkvperf.stats.estimates import Rate
from pytest_rwkvperf.stats.shrinkage import PROCESS_PRIOR
from pytest_rwkvperf.stats.spread import PRIOR, Belief, Spread
from pytest_rwkvperf.stats.verdicts import Comparison, Step, Verdict, VoidedBy
from pytest_rwkvperf.store.record import RecordedItem

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from pytest_rwkvperf.core.cases import Workload
    from pytest_rwkvperf.machine.fingerprint import Fingerprint
    from pytest_rwkvperf.stats.levels import SessionTimes
    from pytest_rwkvperf.store.baseline import Baseline


@dataclass(frozen=True, slots=True)
class NewTimes:
    """New times of an item.

    `facts` are model content, device name and protocol: times are compared only with stored ones of the same.
    `ended_early` says that measuring ended at a look, by its verdicts; `witnesses` counted the engine's work. The
    `versions` are the engine's and its parts'.
    """

    item: Item
    times: SessionTimes
    probe_version: str
    facts: tuple[str, str, int]
    ended_early: bool
    witnesses: tuple[Reading, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Reference:
    """What there is to compare with: this machine's baseline, or else the fingerprint of the most similar machine."""

    fingerprint: Fingerprint
    baseline: Baseline | None
    nearest: Fingerprint | None

    def belief(self, workload: Workload) -> Belief:
        """The belief about this machine's spread, with what an A/A run has measured for this kind of workload."""
        noise = self.baseline.noise.get(workload.kind) if self.baseline else None
        return PRIOR if noise is None else PRIOR.after(Spread(noise.spread**2, noise.freedom))

    def process_spread(self, workload: Workload) -> Spread:
        """How far processes lie apart on this machine."""
        return self.baseline.process_spread(workload.kind) if self.baseline else PROCESS_PRIOR


@dataclass(frozen=True, slots=True)
class Judgement:
    """One item's verdict with everything that reports say about it.

    `new` and `old` are in tokens per second, of the statistic that decided, so that their quotient is the ratio
    `comparison.deciding`; where nothing was compared, `new` is of the processes' medians. `reason` is one sentence for
    a person, `parity` the largest relative L2 of the engine's logits from the oracle's, `work` what witnesses say.
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
    step: Step = ""
    work: WorkJudgement | None = None
    software: str = ""
    """The engine's versions, those that differ from the old figures' as old → new."""
    stored: str = ""
    """When the stored figures that it was compared with were recorded, and in which file they are."""
    causes: tuple[Cause, ...] = ()
    """What differs from what a REGRESSION was compared with, what weighs most first; empty for other verdicts."""


def recorded_item(judgement: Judgement, *, fails: bool) -> RecordedItem:
    """As the measurement record has it."""
    return RecordedItem(
        workload=str(judgement.item.workload),
        verdict=judgement.verdict,
        reason=judgement.reason,
        fails=fails,
        tolerance=judgement.tolerance,
        rate=judgement.new,
        baseline=judgement.old,
        comparison=judgement.comparison,
        voided=judgement.voided,
        step=judgement.step,
        work=judgement.work,
        causes=judgement.causes,
    )


def to_json(judgement: Judgement) -> str:
    """As text, for the trip from an xdist worker to the process that prints the summary."""
    return msgspec.json.encode(judgement).decode()


def from_json(text: str) -> Judgement:
    """Read what `to_json` wrote."""
    return msgspec.json.decode(text, type=Judgement)


def junit_properties(judgement: Judgement) -> Iterator[tuple[str, str]]:
    """The properties of a test in a JUnit file, by name; other programs plot them."""
    yield "rwkv_verdict", judgement.verdict
    yield "rwkv_decided_by", judgement.step
    if judgement.work is not None:
        yield "rwkv_work", judgement.work.verdict
    for name, rate in (("rwkv", judgement.new), ("rwkv_baseline", judgement.old)):
        if rate is not None:
            yield f"{name}_tokens_per_second", f"{rate.median:.6g}"
            yield f"{name}_tokens_per_second_low", f"{rate.low:.6g}"
            yield f"{name}_tokens_per_second_high", upper_bound(rate.high, ".6g")
    if (comparison := judgement.comparison) is not None:
        yield "rwkv_ratio", f"{comparison.deciding.ratio:.6g}"
        yield "rwkv_ratio_low", f"{comparison.deciding.low:.6g}"
        yield "rwkv_ratio_high", upper_bound(comparison.deciding.high, ".6g")
    if judgement.parity is not None:
        yield "rwkv_parity", f"{judgement.parity:.3g}"


def upper_bound(value: float | None, spec: str) -> str:
    """An upper bound as text, by a format specification; `inf` where there is none."""
    return format(float("inf") if value is None else value, spec)


def with_distinct_cases(judgements: Iterable[Judgement]) -> list[Judgement]:
    """Each with its case as people are shown it beside the others' (`cases.disambiguated`)."""
    judgements = list(judgements)
    shown = disambiguated(judgement.item.case for judgement in judgements)
    return [replace(each, item=replace(each.item, case=shown[each.item.case])) for each in judgements]
