"""What one pytest session knows: settings, engines, the model, this machine's baseline, and the verdicts so far."""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import cached_property
from typing import TYPE_CHECKING

from pytest_rwkvperf.backends import registry
from pytest_rwkvperf.core import folders
from pytest_rwkvperf.core.cases import FORMATS, Case, Item, told_apart
from pytest_rwkvperf.core.errors import BaselineError, MeasurementError, OptionError
from pytest_rwkvperf.machine import fingerprint, observers
from pytest_rwkvperf.measure.measurement import Measurement
from pytest_rwkvperf.models import synthetic
from pytest_rwkvperf.models.model import ModelFile
from pytest_rwkvperf.models.model_store import ModelStore
from pytest_rwkvperf.models.weights import DTYPES
from pytest_rwkvperf.run import launcher, outline
from pytest_rwkvperf.run.discovery import Found, Missing, discover
from pytest_rwkvperf.run.launcher import Share
from pytest_rwkvperf.run.selection import (
    ModelLimits,
    Request,
    check_chunk,
    check_devices,
    check_quants,
    chunk_of,
    devices,
    items,
    unfit,
)
from pytest_rwkvperf.stats.paired import compare_pairs
from pytest_rwkvperf.store import files
from pytest_rwkvperf.verdict import accept, judgement
from pytest_rwkvperf.verdict.judged import Judgement, Reference
from pytest_rwkvperf.worker.parent import Worker
from pytest_rwkvperf.worker.tools import WorkerTools

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from pytest_rwkvperf.core.cases import Format, Workload, WorkloadKind
    from pytest_rwkvperf.core.engine import Backend
    from pytest_rwkvperf.measure.record import CaseRecord, Pairing
    from pytest_rwkvperf.models.model import Model
    from pytest_rwkvperf.run.options import Settings
    from pytest_rwkvperf.run.progress import Progress
    from pytest_rwkvperf.store.baseline import Noise

FAILING = ("REGRESSION", "INVALID")

DECIDED = ("PASS", "REGRESSION", "IMPROVEMENT")
"""Verdicts that end a case; without a baseline there is none, and time is spent on precision."""


@dataclass(slots=True)
class Saved:
    """What saving did: the file, None where nothing went in, how much did, and what was refused.

    Items as regressions; cases, each with the reason, because no verdict may rest on their figures.
    """

    path: Path | None
    stored: int
    refused: list[Judgement] = field(default_factory=list)
    doubted: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class KeptNoise:
    """What an A/A run stored, and where."""

    path: Path
    noise: Mapping[WorkloadKind, Noise]


class Session:
    """The state of one process of a test run; pytest-xdist's workers share `folder` with their controller."""

    def __init__(self, settings: Settings, say: Progress, folder: Path | None) -> None:
        self.settings = settings
        self.judgements: dict[Item, Judgement] = {}
        self.saved: Saved | None = None
        self.noise: KeptNoise | None = None
        self.trouble = ""
        self.problems: list[str] = []
        self.suite = False
        self.folder = folder or folders.new_run_folder()
        self.say = say
        self._owns_folder = folder is None
        self._selected: dict[Item, set[float]] = {}
        self._labels: dict[Case, str] = {}
        self._old_engines: dict[str, Found] = {}
        self.started = datetime.now(timezone.utc)
        self._watching = observers.watching()  # pytest-cov has stopped when the run ends
        self.written: list[Path] = []
        self.remembered: tuple[str, ...] = ()
        self._tools = WorkerTools(self._file_progress)
        self._models = ModelStore(self._tools, self._file_progress)

    @cached_property
    def backends(self) -> list[Backend]:
        """Every chosen backend, whether its engine is here or not.

        Raises:
            OptionError: `--rwkv-backend` names one that nobody offers.
        """
        return [registry.load(location) for location in registry.choose(self.settings.backend)[0].values()]

    @cached_property
    def engines(self) -> list[Found | Missing]:
        """Every chosen backend, asked once.

        Raises:
            RwkvPerfError: an option names something that is not there.
        """
        chosen, by_hand = registry.choose(self.settings.backend)
        check_quants(self.settings, Request(), self.backends)
        check_chunk(self.settings, self.backends)
        if self.settings.ab and (programs := [name for name in chosen if name in registry.EXECUTABLES]):
            raise OptionError(f"--rwkv-ab alternates engines; {programs[0]} is a whole program, leave it out")
        answers = discover(chosen, by_hand=by_hand)
        present = [answer for answer in answers if isinstance(answer, Found)]
        check_devices(self.settings, present)
        fits = [
            answer if isinstance(answer, Missing) else unfit(self.settings, answer, self.limits) or answer
            for answer in answers
        ]
        if self.settings.ab:
            fits = self._in_both(fits)
        for fit in fits:
            if by_hand and isinstance(fit, Missing):
                raise OptionError(fit.reason)
        return fits

    def _in_both(self, fits: Sequence[Found | Missing]) -> list[Found | Missing]:
        """Keep the engines that the other environment of A/B mode has too, and note those.

        Raises:
            OptionError: it has none of them.
        """
        here = {engine.backend.name: engine for engine in fits if isinstance(engine, Found)}
        if self.settings.ab == sys.executable or not here:
            self._old_engines = here
            return [*fits]
        chosen = {name: engine.location for name, engine in here.items()}
        answers = discover(chosen, by_hand=False, python=self.settings.ab)
        self._old_engines = {answer.backend.name: answer for answer in answers if isinstance(answer, Found)}
        lacking = {
            answer.name: Missing(answer.name, f"--rwkv-ab={self.settings.ab}: {answer.reason}")
            for answer in answers
            if isinstance(answer, Missing)
        }
        if not self._old_engines:
            raise OptionError("\n".join(missing.reason for missing in lacking.values()))
        return [fit if isinstance(fit, Missing) else lacking.get(fit.backend.name, fit) for fit in fits]

    def engine(self, name: str) -> Found | Missing:
        """A backend by name, or why it is not to be had."""
        for engine in self.engines:
            if name == (engine.name if isinstance(engine, Missing) else engine.backend.name):
                return engine
        return Missing(name, f"{name} was not selected by --rwkv-backend={self.settings.backend}")

    def is_chosen(self, name: str) -> bool:
        """Whether `--rwkv-backend` selected a backend, here or missing."""
        return name in registry.choose(self.settings.backend)[0]

    @property
    def found(self) -> list[Found]:
        """The engines that can measure."""
        return [engine for engine in self.engines if isinstance(engine, Found)]

    @cached_property
    def limits(self) -> ModelLimits:
        """What the model reference allows; a synthetic one is not made for the answer.

        Raises:
            ModelError: the reference or the file cannot be used.
        """
        reference = self.settings.model
        if reference.startswith(synthetic.PREFIX):
            return ModelLimits(f"{synthetic.PREFIX}{synthetic.parse(reference).label}", frozenset(FORMATS))
        source = self.model.source
        assert isinstance(source, ModelFile)  # noqa: S101 - only a synthetic reference has no file
        # A quantized .gguf has no values to make another format from.
        if source.format == "gguf" and source.quant not in DTYPES:
            return ModelLimits(self.model.name, frozenset({"gguf"}), source.quant)
        return ModelLimits(self.model.name, frozenset(FORMATS))

    @cached_property
    def model(self) -> Model:
        """The model, made or read once."""
        return self._models.resolve(self.settings.model)

    @cached_property
    def reference(self) -> Reference:
        """This machine's baseline.

        Raises:
            BaselineError: a stored file cannot be used.
        """
        here, folder = fingerprint.read(), self.settings.baseline_dir
        path = files.path_for(folder, here)
        baseline = files.read(path)
        if baseline is not None and baseline.fingerprint != here:
            raise BaselineError(
                f"baseline {path} describes another machine than its name says; restore the name it had"
            )
        nearest = None if baseline else next(iter(files.others(folder, here)), None)
        return Reference(here, baseline, nearest)

    def prepare(self) -> None:
        """Ask the engines, and read the baseline where figures are compared with it or what A/A learns goes into it.

        Raises:
            RwkvPerfError: an option names something that is not there, or the baseline cannot be used.
        """
        self.check_unwatched()
        _ = self.engines
        if self.settings.aa or not self.settings.ab:
            _ = self.reference

    @cached_property
    def launcher(self) -> launcher.Launcher:
        """What measures."""
        engines = {engine.backend.name: engine for engine in self.found}
        return launcher.Launcher(self.folder, engines, lambda: self.model, self._tools, self.say)

    def items(self, request: Request, only: str | None) -> list[Item | Missing]:
        """What a test is parametrized over: its items, and each missing engine once; nothing when `only` is not chosen.

        Raises:
            OptionError: the test's marker asks for something unknown.
        """
        if only is not None and not self.is_chosen(only):
            return []
        # Over the missing ones too: what they know is no mistake, and their tests are skipped with the reason.
        check_quants(self.settings, request, self.backends)
        chosen = [engine for engine in self.found if only in (None, engine.backend.name)]
        absent = [engine for engine in self.engines if isinstance(engine, Missing) and only in (None, engine.name)]
        default_threads = fingerprint.physical_cores()
        return [*items(self.settings, request, chosen, self.limits, default_threads), *absent]

    def select(self, selected: Iterable[tuple[str, Item, float | None]]) -> None:
        """Fix, after collection, what is measured and so over how many items the error rate is spread.

        Each item comes with its test's node id and own tolerance, if it has one; two tests may share an item.
        """
        self._selected, hardware = {}, {}
        for nodeid, item, tolerance in selected:
            self._selected.setdefault(item, set()).add(tolerance or self.settings.tolerance)
            hardware[nodeid] = self._hardware(item.case)
        # Once: every item of a run asks for its case's, and this goes over all of them.
        self._labels = {case: shown.label for case, shown in told_apart(one.case for one in self._selected).items()}
        missing = [engine for engine in self.engines if isinstance(engine, Missing)]
        outline.write(self.folder, outline.Outline(self.selected, tuple(missing), hardware))

    def _hardware(self, case: Case) -> str:
        """What a case is measured on, by the name of its lease."""
        devices = next(engine.devices for engine in self.found if engine.backend.name == case.backend)
        return launcher.hardware(next(device for device in devices if device.id == case.device))

    @property
    def selected(self) -> tuple[Item, ...]:
        """The items that this run judges."""
        return tuple(self._selected)

    def measure(self, item: Item) -> Measurement:
        """Measure an item's case, with all its selected workloads, unless that has been done.

        Raises:
            RwkvPerfError: measuring failed.
        """
        if self.settings.ab:
            return Measurement(self._pairing(item).new, item.workload)
        return Measurement(self._record(item), item.workload)

    def _record(self, item: Item) -> CaseRecord:
        """The case's record; measuring may end by its verdicts unless the run saves."""
        share = self._share(item)
        wanted, count = self._wanted(item, share), max(1, len(self._selected))

        def decided(taken: CaseRecord) -> bool:
            verdicts = (
                judgement.judge(taken, Item(item.case, workload), self.reference, tolerance, count).verdict
                for workload, tolerance in wanted
            )
            return all(verdict in DECIDED for verdict in verdicts)

        return self.launcher.record(item.case, share, decided if self.settings.save == "no" else None)

    def _wanted(self, item: Item, share: Share) -> list[tuple[Workload, float]]:
        """Every comparison that a case is measured for: its workloads with their tests' tolerances."""
        return [
            (workload, tolerance)
            for workload in share.workloads
            for tolerance in self._selected.get(Item(item.case, workload), {self.settings.tolerance})
        ]

    def _share(self, item: Item) -> Share:
        workloads = tuple(one.workload for one in self._selected if one.case == item.case) or (item.workload,)
        label, cases = self._labels.get(item.case, item.case.label), len(self._labels) or 1
        stored = None if self.settings.ab else self.reference.baseline
        handovers = stored.nearest(item.case.threads) if stored else {}
        return Share(label, workloads, self.settings.precision, self.settings.budget_seconds, cases, handovers)

    def _pairing(self, item: Item) -> Pairing:
        """Both environments in alternation, until every test of the case has its verdict or the budget is spent."""
        share, count = self._share(item), max(1, len(self._selected))
        wanted = self._wanted(item, share)

        def decided(pairing: Pairing) -> bool:
            verdicts = (compare_pairs(pairing.log_ratios(one), tolerance, count) for one, tolerance in wanted)
            return all(verdict.verdict != "INCONCLUSIVE" for verdict in verdicts)

        return self.launcher.pairing(item.case, share, self._old_engines, decided)

    def judge(self, item: Item, tolerance: float | None) -> Judgement:
        """The verdict on an item; measures first if need be.

        Raises:
            RwkvPerfError: measuring failed.
        """
        margin = tolerance or self.settings.tolerance
        count = max(1, len(self._selected))
        try:
            if self.settings.ab:
                return _unwatched(judgement.judge_pairs(self._pairing(item), item, margin, count))
            return _unwatched(judgement.judge(self.measure(item).record, item, self.reference, margin, count))
        except MeasurementError as error:
            return judgement.invalid(item, margin, str(error))

    def fails(self, verdict: Judgement) -> bool:
        """Whether a verdict fails its test. A regression that the user stores over the old figures does not."""
        if verdict.verdict == "REGRESSION" and self.settings.save == "replace":
            return False
        return verdict.verdict in FAILING or verdict.verdict.lower() in self.settings.strict

    def save(self) -> Saved | None:
        """Store this run's sound figures; None when there are none.

        Raises:
            RwkvPerfError: the baseline cannot be read or written.
        """
        self.check_unwatched()
        replacing = self.settings.save == "replace"
        keep = accept.accepted(self.judgements.values(), replacing=replacing)
        refused = [one for one in self.judgements.values() if one.verdict == "REGRESSION" and not replacing]
        recorded = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
        records = launcher.records(self.folder)
        shown = told_apart(one.case for one in records)
        doubted = [f"{shown[one.case].label}: {one.doubt}" for one in records if one.doubt]
        stored = accept.stored_cases([one for one in records if not one.doubt], keep, recorded)
        if not stored:
            return Saved(None, 0, refused, doubted) if doubted else None
        path = files.save(self.settings.baseline_dir, self.reference.fingerprint, stored, replacing=replacing)
        return Saved(path, sum(len(one.sessions[0].workloads) for one in stored), refused, doubted)

    def keep_noise(self) -> None:
        """After an A/A run, store how far processes of the same code lie apart here; not while somebody watches.

        Raises:
            RwkvPerfError: the baseline cannot be read or written, or a record carries no figure.
        """
        if self._watching:
            return
        recorded = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
        found = accept.noise_of(launcher.pairings(self.folder), recorded)
        if found:
            path = files.save_noise(self.settings.baseline_dir, self.reference.fingerprint, found)
            self.noise = KeptNoise(path, found)

    def check_unwatched(self) -> None:
        """Refuse to store what is measured while somebody watches this process.

        Raises:
            OptionError: the figures are to be stored, and would not be trusted.
        """
        if self.settings.save != "no" and (watching := observers.watching()):
            raise OptionError(
                f"--rwkv-save-baseline: this process runs under {' and '.join(watching)}, so its figures do not count; "
                "save without it (pytest-cov: --no-cov)"
            )

    def open_worker(self, engine: Found, file: ModelFile, quant: str, device: str | None) -> Worker:
        """A worker of its own with a model open, for a test that drives the engine itself.

        Raises:
            OptionError: the engine does not know the quant, or cannot run on the device.
            RwkvPerfError: the engine cannot load the file.
        """
        if not engine.backend.accepts(quant):
            allowed = ", ".join(engine.backend.quants)
            raise OptionError(f"{engine.backend.name} knows no quant {quant!r}; allowed: {allowed}")
        if engine.backend.file_quant(quant) not in (None, file.quant):
            raise OptionError(f"{file.path} is {file.quant}, not {quant}; make that file first (rwkv_perf does)")
        place = device or devices(self.settings, engine)[0].id
        count = next(iter(self.settings.threads), fingerprint.physical_cores())
        case = Case(engine.backend.name, self.limits.name, quant, place, count, chunk_of(self.settings, engine.backend))
        worker = Worker(python=engine.python, environment=engine.backend.environment(place))
        try:
            worker.open(engine.location, file.path, case)
        except BaseException:
            worker.kill()
            raise
        return worker

    def records(self) -> list[CaseRecord]:
        """What this run has measured, an A/B run's new side included.

        Raises:
            MeasurementError: a record cannot be read.
        """
        return [*launcher.records(self.folder), *(pairing.new for pairing in launcher.pairings(self.folder))]

    def close(self) -> None:
        """Remove the run's folder; only the process that made it does."""
        if self._owns_folder:
            shutil.rmtree(self.folder, ignore_errors=True)

    def file(self, format: Format) -> ModelFile:  # noqa: A002 - the design's word
        """The session's model in a format, unquantized (`f16` for gguf) or as the user's file is."""
        quant = (self.limits.quant or "f16") if format == "gguf" else None
        return self._models.file_for(self.model, format, quant)

    def _file_progress(self, sentence: str, fraction: float) -> None:
        self.say(f"{sentence} {fraction:.0%}")


def _unwatched(found: Judgement) -> Judgement:
    """A verdict, or that there is none because somebody watches this process."""
    watching = observers.watching()
    return judgement.void(found, "watched", f"measured under {' and '.join(watching)}" if watching else "")
