"""A case's worker processes: each opens the case, checks its answers and times repetitions for the case's record."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

import msgspec

from pytest_rwkvperf.core.errors import MeasurementError, ParityError
from pytest_rwkvperf.core.samples import Sample
from pytest_rwkvperf.measure.record import CaseRecord, ModelFacts, ProcessRun
from pytest_rwkvperf.oracle import bounds
from pytest_rwkvperf.oracle.agreement import Deep, Short
from pytest_rwkvperf.worker import native, parent, protocol
from pytest_rwkvperf.worker.parent import Worker

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from pytest_rwkvperf.core.cases import Case, Workload
    from pytest_rwkvperf.core.engine import Device
    from pytest_rwkvperf.core.software import Software
    from pytest_rwkvperf.machine.conditions import Watch
    from pytest_rwkvperf.machine.roofline import Ceilings, Work
    from pytest_rwkvperf.machine.watching import GpuWatch
    from pytest_rwkvperf.measure.record import EndedBy

_Kind = TypeVar("_Kind")


@dataclass(frozen=True, slots=True)
class Target:
    """A case with everything a worker needs to open it."""

    case: Case
    location: str
    environment: Mapping[str, str | None]
    python: str
    model: ModelFacts
    path: Path
    device: Device
    expected: tuple[Path, ...]
    """The oracle's logits: for the short check, and for the deep one when that is due; empty for a Program."""
    known_deep: Deep | None
    """What an earlier deep check of the same engine, file, quant and device found."""
    work: Work | None = None
    ceilings: Ceilings | None = None
    software: Software | None = None


class Process:
    """A live worker with a case open. In the uniform protocol its answers have been checked."""

    def __init__(self, worker: Worker, target: Target, *, deep_due: bool) -> None:
        self.worker, self.target = worker, target
        self.deep: Deep | None = None
        self._short: Short | None = None
        self._deep_due = deep_due
        self._started = time.time()
        opened = worker.open(target.location, target.path, target.case)
        self.versions = {str(name): str(value) for name, value in opened["versions"].items()}
        self._load_nanoseconds = int(opened["load_nanoseconds"])
        self._build_nanoseconds = int(opened["build_nanoseconds"])
        if target.case.protocol == "uniform":
            self.check()

    def check(self) -> None:
        """Compare the engine's logits with the oracle's, where the target has any.

        Raises:
            ParityError: they differ by more than the bound.
        """
        target, case = self.target, self.target.case
        if not target.expected:
            return
        bound = bounds.bound_for(case.backend, case.quant, target.device)
        files = [str(path) for path in (target.expected if self._deep_due else target.expected[:1])]
        answer = self.worker.request("parity", parent.SAMPLE_SECONDS, expected=files, noise=bound.relative_l2)
        self._short = typed(answer["short"], Short)
        self.deep = typed(answer["deep"], Deep) if answer["deep"] else None
        problem = bounds.broken_short(self._short, bound) or (self.deep and bounds.broken_deep(self.deep, bound))
        if problem:
            raise ParityError(f"{case.label} gives a wrong answer, so its speed counts for nothing: {problem}")

    def time(self, workload: Workload) -> Sample:
        """One repetition.

        Raises:
            RwkvPerfError: the worker failed, or its clock is broken.
        """
        return timed(self.worker.request("sample", parent.SAMPLE_SECONDS, workload=str(workload)), workload)

    def finish(self) -> ProcessRun:
        """What the process leaves, without samples: the caller who took them adds them."""
        return ProcessRun(
            started=self._started,
            load_nanoseconds=self._load_nanoseconds,
            peak_rss_bytes=int(self.worker.request("memory", parent.QUICK_SECONDS)["peak_rss_bytes"]),
            warmups={},
            samples={},
            parity=self._short,
            build_nanoseconds=self._build_nanoseconds,
        )


@dataclass(slots=True)
class MeasuredCase:
    """A target, and what its processes have left so far."""

    target: Target
    runs: list[ProcessRun] = field(default_factory=list)
    _versions: dict[str, str] = field(default_factory=dict)
    _deep: Deep | None = None

    @property
    def deep_due(self) -> bool:
        """Whether the next process makes the deep check: the first one does, unless an earlier run has."""
        return not self.runs and self.target.known_deep is None

    def add(self, process: Process, run: ProcessRun) -> None:
        """Keep what a process has left."""
        self.runs.append(run)
        self._versions = process.versions
        self._deep = self._deep or process.deep

    def record(
        self, ended_by: EndedBy, *, seconds: float, watch: Watch, gpu: GpuWatch, probe_version: str = ""
    ) -> CaseRecord:
        """What has been measured until now, in so many seconds."""
        target = self.target
        return CaseRecord(
            case=target.case,
            model=target.model,
            device=target.device,
            versions=self._versions,
            protocol=native.VERSION if target.case.protocol == "native" else protocol.VERSION,
            deep=target.known_deep or self._deep,
            ended_by=ended_by,
            seconds=seconds,
            conditions=watch.conditions(),
            runs=tuple(self.runs),
            probe_version=probe_version,
            gpu=gpu.conditions(),
            work=target.work,
            ceilings=target.ceilings,
            software=target.software,
        )


@contextmanager
def running(target: Target, *, deep_due: bool) -> Iterator[Process]:
    """A process that ends with the `with` block.

    Raises:
        WorkerError: the worker died, hung or broke the protocol.
        BackendError: the engine refused.
        ParityError: its answers are wrong.
    """
    with Worker(python=target.python, environment=target.environment) as worker:
        yield Process(worker, target, deep_due=deep_due)


def typed(answer: object, kind: type[_Kind]) -> _Kind:
    """A worker's answer, which arrives as JSON, as the dataclass that it is.

    Raises:
        MeasurementError: it has another structure.
    """
    try:
        return msgspec.convert(answer, type=kind)
    except msgspec.ValidationError as error:
        raise MeasurementError(f"the worker's {kind.__name__} is unusable: {error}; measure again") from error


def timed(answer: object, workload: Workload) -> Sample:
    """A worker's answer as a sample of a workload.

    Raises:
        MeasurementError: it has another structure, or took no time.
    """
    sample = typed(answer, Sample)
    if sample.nanoseconds <= 0:
        raise MeasurementError(f"{workload} took {sample.nanoseconds} ns; the clock is broken")
    return sample
