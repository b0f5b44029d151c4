"""One worker process from the parent's side: opened, checked, warm until steady, sampled, and what it leaves behind."""

from __future__ import annotations

import math
import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import msgspec

from pytest_rwkvperf.core.errors import MeasurementError, ParityError, RwkvPerfError
from pytest_rwkvperf.measure.record import Energy, ModelFacts, ProcessRun, device_time_from, sample_from, taken_from
from pytest_rwkvperf.oracle import bounds
from pytest_rwkvperf.oracle.agreement import Deep, Short
from pytest_rwkvperf.worker import parent, protocol
from pytest_rwkvperf.worker.parent import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from pytest_rwkvperf.core.cases import Case, Workload
    from pytest_rwkvperf.core.engine import Device
    from pytest_rwkvperf.core.samples import Sample, Turn
    from pytest_rwkvperf.machine.cupti import DeviceTime
    from pytest_rwkvperf.machine.roofline import Ceilings, Work
    from pytest_rwkvperf.measure.probes import Prober

MIN_SAMPLES = 3
"""The documented minimum per workload and process, which goes before the budget."""

MAX_SAMPLES = 10
PROCESS_SECONDS = 1.0
PAIR_SECONDS = 2.0
"""A process takes samples of a workload for about this long, within MIN_SAMPLES and MAX_SAMPLES; in A/B for twice as
long: pairs of processes of the same code differed by no more than chance within them makes of so few samples, and to
open and warm two processes takes as long as these (recorded pairs, benchmarks/ab)."""

WARMUP_SECONDS = 1.0
WARMUP_LIMIT_SECONDS = 15.0
WARMUP_TOKENS = 16
WARMUP_AGREEMENT = 1.10
"""Steady: a second of work, and the last two repetitions within 10 %. Two alone would not do: on an H200 the first two
whole prefills of rwkv agree with each other and are 14 times slower than all later ones, but take under a second."""


SETTLING = 2
QUICK_SECONDS = 0.25
"""On a GPU, a repetition of less than QUICK_SECONDS that follows another workload is preceded by SETTLING that do not
count. llama.cpp runs the first prefill after a generation without a CUDA graph and records a new one in the second: on
an H200 they are 9 % and 32 % slower than all that follow. In repetitions that take longer such a step is lost."""

ENERGY_SECONDS = 3.0
"""A workload is repeated for so long to count its energy: thirty steps of an H200's counter."""

SLICE_SECONDS = 0.1
"""In A/B a generation pauses so often for the other side's: a shared machine's speed wanders within seconds, and what
is measured within tenths of one is slowed alike."""

_TICK_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Target:
    """A case with everything a worker needs to open it."""

    case: Case
    location: str
    environment: Mapping[str, str]
    python: str
    model: ModelFacts
    path: Path
    device: Device
    expected: tuple[Path, ...]
    """The oracle's logits: for the short check, and for the deep one when that is due."""
    known_deep: Deep | None
    """What an earlier deep check of the same engine, file, quant and device found."""
    work: Work | None = None
    ceilings: Ceilings | None = None


class Process:
    """A live worker with a case open and found right; samples are kept in order."""

    def __init__(self, worker: Worker, target: Target, prober: Prober | None, *, deep_due: bool) -> None:
        self._worker = worker
        self._prober = prober
        self._started = time.time()
        opened = worker.open(target.location, target.path, target.case)
        self.versions = {str(name): str(value) for name, value in opened["versions"].items()}
        self._load_nanoseconds = int(opened["load_nanoseconds"])
        self._build_nanoseconds = int(opened["build_nanoseconds"])
        self._target, self._deep_due = target, deep_due
        self._short: Short | None = None
        self.deep: Deep | None = None
        if target.case.protocol == "uniform":
            self._check()
        self._turns: tuple[Turn, ...] = ()
        self._warmups: dict[str, int] = {}
        self._samples: dict[str, list[Sample]] = {}
        self._on_gpu = target.device.kind == "gpu"
        self._quick: dict[Workload, bool] = {}
        self._token_seconds: dict[Workload, float] = {}
        self._slices: list[Sample] = []
        self._last: Workload | None = None
        self._energy: dict[str, Energy] = {}
        self._probes: dict[str, list[int]] = {}
        self._handovers: dict[str, list[int]] = {}

    def _check(self) -> None:
        """Compare its answers with the oracle's, where there are any.

        Raises:
            ParityError: they are wrong.
        """
        if self._target.expected:
            self._short, self.deep = _check(self._worker, self._target, deep_due=self._deep_due)

    def run_native(self, workloads: Sequence[Workload], progress: Callable[[str], None]) -> None:
        """One invocation of the engine's own tool; the check comes after it, because it would warm the engine.

        Raises:
            RwkvPerfError: the worker failed, its clock is broken, or its answers are wrong.
        """
        names = [str(one) for one in workloads]
        answer = self._worker.request(
            "native", parent.SAMPLE_SECONDS, lambda sentence, _fraction: progress(sentence), workloads=names
        )
        taken = taken_from(answer)
        for name in names:
            if not taken.samples.get(name) or any(one.nanoseconds <= 0 for one in taken.samples[name]):
                raise MeasurementError(f"{name} has no usable times in the native protocol; the clock is broken")
        self._samples = {name: [*taken.samples[name]] for name in names}
        self._turns = taken.turns
        self.versions |= taken.versions or {}
        self._check()

    def warm_up(self, workloads: Sequence[Workload], seconds: float = PROCESS_SECONDS) -> dict[Workload, int]:
        """Repeat each workload until it is steady or the limit passes; how many samples take about so many seconds.

        Raises:
            RwkvPerfError: the worker failed.
        """
        counts = {}
        for workload in workloads:
            durations: list[float] = []
            while not steady(durations):
                durations.append(self._sample(warmup_for(workload)).nanoseconds / 1e9)
            self._warmups[str(workload)] = len(durations)
            self._quick[workload] = durations[-1] < QUICK_SECONDS
            self._token_seconds[workload] = durations[-1] / warmup_for(workload).tokens
            self._last = workload
            counts[workload] = sample_count(workload, durations[-1], seconds)
        return counts

    def take(self, workload: Workload, waiting: Callable[[str], None] = lambda _sentence: None) -> Sample:
        """Time a workload once, with the probes before it, and keep all.

        Raises:
            RwkvPerfError: the worker failed, or its clock is broken.
        """
        self._settle(workload)
        if self._prober is not None:
            handover = self._prober.near(waiting)
            if handover is not None:
                self._handovers.setdefault(str(workload), []).append(handover)
            self._probes.setdefault(str(workload), []).append(self._prober.beside(workload))
        sample = self._sample(workload)
        self._samples.setdefault(str(workload), []).append(sample)
        return sample

    def take_slice(self, workload: Workload, start: int, count: int) -> None:
        """Time some tokens of a generation, from its `start`th on; its last slice makes a sample of all.

        Raises:
            RwkvPerfError: as `take`.
        """
        if start == 0:
            self._settle(workload)
            self._slices = []
        answer = self._worker.request("slice", parent.SAMPLE_SECONDS, workload=str(workload), start=start, count=count)
        self._slices.append(_timed(answer, workload))
        if start + count >= workload.tokens:
            self._samples.setdefault(str(workload), []).append(protocol.joined(self._slices))

    def slice_tokens(self, workload: Workload) -> int:
        """How many tokens a slice of about SLICE_SECONDS has, by the last one of the warm-up."""
        return max(1, round(SLICE_SECONDS / self._token_seconds[workload]))

    def _settle(self, workload: Workload) -> None:
        """On a GPU, repeat a quick workload that follows another one before it is timed again."""
        if self._on_gpu and self._last not in {None, workload} and self._quick.get(workload, False):
            for _ in range(SETTLING):
                self._sample(warmup_for(workload))
        self._last = workload

    def measure_energy(self, workloads: Sequence[Workload], meter: Callable[[], int | None]) -> None:
        """Repeat each workload without a pause and note what the GPU drew, by its counter in millijoules.

        Not at a depth: bringing the state there before each repetition would count as well.

        Raises:
            RwkvPerfError: as `take`.
        """
        for workload in (one for one in workloads if not one.depth):
            started = _next_tick(meter)
            if started is None:
                return
            begun, tokens = time.monotonic(), 0
            while time.monotonic() - begun < ENERGY_SECONDS:
                self._sample(workload)
                tokens += workload.tokens
            ended = _next_tick(meter)
            if ended is not None:
                self._energy[str(workload)] = Energy(tokens, (ended - started) / 1e3, time.monotonic() - begun)

    def finish(self) -> ProcessRun:
        """What the process leaves behind.

        Raises:
            WorkerError: the worker failed.
        """
        memory = self._worker.request("memory", parent.QUICK_SECONDS)
        samples = {name: tuple(taken) for name, taken in self._samples.items()}
        probes = {name: tuple(taken) for name, taken in self._probes.items()}
        peak = int(memory["peak_rss_bytes"])
        return ProcessRun(
            self._started,
            self._load_nanoseconds,
            peak,
            self._warmups,
            samples,
            self._short,
            probes,
            self._build_nanoseconds,
            self._energy,
            self._turns,
            {name: tuple(taken) for name, taken in self._handovers.items()},
            dict(self._prober.reach()) if self._prober is not None and self._probes else {},
        )

    def record_device_time(self, run: ProcessRun, workloads: Sequence[Workload]) -> tuple[ProcessRun, str]:
        """What `finish` gave, with what CUPTI records of each workload; and what kept it from that, in a line.

        After `finish`: by then all is here that a worker which does not survive this would lose. Not at a depth, where
        a token is the same work. Of a generation so many tokens as warm it up.
        """
        found: dict[str, DeviceTime] = {}
        for workload in (one for one in workloads if not one.depth):
            settling = SETTLING if self._quick.get(workload, True) else 0
            name, deadline = str(warmup_for(workload)), parent.DEVICE_TIME_SECONDS
            try:
                answer = self._worker.request("device_time", deadline, workload=name, settling=settling)
                if answer is None:
                    break
                found[str(workload)] = device_time_from(answer)
            except RwkvPerfError as error:
                told = str(error).partition("\n")[0].removesuffix("; its last lines:")
                return replace(run, device_time=found), f"{workload}: {told}"
        return replace(run, device_time=found), ""

    def _sample(self, workload: Workload) -> Sample:
        return _timed(self._worker.request("sample", parent.SAMPLE_SECONDS, workload=str(workload)), workload)


@contextmanager
def running(target: Target, prober: Prober | None = None, *, deep_due: bool) -> Iterator[Process]:
    """A process for the length of a block; a probe is timed before each of its samples.

    Raises:
        WorkerError: the worker died, hung or talked nonsense.
        BackendError: the engine refused.
        ParityError: its answers are wrong.
    """
    with Worker(python=target.python, environment=target.environment) as worker:
        yield Process(worker, target, prober, deep_due=deep_due)


def _timed(answer: dict[str, Any], workload: Workload) -> Sample:
    sample = sample_from(answer)
    if sample.nanoseconds <= 0:
        raise MeasurementError(f"{workload} took {sample.nanoseconds} ns; the clock is broken")
    return sample


def _next_tick(meter: Callable[[], int | None]) -> int | None:
    """The energy counter right after it moved on, which it does about ten times a second; None where there is none."""
    first, limit = meter(), time.monotonic() + _TICK_SECONDS
    while (now := meter()) == first and now is not None and time.monotonic() < limit:
        time.sleep(0.002)
    return now


def _check(worker: Worker, target: Target, *, deep_due: bool) -> tuple[Short, Deep | None]:
    """Right before fast: a process whose answers are wrong is not timed.

    Raises:
        ParityError: with the figures.
    """
    case = target.case
    bound = bounds.bound_for(case.backend, case.quant, target.device)
    files = [str(path) for path in (target.expected if deep_due else target.expected[:1])]
    answer = worker.request("parity", parent.SAMPLE_SECONDS, expected=files, noise=bound.relative_l2)
    short = msgspec.convert(answer["short"], type=Short)
    deep = msgspec.convert(answer["deep"], type=Deep) if answer["deep"] else None
    problem = bounds.broken_short(short, bound) or (bounds.broken_deep(deep, bound) if deep else "")
    if problem:
        raise ParityError(f"{case.label} gives a wrong answer, so its speed counts for nothing: {problem}")
    return short, deep


def warmup_for(workload: Workload) -> Workload:
    """What warms a workload: a prefill itself, whose chunks' shapes matter; of a generation, some tokens.

    At the workload's depth: the first repetition of either reads its context.
    """
    if workload.kind == "prefill":
        return workload
    return replace(workload, tokens=min(workload.tokens, WARMUP_TOKENS))


def sample_count(workload: Workload, warm_seconds: float, seconds: float = PROCESS_SECONDS) -> int:
    """How many samples a process takes in so many seconds, from the last warm-up repetition's duration."""
    each = warm_seconds * workload.tokens / warmup_for(workload).tokens
    return max(MIN_SAMPLES, min(MAX_SAMPLES, math.ceil(seconds / each)))


def steady(durations: Sequence[float]) -> bool:
    """Whether a warm-up with these durations (seconds) is over."""
    if len(durations) < 2:  # noqa: PLR2004 - agreement needs two
        return False
    last, before = durations[-1], durations[-2]
    agree = max(last, before) <= WARMUP_AGREEMENT * min(last, before)
    total = sum(durations)
    return (total >= WARMUP_SECONDS and agree) or total >= WARMUP_LIMIT_SECONDS
