"""Judging what was measured: by its software, against this machine's baseline, or in A/B against an old build."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_rwkvperf.core.errors import BaselineError
from pytest_rwkvperf.machine import fingerprint, observers
from pytest_rwkvperf.stats.paired import compare_pairs
from pytest_rwkvperf.stats.verdicts import ErrorRates
from pytest_rwkvperf.store import files
from pytest_rwkvperf.verdict import explaining, invariants, judgement, steps
from pytest_rwkvperf.verdict.judged import Reference

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from pytest_rwkvperf.core.cases import Case, Question
    from pytest_rwkvperf.core.invariants import InvariantQuestion
    from pytest_rwkvperf.measure.record import CaseRecord, Pairing
    from pytest_rwkvperf.run.engines import Engines
    from pytest_rwkvperf.run.settings import Settings
    from pytest_rwkvperf.verdict.invariants import JudgedInvariant
    from pytest_rwkvperf.verdict.judged import Judgement

_FAILING = ("REGRESSION", "INVALID")

_NAMED_CHANGES = 3

_DECIDED = ("PASS", "REGRESSION", "IMPROVEMENT")
"""Verdicts that end a case's measurement; without one, time is spent on precision."""


class Verdicts:
    """Answers a run's questions. Its error rate is spread over its `comparisons`, of which there is at least one."""

    def __init__(
        self, reference: Callable[[], Reference], engines: Engines, settings: Settings, comparisons: int
    ) -> None:
        self._reference = reference
        self._engines = engines
        self._settings = settings
        self._comparisons = comparisons
        self._rates = ErrorRates(settings.false_alarms, settings.wrong_pass)

    def ab_may_follow(self, case: Case) -> bool:
        """Whether A/B against the baseline's software may decide what stored figures leave open.

        It is fixed before anything is measured, since the error rates are shared accordingly.
        """
        return self._settings.ab_may_decide and not observers.names() and self._engines.software_changed(case)

    def plan(self, backend: str) -> str:
        """How the steps share the error rates for an engine whose software is not the baseline's."""
        recorded, engine = self._engines.recorded(backend), self._engines.found[backend]
        changes = recorded.differences(engine.software) if recorded else []
        named = ", ".join(changes[:_NAMED_CHANGES]) + (", …" if len(changes) > _NAMED_CHANGES else "")
        return (
            f"{backend} differs from the baseline's ({named}): what stored figures leave open, or find slower, is "
            "decided by A/B against the baseline's software (of the chance of a wrong PASS stored figures get "
            f"{steps.STORED_SHARE:.0%}, A/B the rest; of a false regression A/B gets all)"
        )

    def of_stored(self, question: Question, record: CaseRecord, *, full_rates: bool = False) -> Judgement:
        """The verdict by stored figures, or by the software where that is the same.

        `full_rates`: use the run's error rates undivided, because A/B does not follow after all. INCONCLUSIVE under a
        debugger.

        Raises:
            MeasurementError: the samples carry no figure.
        """
        item, reference = question.item, self._reference()
        rates = self._rates if full_rates or not self.ab_may_follow(item.case) else steps.rates_of_stored(self._rates)
        judged = judgement.judge(record, item, reference, question.tolerance, self._comparisons, rates=rates)
        stored = reference.baseline.cases.get(item.case.key) if reference.baseline else None
        recorded = self._engines.recorded(item.case.backend)
        if self._settings.compare == "auto" and steps.same_software(judged, record, stored, recorded):
            judged = steps.decided_by_identity(judged)
        if stored is not None and judged.comparison is not None:
            old = explaining.of_stored(stored, str(item.workload), recorded)
            judged = explaining.explained(judged, old, explaining.of_record(record))
        return _watched(judged)

    def of_pairs(self, question: Question, pairing: Pairing) -> Judgement:
        """The verdict by A/B; INCONCLUSIVE under a debugger.

        Raises:
            MeasurementError: the samples carry no figure.
        """
        item, tolerance, rates = question.item, question.tolerance, self._rates_of_pairs
        return _watched(judgement.judge_pairs(pairing, item, tolerance, self._comparisons, rates=rates))

    @property
    def _rates_of_pairs(self) -> ErrorRates:
        return self._rates if self._settings.ab else steps.rates_of_ab(self._rates)

    def stored_decide(self, questions: Iterable[Question], record: CaseRecord) -> bool:
        """Whether every question about a case has a verdict, so that its measurement may end."""
        return all(self.of_stored(question, record).verdict in _DECIDED for question in questions)

    def pairs_decide(self, questions: Iterable[Question], pairing: Pairing) -> bool:
        """Whether A/B answers every one of these questions about a case, so that its measurement may end."""
        compared = (
            compare_pairs(
                pairing.log_ratios(question.item.workload),
                question.tolerance,
                self._comparisons,
                rates=self._rates_of_pairs,
            )
            for question in questions
        )
        return all(comparison.verdict in _DECIDED for comparison in compared)

    def of_invariant(self, question: InvariantQuestion, record: CaseRecord) -> JudgedInvariant:
        """The verdict on an invariant; INCONCLUSIVE under a debugger, which may slow one workload more than another.

        Raises:
            MeasurementError: the samples carry no figure.
        """
        judged = invariants.judge(record, question, self._comparisons, rates=self._rates)
        if watchers := observers.names():
            reason = f"measured under {' and '.join(watchers)}, so no verdict rests on these figures ({judged.reason})"
            return replace(judged, verdict="INCONCLUSIVE", reason=reason)
        return judged

    def invariants_decide(self, questions: Iterable[InvariantQuestion], record: CaseRecord) -> bool:
        """Whether every invariant of a case has its verdict, so that its measurement may end."""
        return all(self.of_invariant(question, record).verdict in invariants.DECIDED for question in questions)


def _watched(judged: Judgement) -> Judgement:
    watchers = observers.names()
    return judgement.void(judged, "watched", f"measured under {' and '.join(watchers)}" if watchers else "")


def fails(judged: Judgement, settings: Settings) -> bool:
    """Whether a verdict fails its test. A regression that the user stores over the old figures does not."""
    replaces = settings.save == "replace"
    if judged.verdict == "REGRESSION" and replaces:
        return False
    more_work = judged.work is not None and judged.work.verdict == "MORE WORK" and not replaces
    return (
        judged.verdict in _FAILING
        or judged.verdict.lower() in settings.strict
        or (more_work and "more-work" in settings.strict)
    )


def read_reference(folder: Path) -> Reference:
    """This machine's baseline from a folder of baselines; where there is none, which other machine is most alike.

    Raises:
        BaselineError: a stored file cannot be used.
    """
    here = fingerprint.read()
    path = files.path_for(folder, here)
    baseline = files.read(path)
    if baseline is not None and baseline.fingerprint != here:
        raise BaselineError(f"baseline {path} describes another machine than its name says; restore the name it had")
    nearest = None if baseline else next(iter(files.others(folder, here)), None)
    return Reference(here, baseline, nearest)
