"""Measures each case of a run once: the first that asks measures, the others read the result in the run's folder."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from pytest_rwkvperf.core import errors
from pytest_rwkvperf.measure import measurement, pairs, plan, witnessing
from pytest_rwkvperf.measure.record import CaseRecord, Pairing
from pytest_rwkvperf.run.lease import hardware, lease
from pytest_rwkvperf.run.progress import CaseProgress
from pytest_rwkvperf.run.targets import Targets

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pytest_rwkvperf.core.cases import Case, Workload, WorkloadKind
    from pytest_rwkvperf.core.engine import Device
    from pytest_rwkvperf.core.work import Reading
    from pytest_rwkvperf.measure.process import Target
    from pytest_rwkvperf.oracle.deep_checks import DeepCheckCache
    from pytest_rwkvperf.run.discovery import FoundEngine
    from pytest_rwkvperf.run.engines import Engines
    from pytest_rwkvperf.run.folder import Measured, RunFolder
    from pytest_rwkvperf.run.progress import Progress
    from pytest_rwkvperf.run.tested_model import TestedModel
    from pytest_rwkvperf.stats.spread import Spread
    from pytest_rwkvperf.witnesses.witness import Witness


@dataclass(frozen=True, slots=True)
class CaseRequest:
    """What a case is measured for, and the budget that it shares with the run's other cases."""

    label: str
    """The case's name for people, which no other case of the run has."""
    workloads: tuple[Workload, ...]
    precision: float
    budget_seconds: float
    """Of the whole run."""
    cases: int
    """How many share it."""
    minimum_only: bool = False
    """Whether to take only the fewest processes and samples that give figures, because A/B may follow."""
    handovers: Mapping[str, float] = field(default_factory=dict)
    """What is known of this machine's, for measure.probes.Prober."""
    fewer_threads: bool = False
    """Whether A/B may use fewer threads than the case has, where others use the processors."""
    process_spread: Mapping[WorkloadKind, Spread] = field(default_factory=dict)
    """How far processes lie apart on this machine."""
    witnesses: tuple[str, ...] = ()
    """What counts the engine's work, as far as it suits the case."""


class Launcher:
    """Measures cases for a run. Several processes may share `folder` (pytest-xdist)."""

    def __init__(self, folder: RunFolder, engines: Engines, model: TestedModel, progress: Progress) -> None:
        self._folder = folder
        self._engines = engines
        self._targets = Targets(folder, model, progress)
        self._progress = progress

    def measure_record(
        self, case: Case, request: CaseRequest, decided: Callable[[CaseRecord], bool] | None
    ) -> CaseRecord:
        """Measure the case, once per run. Measuring may end early when `decided` says so of what there is.

        Raises:
            RwkvPerfError: measuring failed, here or in the process that tried first.
        """

        def measured() -> CaseRecord:
            engine = self._engines.found[case.backend]
            target, deep_checks = self._targets.prepare(case, engine, self._engines.device(case), request.workloads)
            if note := engine.backend.announcement(case.quant):
                self._progress.line(f"{request.label}: {note}")
            seconds, cases = self._remaining_budget(case, request)
            limits = plan.Plan(
                precision=request.precision,
                budget_seconds=0.0 if request.minimum_only else seconds / cases,
                decided=decided,
                handovers=request.handovers,
                process_spread=request.process_spread,
                left_seconds=seconds,
                others=0 if request.minimum_only else cases - 1,
            )
            progress = self._case_progress(request, seconds, cases)
            taken = plan.measure(target, request.workloads, limits, progress)
            self._remember_deep_check(deep_checks, target, taken)
            return replace(taken, witnesses=self._witnesses(target, engine, request))

        return self._once(case, request.label, CaseRecord, measured)

    def measure_pairing(
        self, case: Case, request: CaseRequest, old: FoundEngine, decided: Callable[[Pairing], bool]
    ) -> Pairing:
        """Measure the case in alternation with an `old` environment's engine; else as `measure_record`.

        Raises:
            DeviceError: the old environment's engine does not list the case's device.
            RwkvPerfError: as `measure_record`.
        """

        def measured() -> Pairing:
            new = self._engines.found[case.backend]
            device = self._engines.device(case)
            old_device = _same_device(device, old)
            new_target, new_checks = self._targets.prepare(case, new, device, request.workloads)
            old_target, old_checks = self._targets.prepare(case, old, old_device, request.workloads)
            seconds, cases = self._remaining_budget(case, request)
            taken = pairs.measure_pairs(
                new_target,
                old_target,
                request.workloads,
                budget_seconds=seconds / cases,
                decided=decided,
                progress=self._case_progress(request, seconds, cases),
                fewer_threads=request.fewer_threads,
            )
            self._remember_deep_check(new_checks, new_target, taken.new)
            self._remember_deep_check(old_checks, old_target, taken.old)
            stored = self._folder.measured(case, CaseRecord)  # of the same engine, where stored figures came first
            counted = stored.witnesses if stored else self._witnesses(new_target, new, request)
            return Pairing(
                replace(taken.new, witnesses=counted),
                replace(taken.old, witnesses=self._witnesses(old_target, old, request)),
            )

        return self._once(case, request.label, Pairing, measured)

    def _once(self, case: Case, label: str, kind: type[Measured], measure: Callable[[], Measured]) -> Measured:
        """What the run's folder has of a case, else what `measure` gives under the lease of the case's device."""
        # Before the lease is asked for: another run may hold it for as long as it measures.
        if (known := self._folder.measured(case, kind)) is not None:
            return known
        device = self._engines.device(case)
        with lease(device, self._waiting, self._gpus(), is_ours=self._folder.is_worker) as waited:
            self._folder.add_wait(waited)
            if (known := self._folder.measured(case, kind)) is not None:
                return known
            if failure := self._folder.failure(case, kind):
                error, _, sentence = failure.partition(": ")
                raise errors.from_name(error, sentence)
            try:
                measured = measure()
            except errors.RwkvPerfError as error:
                with suppress(errors.StorageError):  # it would take the place of the failure itself
                    self._folder.keep_failure(case, kind, error)
                raise
            if refusal := self._folder.keep(case, measured):
                self._progress.line(f"{label}: only this process has the figures: {refusal}")
            self._progress.line(measurement.summary(measured, label))
            return measured

    def _waiting(self, name: str, holder: str) -> None:
        """Say which device is waited for: permanently and without an estimate, where another run measures on it."""
        if not holder:
            self._progress(f"waiting for {name}, on which another worker of this run measures")
            return
        self._progress.line(f"waiting for {name}: another session measures on it ({holder})")
        self._progress(f"waiting for {name}, on which {holder} measures")
        self._progress.expect(None)  # until the case begins

    def _remember_deep_check(self, deep_checks: DeepCheckCache, target: Target, taken: CaseRecord) -> None:
        """Store a deep check that has just been made; where that fails, the next run repeats it."""
        if target.known_deep is None and taken.deep is not None:
            try:
                deep_checks.store(taken.deep)
            except errors.StorageError as error:
                self._progress.line(f"the next run checks {target.case.label} again: {error}")

    def _witnesses(self, target: Target, engine: FoundEngine, request: CaseRequest) -> tuple[Reading, ...]:
        """What the case's witnesses count; one that cannot is left out, and a line says why."""
        chosen = witnessing.suitable(request.witnesses, target.case, target.device)
        readings = [self._reading(witness, target, engine, request) for witness in chosen]
        return tuple(reading for reading in readings if reading is not None)

    def _reading(self, witness: Witness, target: Target, engine: FoundEngine, request: CaseRequest) -> Reading | None:
        try:
            seen = self._targets.seen_by(witness, target, engine)
            return witnessing.read(
                seen, request.workloads, witness, lambda sentence: self._progress(f"{request.label}: {sentence}")
            )
        except errors.RwkvPerfError as error:
            reason = str(error).partition("\n")[0].removesuffix("; its last lines:")
            self._progress.line(f"{request.label}: without the witness {witness.name}: {reason}")
            return None

    def _gpus(self) -> list[str]:
        devices = [device for engine in self._engines.found.values() for device in engine.devices]
        return [hardware(device) for device in devices if device.kind == "gpu"]

    def _case_progress(self, request: CaseRequest, left_seconds: float, left_cases: int) -> CaseProgress:
        number = request.cases - left_cases + 1
        return CaseProgress(
            self._progress, request.label, number=number, cases=request.cases, left_seconds=left_seconds
        )

    def _remaining_budget(self, case: Case, request: CaseRequest) -> tuple[float, int]:
        """The seconds of the budget that earlier cases have left, 0 if none, and how many cases share them."""
        seconds, begun = self._folder.spent(case)
        return max(0.0, request.budget_seconds - seconds), max(1, request.cases - begun)


def _same_device(device: Device, old: FoundEngine) -> Device:
    """The old environment's own description of a device.

    Raises:
        DeviceError: it lists none of this id and kind.
    """
    for candidate in old.devices:
        if (candidate.id, candidate.kind) == (device.id, device.kind):
            return candidate
    there = ", ".join(candidate.id for candidate in old.devices)
    raise errors.DeviceError(
        f"{old.place}: {old.backend.name} lists no {device.id} of kind {device.kind}, only {there}; "
        "choose with --rwkv-device one that both environments have"
    )
