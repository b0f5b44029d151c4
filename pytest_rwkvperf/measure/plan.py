"""The sampling plan: how many processes, how many samples, in which order, and when it is enough.

The process is the unit of sampling. Each one loads the model once, warms every workload until it is steady, then takes
blocks in which the workloads stand in a seeded random order.
"""

from __future__ import annotations

import math
import random
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from pytest_rwkvperf.core import clock
from pytest_rwkvperf.machine.conditions import Watch
from pytest_rwkvperf.machine.watching import GpuWatch
from pytest_rwkvperf.measure import own_tool
from pytest_rwkvperf.measure.gpu_work import measure_energy, record_device_time
from pytest_rwkvperf.measure.probes import probing
from pytest_rwkvperf.measure.process import MeasuredCase, running
from pytest_rwkvperf.measure.record import CaseRecord, EndedBy, ProcessRun, steady_times_of
from pytest_rwkvperf.measure.sampling import MIN_SAMPLES, Sampling, sample_count
from pytest_rwkvperf.stats.estimates import interval_reach, is_unusable, log_times
from pytest_rwkvperf.stats.shrinkage import PROCESS_PRIOR
from pytest_rwkvperf.stats.verdicts import LOOKS, MAX_EXPONENT

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from pytest_rwkvperf.core.cases import Case, Workload, WorkloadKind
    from pytest_rwkvperf.measure.paced_progress import PacedProgress
    from pytest_rwkvperf.measure.probes import Prober
    from pytest_rwkvperf.measure.process import Target
    from pytest_rwkvperf.stats.spread import Spread

MIN_PROCESSES = 3
"""The documented minimum, which goes before the budget."""

ENOUGH_PROCESSES = 5
"""Fewer are never enough for the asked precision: a few may agree by chance."""

MAX_PROCESSES = 20

BELIEVABLE = 0.10
"""A half-width that a reader takes for a measurement. A case with a wider interval may take time of later cases."""

WAITING_SHARE = 1 / 4
"""Share of the budget that a case may spend on waiting for fast handovers between its threads."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What one case is given: relative half-width to reach, and seconds to spend beyond the minimum.

    `decided` says of a record whether all its verdicts are reached; None in a run that saves. `handovers` is what
    probes.Prober knows of the machine, `process_spread` how far processes lie apart there. `left_seconds` is what the
    run has left for this case and `others`.
    """

    precision: float
    budget_seconds: float
    decided: Callable[[CaseRecord], bool] | None = None
    handovers: Mapping[str, float] = field(default_factory=dict)
    process_spread: Mapping[WorkloadKind, Spread] = field(default_factory=dict)
    left_seconds: float = 0.0
    others: int = 0

    def seconds_allowed(self, elapsed: float, processes: int, widest: float) -> float:
        """What the case may spend: its share, or, while its widest interval is wider than BELIEVABLE, more.

        That is half of what the run has left, and no more than leaves the others their minimum, if they take as long.
        """
        if widest <= BELIEVABLE or not self.others:
            return self.budget_seconds
        minimum = self.others * MIN_PROCESSES * elapsed / processes
        return max(self.budget_seconds, min(self.left_seconds / 2, self.left_seconds - minimum))


def measure(target: Target, workloads: Sequence[Workload], plan: Plan, progress: PacedProgress) -> CaseRecord:
    """Measure a case's workloads over several worker processes.

    A run that compares may end by its verdicts, at the planned looks alone. One that saves never does: a level at which
    a comparison happened to be decided is biased.

    Raises:
        WorkerError: a worker died, hung or broke the protocol.
        BackendError: the engine refused.
        MeasurementError: the samples carry no figure.
    """
    watch, started = Watch(target.case.threads), clock.monotonic()
    measured = MeasuredCase(target)
    runs = measured.runs
    max_wait = WAITING_SHARE * plan.budget_seconds
    with (
        probing(target.device, target.case.threads, max_wait, plan.handovers) as prober,
        GpuWatch(target.device) as gpu,
    ):

        def record(ended_by: EndedBy) -> CaseRecord:
            seconds, version = clock.monotonic() - started, prober.version if prober else ""
            return measured.record(ended_by, seconds=seconds, watch=watch, gpu=gpu, probe_version=version)

        ended_by: EndedBy | None = None
        while ended_by is None:
            widths = _half_widths(target.case, runs, workloads, plan)
            precise = {workload for workload, width in widths.items() if width <= plan.precision}
            name = f"process {len(runs) + 1}{_precision_so_far(widths)}"
            run_process(measured, workloads, _prefixed(progress, name), prober=prober, gpu=gpu, precise=precise)
            progress.pace(len(runs), MIN_PROCESSES)
            if plan.decided is not None and len(runs) in LOOKS and plan.decided(record("verdict")):
                ended_by = "verdict"
            else:
                widths = _half_widths(target.case, runs, workloads, plan)
                ended_by = _enough(len(runs), widths, plan, clock.monotonic() - started)
    return replace(record(ended_by), process_spread=dict(plan.process_spread))


def _enough(processes: int, widths: Mapping[Workload, float], plan: Plan, elapsed: float) -> EndedBy | None:
    """The rule that ends the case now, precision or budget; None where neither does."""
    if processes < MIN_PROCESSES:
        return None
    widest = max(widths.values())
    if processes >= ENOUGH_PROCESSES and widest <= plan.precision:
        return "precision"
    # Another process takes as long as those before it; one that would end past the budget is not begun.
    allowed = plan.seconds_allowed(elapsed, processes, widest)
    if elapsed * (1 + 1 / processes) > allowed or processes >= MAX_PROCESSES:
        return "budget"
    return None


def _half_widths(
    case: Case, runs: Sequence[ProcessRun], workloads: Sequence[Workload], plan: Plan
) -> dict[Workload, float]:
    """Relative half-widths of the 95 % intervals over the runs so far; empty while there are none."""
    if len(runs) < 2:  # noqa: PLR2004 - an interval needs two
        return {}
    priors = {workload: plan.process_spread.get(workload.kind, PROCESS_PRIOR) for workload in workloads}
    return {workload: half_width(case, runs, workload, prior) for workload, prior in priors.items()}


def half_width(case: Case, runs: Sequence[ProcessRun], workload: Workload, prior: Spread = PROCESS_PRIOR) -> float:
    """Relative half-width of a workload's 95 % interval over the runs so far."""
    moments = log_times(steady_times_of(case, runs, workload))
    return math.expm1(min(interval_reach(moments, prior), MAX_EXPONENT))


def _precision_so_far(widths: Mapping[Workload, float]) -> str:
    """The widest interval, which is what the case is still measured for; empty before there is one."""
    if not widths:
        return ""
    widest = max(widths.values())
    return " (intervals unusable)" if is_unusable(widest) else f" (intervals up to ± {widest:.1%})"


def _prefixed(progress: Callable[[str], None], name: str) -> Callable[[str], None]:
    return lambda sentence: progress(f"{name}: {sentence}")


def run_process(
    measured: MeasuredCase,
    workloads: Sequence[Workload],
    progress: Callable[[str], None],
    *,
    prober: Prober | None = None,
    gpu: GpuWatch | None = None,
    precise: Collection[Workload] = (),
) -> None:
    """Check, warm up and sample in one more process of a case; in the first one also measure energy and device time.

    Workloads that are already `precise` get the fewest samples: the time is for those that are not.
    """
    index = len(measured.runs)
    progress(measured.opening)
    with ExitStack() as until_ended, running(measured.target, first=measured.first) as process:
        if measured.target.case.protocol == "native":
            run = own_tool.invoke(process, workloads, progress)
        else:
            sampling = Sampling(process, prober, gpu.own_bytes if gpu is not None else None)
            counts = {
                workload: MIN_SAMPLES if workload in precise else sample_count(each)
                for workload, each in sampling.warm_up(workloads, progress=progress).items()
            }
            sampling.check_answers(counts)
            for workload in schedule(counts, seed=f"{measured.target.case.key} {index}"):
                progress(f"timing {workload}")
                sampling.take(workload, progress)
            if index == 0 and gpu is not None and gpu.gpu is not None:
                energy = measure_energy(process.time, workloads, gpu.gpu.millijoules)
                run = replace(sampling.finish(), energy=energy)
                if process.target.device.id.startswith("cuda:"):
                    # To the worker's end: the driver counts CUPTI's memory as the worker's.
                    until_ended.enter_context(gpu.paused())
                    times, gpu.unrecorded = record_device_time(process.worker, workloads, sampling.settling)
                    run = replace(run, device_time=times)
            else:
                run = sampling.finish()
    measured.add(process, run)


def schedule(counts: Mapping[Workload, int], seed: str) -> list[Workload]:
    """Blocks that hold each workload once, in a seeded random order; a workload with fewer samples leaves early."""
    source = random.Random(seed)
    order: list[Workload] = []
    for block in range(max(counts.values())):
        members = [workload for workload, count in counts.items() if block < count]
        source.shuffle(members)
        order += members
    return order
