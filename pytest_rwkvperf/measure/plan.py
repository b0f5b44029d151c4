"""The sampling plan: how many processes, how many samples, in which order, and when it is enough.

The process is the unit of sampling. Each one loads the model once, warms every workload until it is steady, then takes
blocks in which the workloads stand in a seeded random order.
"""

from __future__ import annotations

import math
import random
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pytest_rwkvperf.machine.conditions import Watch
from pytest_rwkvperf.machine.watching import GpuWatch
from pytest_rwkvperf.measure.probes import probing
from pytest_rwkvperf.measure.process import running
from pytest_rwkvperf.measure.record import CaseRecord, EndedBy, ProcessRun, times_of
from pytest_rwkvperf.stats.estimates import interval_reach, log_times
from pytest_rwkvperf.stats.verdicts import LOOKS
from pytest_rwkvperf.worker import native, protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pytest_rwkvperf.core.cases import Case, Workload
    from pytest_rwkvperf.measure.probes import Prober
    from pytest_rwkvperf.measure.process import Target
    from pytest_rwkvperf.oracle.agreement import Deep

MIN_PROCESSES = 3
"""The documented minimum, which goes before the budget."""

ENOUGH_PROCESSES = 5
"""Fewer are never enough for the asked precision, however close they lie by luck."""

MAX_PROCESSES = 20

PATIENCE_SHARE = 1 / 4
"""Of the budget: what a case may spend on waiting for processors that stand apart."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What one case is given: relative half-width to reach, and seconds to spend beyond the minimum.

    `decided` says of a record whether every verdict on it has fallen; None in a run that saves. `handovers` is what
    probes.Prober knows of the machine.
    """

    precision: float
    budget_seconds: float
    decided: Callable[[CaseRecord], bool] | None = None
    handovers: Mapping[str, float] = field(default_factory=dict)


def measure(target: Target, workloads: Sequence[Workload], plan: Plan, progress: Callable[[str], None]) -> CaseRecord:
    """Measure a case's workloads over several worker processes.

    A run that compares may end by its verdicts, at the planned looks alone; one that saves never does: a level at which
    a comparison happened to be decided is not an unbiased one.

    Raises:
        WorkerError: a worker died, hung or talked nonsense.
        BackendError: the engine refused.
        MeasurementError: the samples carry no figure.
    """
    watch, started = Watch(target.case.threads), time.monotonic()
    runs: list[ProcessRun] = []

    def taken(ended_by: EndedBy) -> CaseRecord:
        return CaseRecord(
            target.case,
            target.model,
            target.device,
            versions,
            native.VERSION if target.case.protocol == "native" else protocol.VERSION,
            deep,
            ended_by,
            time.monotonic() - started,
            watch.conditions(),
            tuple(runs),
            prober.version if prober else "",
            gpu.conditions(),
            target.work,
            target.ceilings,
        )

    versions: dict[str, str] = {}
    deep = target.known_deep
    ended_by: EndedBy | None = None
    patience = PATIENCE_SHARE * plan.budget_seconds
    threads = target.case.threads
    with probing(target.device, threads, patience, plan.handovers) as prober, GpuWatch(target.device) as gpu:
        while ended_by is None:
            progress(f"process {len(runs) + 1}, {_precision_so_far(target.case, runs, workloads)}")
            run, versions, found = run_process(target, prober, workloads, len(runs), progress, gpu)
            runs.append(run)
            deep = deep or found
            if plan.decided is not None and len(runs) in LOOKS and plan.decided(taken("verdict")):
                ended_by = "verdict"
            else:
                ended_by = _enough(target.case, runs, workloads, plan, time.monotonic() - started)
    return taken(ended_by)


def _enough(
    case: Case, runs: Sequence[ProcessRun], workloads: Sequence[Workload], plan: Plan, elapsed: float
) -> EndedBy | None:
    """Which of the two rules ends the case now, if any."""
    if len(runs) < MIN_PROCESSES:
        return None
    if len(runs) >= ENOUGH_PROCESSES and all(half_width(case, runs, one) <= plan.precision for one in workloads):
        return "precision"
    # Another process takes as long as those before it; one that would end past the budget is not begun.
    if elapsed * (1 + 1 / len(runs)) > plan.budget_seconds or len(runs) >= MAX_PROCESSES:
        return "budget"
    return None


def half_width(case: Case, runs: Sequence[ProcessRun], workload: Workload) -> float:
    """Relative half-width of a workload's 95 % interval over the runs so far."""
    moments = log_times(times_of(case, runs, workload))
    return math.expm1(min(interval_reach(moments), 700.0))


def _precision_so_far(case: Case, runs: Sequence[ProcessRun], workloads: Sequence[Workload]) -> str:
    if len(runs) < 2:  # noqa: PLR2004 - an interval needs two
        return "no interval yet"
    return ", ".join(f"{workload} ± {half_width(case, runs, workload):.1%}" for workload in workloads)


def run_process(
    target: Target,
    prober: Prober | None,
    workloads: Sequence[Workload],
    index: int,
    progress: Callable[[str], None],
    gpu: GpuWatch | None = None,
) -> tuple[ProcessRun, dict[str, str], Deep | None]:
    """One worker process: check, warm up, sample. With the engine's versions, and the deep check where it was due.

    Raises:
        RwkvPerfError: as `measure`.
    """
    deep_due = index == 0 and target.known_deep is None
    with ExitStack() as last, running(target, prober, deep_due=deep_due) as process:
        if target.case.protocol == "native":
            process.run_native(workloads, progress)
            return process.finish(), process.versions, process.deep
        counts = process.warm_up(workloads)
        for workload in schedule(counts, seed=f"{target.case.key} {index}"):
            process.take(workload, progress)
        meter = gpu.gpu if gpu is not None and index == 0 else None
        if meter is not None:
            process.measure_energy(workloads, meter.millijoules)
        run = process.finish()
        if gpu is not None and meter is not None and target.device.id.startswith("cuda:"):
            # To the worker's end: the driver counts CUPTI's memory as the worker's.
            last.enter_context(gpu.looking_away())
            run, gpu.unrecorded = process.record_device_time(run, workloads)
    progress(f"process {index + 1} done")
    return run, process.versions, process.deep


def schedule(counts: Mapping[Workload, int], seed: str) -> list[Workload]:
    """Blocks that hold each workload once, in a seeded random order; a workload with fewer samples leaves early."""
    source = random.Random(seed)
    order: list[Workload] = []
    for block in range(max(counts.values())):
        members = [workload for workload, count in counts.items() if block < count]
        source.shuffle(members)
        order += members
    return order
