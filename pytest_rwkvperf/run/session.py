"""One pytest run: options → engines → items → measure → judge → save → report (the last two in `finish.py`)."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timezone
from functools import cached_property, partial
from types import MappingProxyType
from typing import TYPE_CHECKING

from pytest_rwkvperf.core import folders
from pytest_rwkvperf.core.errors import MeasurementError, RwkvPerfError
from pytest_rwkvperf.machine import observers
from pytest_rwkvperf.measure.measurement import Measurement
from pytest_rwkvperf.run import git, saving
from pytest_rwkvperf.run.engines import Engines
from pytest_rwkvperf.run.folder import Outline, RunFolder
from pytest_rwkvperf.run.launcher import CaseRequest, Launcher
from pytest_rwkvperf.run.lease import hardware
from pytest_rwkvperf.run.relay import Relay
from pytest_rwkvperf.run.selection import Selected, shrunk_workloads
from pytest_rwkvperf.run.tested_model import TestedModel
from pytest_rwkvperf.run.verdicts import Verdicts, read_reference
from pytest_rwkvperf.store import files
from pytest_rwkvperf.verdict import judgement, steps
from pytest_rwkvperf.verdict.invariants import JudgedInvariant

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

    from pytest_rwkvperf.core.cases import Case, Item, Question, Workload
    from pytest_rwkvperf.core.invariants import InvariantQuestion
    from pytest_rwkvperf.measure.record import CaseRecord, Pairing
    from pytest_rwkvperf.run.discovery import FoundEngine
    from pytest_rwkvperf.run.progress import Progress
    from pytest_rwkvperf.run.settings import Settings
    from pytest_rwkvperf.verdict.judged import Judgement, Reference


class Session:
    """One process of a run. pytest-xdist's workers are given their controller's folder as `shared`."""

    def __init__(self, settings: Settings, progress: Progress, shared: Path | None) -> None:
        self.started = datetime.now(timezone.utc)
        self.settings = settings
        self.progress = progress
        self.folder = RunFolder(shared) if shared else RunFolder.new()
        self.relay = Relay(self.folder.said, progress.line)
        if shared:
            self.folder.join()
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
        saving.check_folders(self.settings)
        with self.progress.busy("asking the engines for their versions and devices"):
            _ = self.engines.answers
        if self.settings.aa or not self.settings.ab:  # what A/A learns goes into the baseline
            _ = self._reference, self.engines.recipe

    def select(
        self, questions: Mapping[str, Question], invariants: Mapping[str, InvariantQuestion] = MappingProxyType({})
    ) -> None:
        """Fix, after collection, what is measured: the question that each test asks, by its node id."""
        self.selected = Selected(questions, invariants)
        cases = {test: asked.item.case for test, asked in questions.items()}
        cases |= {test: asked.case for test, asked in invariants.items()}
        places = {test: hardware(self.engines.device(case)) for test, case in cases.items()}
        self.folder.keep_outline(Outline(self.selected.planned, tuple(self.engines.missing), places))

    def plan(self) -> list[str]:
        """Sentences on what is not measured as usual, or not at all, for reasons that the options do not show.

        On software adapters, of engines without batches, and of changed engines: for these, which steps decide and how
        they share the risk.
        """
        shrunk = shrunk_workloads(self.settings, self.selected.by_test.values(), self.engines.device)
        return [*filter(None, [shrunk]), *self.engines.left_out, *map(self._verdicts.plan, self._changed)]

    def builds(self) -> dict[str, float]:
        """What may have to be built for A/B against the baseline's software, and how many seconds each takes."""
        return {names: seconds for names, seconds in map(self.engines.to_build, self._changed) if names}

    @cached_property
    def _changed(self) -> list[str]:
        """The engines of which A/B may decide what stored figures leave open."""
        return sorted({case.backend for case in self.selected.questions if self._verdicts.ab_may_follow(case)})

    def measure(self, item: Item) -> Measurement:
        """Measure an item's case with all its selected workloads, unless that has been done.

        Raises:
            RwkvPerfError: measuring failed.
        """
        with self.progress.busy():
            record = self._pairing(item.case).new if self.settings.ab else self._record(item.case)
        return Measurement(record, item.workload)

    def judge(self, question: Question) -> Judgement:
        """The verdict on an item; measures first if need be.

        Raises:
            RwkvPerfError: measuring failed.
        """
        with self.progress.busy():
            return self._judged(question)

    def _judged(self, question: Question) -> Judgement:
        case = question.item.case
        try:
            if self.settings.ab:
                return self._verdicts.of_pairs(question, self._pairing(case))
            judged = self._verdicts.of_stored(question, self._record(case))
            if self._verdicts.ab_may_follow(case) and steps.is_open(judged):
                return self._settle(question, judged)
        except MeasurementError as error:
            return judgement.invalid(question.item, question.tolerance, str(error))
        return judged

    def judge_invariant(self, question: InvariantQuestion) -> JudgedInvariant:
        """The verdict on an invariant of a case; measures first if need be.

        Raises:
            RwkvPerfError: measuring failed.
        """
        try:
            with self.progress.busy():
                return self._verdicts.of_invariant(question, self._record(question.case))
        except MeasurementError as error:
            return JudgedInvariant(question, "INVALID", str(error))

    def baseline_location(self) -> str:
        """Where this machine's baseline is: ` in FILE, commit COMMIT`, the commit that the file last changed in."""
        path = files.path_for(self.settings.baseline_dir, self._reference.fingerprint)
        commit = git.last_commit(path)
        return f" in {path}" + (f", commit {commit}" if commit else ", in no commit")

    def close(self) -> None:
        """Stop showing what workers say, and remove the run's folder in the process that made it."""
        self.relay.stop()
        self.folder.remove()

    def _record(self, case: Case) -> CaseRecord:
        """Measure a case for comparing with stored figures, unless that has been done.

        Measuring ends early once every question about the case has its verdict, unless the run saves. Where A/B may
        follow, it gets the time that the budget leaves.
        """
        questions, invariants = self.selected.questions.get(case, ()), self.selected.invariants.get(case, ())
        baseline, workloads = self._reference.baseline, self.selected.workloads(case)
        handovers = baseline.fastest_handovers(case.threads) if baseline else {}
        kinds = {workload.kind for workload in workloads}
        spreads = {kind: baseline.process_spread(kind) for kind in kinds} if baseline else {}
        request = replace(self._request(case, workloads), handovers=handovers, process_spread=spreads)
        if self._verdicts.ab_may_follow(case) and not invariants:
            request = replace(request, minimum_only=True)

        def decided(record: CaseRecord) -> bool:
            verdicts = self._verdicts
            return verdicts.stored_decide(questions, record) and verdicts.invariants_decide(invariants, record)

        return self._launcher.measure_record(case, request, decided if self.settings.save == "no" else None)

    def _pairing(self, case: Case) -> Pairing:
        """Measure a case in alternation with what `--rwkv-ab` names, unless that has been done."""
        return self._alternate(case, self.selected.questions[case], self.engines.old[case.backend])

    def _alternate(self, case: Case, questions: Collection[Question], old: FoundEngine) -> Pairing:
        decided = partial(self._verdicts.pairs_decide, questions)
        workloads = tuple(dict.fromkeys(question.item.workload for question in questions))
        return self._launcher.measure_pairing(case, self._request(case, workloads), old, decided)

    def _settle(self, question: Question, stored: Judgement) -> Judgement:
        """What A/B against the baseline's software says where stored figures leave the case's questions open."""
        case = question.item.case
        record, verdicts = self._record(case), self._verdicts
        left = [each for each in self.selected.questions[case] if steps.is_open(verdicts.of_stored(each, record))]
        try:
            pairing = self._alternate(case, left, self.engines.rebuilt(case.backend))
        except RwkvPerfError as error:
            return steps.undecided_by_ab(verdicts.of_stored(question, record, full_rates=True), str(error))
        return steps.decided_by_ab(stored, verdicts.of_pairs(question, pairing))

    def _request(self, case: Case, workloads: tuple[Workload, ...]) -> CaseRequest:
        return CaseRequest(
            label=self.selected.labels[case],
            workloads=workloads,
            precision=self.settings.precision,
            budget_seconds=self.settings.budget_seconds,
            cases=len(self.selected.cases),
            witnesses=self.settings.witnesses,
            fewer_threads=self.settings.fewer_threads,
        )

    @cached_property
    def _verdicts(self) -> Verdicts:
        return Verdicts(lambda: self._reference, self.engines, self.settings, self.selected.comparisons)

    @cached_property
    def _reference(self) -> Reference:
        return read_reference(self.settings.baseline_dir)
