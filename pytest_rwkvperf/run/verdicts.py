"""Judging what was measured: against this machine's baseline, or in A/B against the old environment."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_rwkvperf.core.errors import BaselineError
from pytest_rwkvperf.machine import fingerprint, observers
from pytest_rwkvperf.measure.record import CaseRecord, Pairing
from pytest_rwkvperf.stats.paired import compare_pairs
from pytest_rwkvperf.store import files
from pytest_rwkvperf.verdict import judgement
from pytest_rwkvperf.verdict.judged import Reference

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from pytest_rwkvperf.core.cases import Question
    from pytest_rwkvperf.run.options import Settings
    from pytest_rwkvperf.stats.verdicts import ErrorRates, Verdict
    from pytest_rwkvperf.verdict.judged import Judgement

_FAILING = ("REGRESSION", "INVALID")

_DECIDED = ("PASS", "REGRESSION", "IMPROVEMENT")
"""Verdicts that end a case's measurement; without one, time is spent on precision."""


class Verdicts:
    """Answers a run's questions. The error rate is spread over the run's `items`, of which there is at least one."""

    def __init__(self, reference: Callable[[], Reference], items: int, rates: ErrorRates) -> None:
        self._reference = reference
        self._items = items
        self._rates = rates

    def judge(self, question: Question, measured: CaseRecord | Pairing) -> Judgement:
        """The verdict; INCONCLUSIVE while a debugger or a coverage tool watches this process.

        Raises:
            MeasurementError: the samples carry no figure.
        """
        if isinstance(measured, Pairing):
            judged = judgement.judge_pairs(measured, question.item, question.tolerance, self._items, rates=self._rates)
        else:
            judged = self._against_baseline(question, measured)
        watchers = observers.names()
        return judgement.void(judged, "watched", f"measured under {' and '.join(watchers)}" if watchers else "")

    def all_decided(self, questions: Iterable[Question], measured: CaseRecord | Pairing) -> bool:
        """Whether every question about a case has a verdict, so that its measurement may end."""
        return all(self._verdict_so_far(question, measured) in _DECIDED for question in questions)

    def _verdict_so_far(self, question: Question, measured: CaseRecord | Pairing) -> Verdict:
        if isinstance(measured, Pairing):
            ratios = measured.log_ratios(question.item.workload)
            return compare_pairs(ratios, question.tolerance, self._items, rates=self._rates).verdict
        return self._against_baseline(question, measured).verdict

    def _against_baseline(self, question: Question, record: CaseRecord) -> Judgement:
        return judgement.judge(
            record, question.item, self._reference(), question.tolerance, self._items, rates=self._rates
        )


def fails(judged: Judgement, settings: Settings) -> bool:
    """Whether a verdict fails its test. A regression that the user stores over the old figures does not."""
    if judged.verdict == "REGRESSION" and settings.save == "replace":
        return False
    return judged.verdict in _FAILING or judged.verdict.lower() in settings.strict


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
