"""One pytest run: options → engines → items → measure → judge → save → report (the last two in `finish.py`)."""

from __future__ import annotations

from datetime import datetime, timezone
from functools import cached_property, partial
from typing import TYPE_CHECKING

from pytest_rwkvperf.core import folders
from pytest_rwkvperf.core.errors import MeasurementError
from pytest_rwkvperf.machine import observers
from pytest_rwkvperf.measure.measurement import Measurement
from pytest_rwkvperf.measure.record import CaseRecord, Pairing
from pytest_rwkvperf.run import saving
from pytest_rwkvperf.run.engines import Engines
from pytest_rwkvperf.run.folder import Outline, RunFolder
from pytest_rwkvperf.run.launcher import CaseRequest, Launcher
from pytest_rwkvperf.run.lease import hardware
from pytest_rwkvperf.run.selection import Selected
from pytest_rwkvperf.run.tested_model import TestedModel
from pytest_rwkvperf.run.verdicts import Verdicts, read_reference
from pytest_rwkvperf.stats.verdicts import ErrorRates
from pytest_rwkvperf.verdict import judgement

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pytest_rwkvperf.core.cases import Case, Item, Question
    from pytest_rwkvperf.run.options import Settings
    from pytest_rwkvperf.run.progress import Progress
    from pytest_rwkvperf.verdict.judged import Judgement, Reference


class Session:
    """One process of a run. pytest-xdist's workers are given their controller's folder as `shared`."""

    def __init__(self, settings: Settings, progress: Progress, shared: Path | None) -> None:
        self.started = datetime.now(timezone.utc)
        self.settings = settings
        self.progress = progress
        self.folder = RunFolder(shared) if shared else RunFolder.new()
        self.model = TestedModel(settings.model, progress)
        self.engines = Engines(settings, self.model, progress)
        self.selected = Selected({})
        self.observed = bool(observers.names())  # asked now: pytest-cov has stopped when the run ends
        self._launcher = Launcher(self.folder, self.engines, self.model, progress)

    def prepare(self) -> None:
        """Ask the engines and read the baseline, so that a mistake in the options costs no measurement.

        May download the model, whose limits the engines are checked against.

        Raises:
            RwkvPerfError: an option names something that is not there, or the baseline cannot be used.
        """
        folders.check_cache()
        saving.check_unwatched(self.settings)
        _ = self.engines.answers
        if self.settings.aa or not self.settings.ab:  # what A/A learns goes into the baseline
            _ = self._reference

    def select(self, questions: Mapping[str, Question]) -> None:
        """Fix, after collection, what is measured: the question that each test asks, by its node id."""
        self.selected = Selected(questions)
        places = {test: hardware(self.engines.device(asked.item.case)) for test, asked in questions.items()}
        self.folder.keep_outline(Outline(self.selected.items, tuple(self.engines.missing), places))

    def measure(self, item: Item) -> Measurement:
        """Measure an item's case with all its selected workloads, unless that has been done.

        Raises:
            RwkvPerfError: measuring failed.
        """
        measured = self._measure_once(item.case)
        return Measurement(measured.new if isinstance(measured, Pairing) else measured, item.workload)

    def judge(self, question: Question) -> Judgement:
        """The verdict on an item; measures first if need be.

        Raises:
            RwkvPerfError: measuring failed.
        """
        try:
            return self._verdicts.judge(question, self._measure_once(question.item.case))
        except MeasurementError as error:
            return judgement.invalid(question.item, question.tolerance, str(error))

    def close(self) -> None:
        """Leave nothing behind."""
        self.folder.remove()

    def _measure_once(self, case: Case) -> CaseRecord | Pairing:
        """Measure a case, unless that has been done: its record, or in A/B those of both environments.

        Measuring ends early once every question about the case has its verdict, unless the run saves.
        """
        questions = self.selected.questions[case]
        baseline = None if self.settings.ab else self._reference.baseline
        request = CaseRequest(
            label=self.selected.labels[case],
            workloads=tuple(dict.fromkeys(question.item.workload for question in questions)),
            precision=self.settings.precision,
            budget_seconds=self.settings.budget_seconds,
            cases=len(self.selected.questions),
            handovers=baseline.fastest_handovers(case.threads) if baseline else {},
        )
        decided = partial(self._verdicts.all_decided, questions)
        if self.settings.ab:
            return self._launcher.measure_pairing(case, request, decided)
        return self._launcher.measure_record(case, request, decided if self.settings.save == "no" else None)

    @property
    def _verdicts(self) -> Verdicts:
        rates = ErrorRates(self.settings.false_alarms, self.settings.wrong_pass)
        return Verdicts(lambda: self._reference, len(self.selected.items), rates)

    @cached_property
    def _reference(self) -> Reference:
        return read_reference(self.settings.baseline_dir)
