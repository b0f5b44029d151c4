"""The sampling plan: how many processes, how many samples, in which order, and when it is enough.

The process is the unit of sampling. Each one loads the model once, warms every workload until it is steady, then takes
blocks in which the workloads stand in a seeded random order.
"""

from __future__ import annotations

import math
import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from pytest_rwkvperf.cases import Workload
from pytest_rwkvperf.errors import MeasurementError, ParityError
from pytest_rwkvperf.machine.conditions import Watch
from pytest_rwkvperf.measure import protocol
from pytest_rwkvperf.measure.record import CaseRecord, EndedBy, ModelFacts, Run, sample_from
from pytest_rwkvperf.oracle import bounds
from pytest_rwkvperf.oracle.check import Deep, Short
from pytest_rwkvperf.stats.estimates import interval_reach, log_times
from pytest_rwkvperf.worker import parent
from pytest_rwkvperf.worker.parent import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from pytest_rwkvperf.backends.base import Device
    from pytest_rwkvperf.cases import Case
    from pytest_rwkvperf.measure.protocol import Sample

MIN_PROCESSES = 3
MIN_SAMPLES = 3
"""The documented minimum per workload, which goes before the budget."""

ENOUGH_PROCESSES = 5
"""Fewer are never enough for the asked precision, however close they lie by luck."""

MAX_PROCESSES = 20
MAX_SAMPLES = 10
PROCESS_SECONDS = 1.0
"""A process takes samples of a workload for about this long, within MIN_SAMPLES and MAX_SAMPLES."""

WARMUP_SECONDS = 1.0
WARMUP_LIMIT_SECONDS = 15.0
WARMUP_TOKENS = 16
WARMUP_AGREEMENT = 1.10
"""Steady: a second of work, and the last two repetitions within 10 %. Two alone would not do: on an H200 the first two
whole prefills of rwkv agree with each other and are 14 times slower than all later ones, but take under a second."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What one case is given: relative half-width to reach, and seconds to spend beyond the minimum."""

    precision: float
    budget_seconds: float


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


def measure(target: Target, workloads: Sequence[Workload], plan: Plan, progress: Callable[[str], None]) -> CaseRecord:
    """Measure a case's workloads over several worker processes.

    Raises:
        WorkerError: a worker died, hung or talked nonsense.
        BackendError: the engine refused.
        MeasurementError: the samples carry no figure.
    """
    watch, started = Watch(), time.monotonic()
    runs: list[Run] = []
    versions: dict[str, str] = {}
    deep = target.known_deep
    ended_by: EndedBy | None = None
    while ended_by is None:
        progress(f"process {len(runs) + 1}, {_precision_so_far(runs, workloads)}")
        run, versions, found = run_process(target, workloads, len(runs), progress)
        runs.append(run)
        deep = deep or found
        ended_by = _verdict_on_enough(runs, workloads, plan, time.monotonic() - started)
    return CaseRecord(
        target.case,
        target.model,
        target.device,
        versions,
        protocol.VERSION,
        deep,
        ended_by,
        time.monotonic() - started,
        watch.conditions(),
        tuple(runs),
    )


def _verdict_on_enough(
    runs: Sequence[Run], workloads: Sequence[Workload], plan: Plan, elapsed: float
) -> EndedBy | None:
    """Which of the two rules ends the case now, if any."""
    if len(runs) < MIN_PROCESSES:
        return None
    if len(runs) >= ENOUGH_PROCESSES and all(half_width(runs, one) <= plan.precision for one in workloads):
        return "precision"
    # Another process takes as long as those before it; one that would end past the budget is not begun.
    if elapsed * (1 + 1 / len(runs)) > plan.budget_seconds or len(runs) >= MAX_PROCESSES:
        return "budget"
    return None


def half_width(runs: Sequence[Run], workload: Workload) -> float:
    """Relative half-width of a workload's 95 % interval over the runs so far."""
    moments = log_times([[sample.nanoseconds for sample in run.samples[str(workload)]] for run in runs])
    return math.expm1(min(interval_reach(moments), 700.0))


def _precision_so_far(runs: Sequence[Run], workloads: Sequence[Workload]) -> str:
    if len(runs) < 2:  # noqa: PLR2004 - an interval needs two
        return "no interval yet"
    return ", ".join(f"{workload} ± {half_width(runs, workload):.1%}" for workload in workloads)


def run_process(
    target: Target, workloads: Sequence[Workload], index: int, progress: Callable[[str], None]
) -> tuple[Run, dict[str, str], Deep | None]:
    """One worker process: check, warm up, sample. With the engine's versions, and the deep check where it was due.

    Raises:
        RwkvPerfError: as `measure`.
    """
    case, started = target.case, time.time()
    with Worker(python=target.python, environment=target.environment) as worker:
        opened = worker.open(target.location, target.path, case)
        short, deep = _check(worker, target, deep_due=index == 0 and target.known_deep is None)
        warm = {workload: _warm(worker, warmup_for(workload)) for workload in workloads}
        samples: dict[Workload, list[Sample]] = {workload: [] for workload in workloads}
        counts = {workload: sample_count(workload, durations[-1]) for workload, durations in warm.items()}
        for workload in schedule(counts, seed=f"{case.key} {index}"):
            samples[workload].append(_sample(worker, workload))
        memory = worker.request("memory", parent.QUICK_SECONDS)
    progress(f"process {index + 1} done")
    run = Run(
        started,
        int(opened["load_nanoseconds"]),
        int(memory["peak_rss_bytes"]),
        {str(workload): len(durations) for workload, durations in warm.items()},
        {str(workload): tuple(taken) for workload, taken in samples.items()},
        short,
    )
    return run, {str(name): str(value) for name, value in opened["versions"].items()}, deep


def _check(worker: Worker, target: Target, *, deep_due: bool) -> tuple[Short, Deep | None]:
    """Right before fast: a process whose answers are wrong is not timed.

    Raises:
        ParityError: with the figures.
    """
    case = target.case
    bound = bounds.bound_for(case.backend, case.quant)
    files = [str(path) for path in (target.expected if deep_due else target.expected[:1])]
    answer = worker.request("parity", parent.SAMPLE_SECONDS, expected=files, noise=bound.relative_l2)
    short = msgspec.convert(answer["short"], type=Short)
    deep = msgspec.convert(answer["deep"], type=Deep) if answer["deep"] else None
    problem = bounds.broken_short(short, bound) or (bounds.broken_deep(deep, bound) if deep else "")
    if problem:
        raise ParityError(f"{case.label} gives a wrong answer, so its speed counts for nothing: {problem}")
    return short, deep


def schedule(counts: Mapping[Workload, int], seed: str) -> list[Workload]:
    """Blocks that hold each workload once, in a seeded random order; a workload with fewer samples leaves early."""
    source = random.Random(seed)
    order: list[Workload] = []
    for block in range(max(counts.values())):
        members = [workload for workload, count in counts.items() if block < count]
        source.shuffle(members)
        order += members
    return order


def warmup_for(workload: Workload) -> Workload:
    """What warms a workload: a prefill itself, whose chunks' shapes matter; of a generation, some tokens.

    Every token of a generation is the same work at any depth, the state being of constant size.
    """
    if workload.kind == "prefill":
        return workload
    return Workload("generation", min(workload.tokens, WARMUP_TOKENS))


def sample_count(workload: Workload, warm_seconds: float) -> int:
    """How many samples a process takes, from the last warm-up repetition's duration."""
    seconds = warm_seconds * workload.tokens / warmup_for(workload).tokens
    return max(MIN_SAMPLES, min(MAX_SAMPLES, math.ceil(PROCESS_SECONDS / seconds)))


def _warm(worker: Worker, workload: Workload) -> list[float]:
    """Repeat a workload until it is steady or the limit passes; the durations in seconds."""
    durations: list[float] = []
    while not steady(durations):
        durations.append(_sample(worker, workload).nanoseconds / 1e9)
    return durations


def steady(durations: Sequence[float]) -> bool:
    """Whether a warm-up with these durations (seconds) is over."""
    if len(durations) < 2:  # noqa: PLR2004 - agreement needs two
        return False
    last, before = durations[-1], durations[-2]
    agree = max(last, before) <= WARMUP_AGREEMENT * min(last, before)
    total = sum(durations)
    return (total >= WARMUP_SECONDS and agree) or total >= WARMUP_LIMIT_SECONDS


def _sample(worker: Worker, workload: Workload) -> Sample:
    sample = sample_from(worker.request("sample", parent.SAMPLE_SECONDS, workload=str(workload)))
    if sample.nanoseconds <= 0:
        raise MeasurementError(f"{workload} took {sample.nanoseconds} ns; the clock is broken")
    return sample
