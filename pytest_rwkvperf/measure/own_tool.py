"""The native protocol: one invocation of the engine's own tool in a process."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_rwkvperf.core.errors import MeasurementError
from pytest_rwkvperf.core.samples import ToolResult
from pytest_rwkvperf.measure.process import typed
from pytest_rwkvperf.worker import parent

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pytest_rwkvperf.core.cases import Workload
    from pytest_rwkvperf.measure.process import Process
    from pytest_rwkvperf.measure.record import ProcessRun


def invoke(process: Process, workloads: Sequence[Workload], progress: Callable[[str], None]) -> ProcessRun:
    """Measure all workloads in one invocation, then check the answers: to check them before would warm the engine.

    Raises:
        RwkvPerfError: the worker failed, its clock is broken, or its answers are wrong.
    """
    names = [str(workload) for workload in workloads]
    answer = process.worker.request(
        "native", parent.SAMPLE_SECONDS, lambda sentence, _fraction: progress(sentence), workloads=names
    )
    result = typed(answer, ToolResult)
    for name in names:
        if not result.samples.get(name) or any(sample.nanoseconds <= 0 for sample in result.samples[name]):
            raise MeasurementError(f"{name} has no usable times in the native protocol; the clock is broken")
    process.versions |= result.versions or {}
    process.check()
    return replace(process.finish(), samples={name: result.samples[name] for name in names}, turns=result.turns)
