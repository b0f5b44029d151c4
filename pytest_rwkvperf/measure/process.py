"""A case's worker processes: each opens the case, checks its answers and times repetitions for the case's record."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeVar

import msgspec
import psutil

from pytest_rwkvperf.core import clock
from pytest_rwkvperf.core.errors import MeasurementError, ParityError
from pytest_rwkvperf.core.samples import Sample
from pytest_rwkvperf.measure.record import CaseRecord, ModelFacts, ProcessRun
from pytest_rwkvperf.oracle import bounds
from pytest_rwkvperf.oracle.agreement import Answer, Batched, Deep, Fresh, OfSequence, Short
from pytest_rwkvperf.worker import native, parent, protocol
from pytest_rwkvperf.worker.parent import Worker

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from pytest_rwkvperf.core.cases import Case, Workload
    from pytest_rwkvperf.core.engine import Device
    from pytest_rwkvperf.core.software import Software
    from pytest_rwkvperf.machine.conditions import Watch
    from pytest_rwkvperf.machine.roofline import Ceilings, TokenWork
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
    known_answers: Mapping[str, Path] = field(default_factory=dict)
    """The oracle's logits after the known prompt of a workload, by its name; not where they would take too long."""
    batch_expected: tuple[Path, ...] = ()
    """The oracle's logits for the check of batches; empty where none is timed."""
    longest: int = 0
    """Tokens of the longest workload, which the check of new tokens is as long as; 0 for no such check."""
    work: TokenWork | None = None
    ceilings: Ceilings | None = None
    software: Software | None = None
    fewer_threads: int | None = None
    """Threads to measure with instead of the case's."""
    build: str = ""
    """What errors call the side of an A/B run."""


class Process:
    """A live worker with a case open. In the uniform protocol its answers have been checked."""

    def __init__(self, worker: Worker, target: Target, *, first: bool) -> None:
        self.worker, self.target, self.first = worker, target, first
        self.deep: Deep | None = None
        self._short: Short | None = None
        self._fresh: Fresh | None = None
        self._batched: list[Batched] = []
        self._answers: dict[str, Answer] = {}
        self._kept: dict[Workload, int] = {}
        self._started = clock.time_of_day()
        case = target.case if target.fewer_threads is None else replace(target.case, threads=target.fewer_threads)
        opened = worker.open(target.location, target.path, case)
        self.versions = {str(name): str(value) for name, value in opened["versions"].items()}
        self._load_nanoseconds = int(opened["load_nanoseconds"])
        self._build_nanoseconds = int(opened["build_nanoseconds"])
        if target.case.protocol == "uniform":
            self.check()

    def check(self) -> None:
        """Compare the engine's logits with the oracle's, where the target has any.

        A case's first process in a run is also asked for a long prompt of new tokens, and makes the deep check if none
        is remembered.

        Raises:
            ParityError: they differ by more than the bound.
        """
        target = self.target
        if not target.expected:
            return
        deep = self.first and target.known_deep is None
        answer = self.worker.request(
            "parity",
            parent.SAMPLE_SECONDS,
            expected=[str(path) for path in (target.expected if deep else target.expected[:1])],
            noise=self._bound.relative_l2,
            fresh=target.longest if self.first else 0,
        )
        self._short = typed(answer["short"], Short)
        self.deep = typed(answer["deep"], Deep) if answer["deep"] else None
        self._fresh = typed(answer["fresh"], Fresh) if answer["fresh"] else None
        self._refuse(bounds.broken_short(self._short, self._bound))
        if self.deep:
            self._refuse(bounds.broken_deep(self.deep, self._bound))
        if self._fresh:
            self._refuse(bounds.broken_fresh(self._fresh, self._bound))

    def check_batch(self, sequences: int) -> None:
        """Compare each of so many sequences with the oracle's logits and with itself alone; before they are timed.

        Not with the other checks: a process that has made a batch holds more memory than one that has not.

        Raises:
            ParityError: one differs by more than the bound.
        """
        if not self.target.batch_expected:
            return
        answer = self.worker.request(
            "batch_parity",
            parent.SAMPLE_SECONDS,
            sequences=sequences,
            expected=[str(path) for path in self.target.batch_expected],
            noise=self._bound.relative_l2,
        )
        self._batched.append(typed(answer, Batched))
        self._refuse(bounds.broken_batch(self._batched[-1], self._bound))

    @property
    def _bound(self) -> bounds.Bound:
        return bounds.bound_for(self.target.case.backend, self.target.case.quant, self.target.device)

    def _refuse(self, problem: str) -> None:
        if problem:
            label = self.target.case.label
            raise ParityError(f"{label} gives a wrong answer, so its speed counts for nothing: {problem}")

    def time(self, workload: Workload, *, checked: bool = False) -> Sample:
        """One repetition; `checked` says that `check_answer` follows.

        Raises:
            RwkvPerfError: the worker failed, or its clock is broken.
        """
        name = str(workload)
        known = checked and name in self.target.known_answers
        return timed(self.worker.request("sample", parent.SAMPLE_SECONDS, workload=name, known=known), workload)

    def time_slice(self, workload: Workload, start: int, count: int, *, checked: bool = False) -> Sample:
        """So many tokens of a generation from its `start`th on; else as `time`."""
        name = str(workload)
        known = checked and name in self.target.known_answers
        answer = self.worker.request(
            "slice", parent.SAMPLE_SECONDS, workload=name, start=start, count=count, known=known
        )
        return timed(answer, workload)

    def resident_bytes(self) -> int | None:
        """The worker's resident memory now; None where the system does not report it."""
        try:
            return int(psutil.Process(self.worker.pid).memory_info().rss)
        except psutil.Error:
            return None

    def check_answer(self, workload: Workload, repetition: int) -> None:
        """Compare what the last repetition, the `repetition`th that counts, ended with.

        With the oracle's logits if they are there; the repetition was then of the known prompt. Otherwise the answer is
        kept, and `finish` compares it with the engine's own for the same tokens in other pieces, because to compute
        these would disturb the repetitions to come. Of a batch one sequence had the known prompt, and others are kept.

        Raises:
            ParityError: they differ by more than the bound.
        """
        name = str(workload)
        known = name in self.target.known_answers
        if known:
            answer = self.worker.request(
                "answer",
                parent.QUICK_SECONDS,
                expected=str(self.target.known_answers[name]),
                noise=self._bound.relative_l2,
            )
            found = typed(answer, OfSequence)
            self._judge(workload, Answer(repetition, "oracle", found.agreement, found.sequence))
        if self.target.expected and (not known or workload.batch > 1):
            self.worker.request("keep", parent.QUICK_SECONDS, workload=name, known=known)
            self._kept[workload] = repetition

    def _check_kept(self) -> None:
        for workload, repetition in self._kept.items():
            noise = 2 * self._bound.relative_l2
            answer = self.worker.request("kept_answer", parent.SAMPLE_SECONDS, workload=str(workload), noise=noise)
            found = typed(answer, OfSequence)
            self._judge(workload, Answer(repetition, "pieces", found.agreement, found.sequence))

    def _judge(self, workload: Workload, answer: Answer) -> None:
        """Keep an answer, the oracle's rather than another, and refuse a wrong one."""
        self._answers.setdefault(str(workload), answer)
        problem = bounds.broken_answer(answer, self._bound)
        sequence = f", sequence {answer.sequence + 1}" if workload.batch > 1 else ""
        self._refuse(problem and f"{workload}, timed repetition {answer.repetition} of a process{sequence}: {problem}")

    def finish(self) -> ProcessRun:
        """What the process leaves, without samples: the caller who took them adds them.

        Raises:
            ParityError: an answer that was kept is wrong.
        """
        memory = int(self.worker.request("memory", parent.QUICK_SECONDS)["peak_rss_bytes"])
        self._check_kept()
        return ProcessRun(
            started=self._started,
            load_nanoseconds=self._load_nanoseconds,
            peak_rss_bytes=memory,
            warmups={},
            samples={},
            parity=self._short,
            build_nanoseconds=self._build_nanoseconds,
            fresh=self._fresh,
            answers=self._answers,
            batched=tuple(self._batched),
        )


@dataclass(slots=True)
class MeasuredCase:
    """A target, and what its processes have left so far."""

    target: Target
    runs: list[ProcessRun] = field(default_factory=list)
    _versions: dict[str, str] = field(default_factory=dict)
    _deep: Deep | None = None

    @property
    def first(self) -> bool:
        """Whether the next process is the first."""
        return not self.runs

    @property
    def opening(self) -> str:
        """What is done when the next process is opened, for people."""
        deep = self.first and self.target.expected and self.target.known_deep is None
        return "loading the model" + (", then the deep check of its answers" if deep else "")

    def add(self, process: Process, run: ProcessRun) -> None:
        """Keep what a process has left."""
        self.runs.append(run)
        self._versions = process.versions
        self._deep = self._deep or process.deep

    def record(
        self, ended_by: EndedBy, *, seconds: float, watch: Watch, gpu: GpuWatch, probe_version: str = ""
    ) -> CaseRecord:
        """What has been measured until now; `seconds` is how long that took."""
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
            fewer_threads=target.fewer_threads,
        )


@contextmanager
def started(targets: Sequence[Target]) -> Iterator[list[Worker]]:
    """A worker for each target, with its engine imported at the same time as the others; they end with the block.

    Raises:
        RwkvPerfError: as `running`, before anything is opened.
    """
    with ExitStack() as stack, ThreadPoolExecutor(max_workers=len(targets)) as pool:

        def start(target: Target) -> Worker:
            worker = stack.enter_context(Worker(python=target.python, environment=target.environment))
            worker.request("import_engine", parent.IMPORT_SECONDS, location=target.location)
            return worker

        try:
            workers = list(pool.map(start, targets))
        except BaseException:
            parent.end_all()  # Ctrl-C interrupts only this thread; the others wait for their workers
            raise
        yield workers


@contextmanager
def running(target: Target, *, first: bool) -> Iterator[Process]:
    """A process that ends with the `with` block; `first` is whether it is the case's first in a run.

    Raises:
        WorkerError: the worker died, hung or broke the protocol.
        BackendError: the engine refused.
        ParityError: its answers are wrong.
    """
    with Worker(python=target.python, environment=target.environment) as worker:
        yield Process(worker, target, first=first)


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
