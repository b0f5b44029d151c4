"""How long a CUDA device computes for a workload, as CUPTI records it in the worker."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_rwkvperf.core.errors import MeasurementError, RwkvPerfError
from pytest_rwkvperf.machine.cupti import DeviceTime
from pytest_rwkvperf.measure.process import typed
from pytest_rwkvperf.measure.sampling import warmup_for
from pytest_rwkvperf.worker import parent

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pytest_rwkvperf.core.cases import Workload
    from pytest_rwkvperf.worker.parent import Worker


def record_device_time(
    worker: Worker, workloads: Sequence[Workload], settling: Callable[[Workload], int]
) -> tuple[dict[str, DeviceTime], str]:
    """The device time of each workload, and in a line what kept CUPTI from recording one; empty for nothing.

    The worker may not survive this: take everything else from it before. `settling` is how many repetitions do not
    count. Not at a depth, where a token is the same work. Of a generation so many tokens as warm it up.
    """
    times: dict[str, DeviceTime] = {}
    for workload in (workload for workload in workloads if not workload.depth):
        try:
            answer = worker.request(
                "device_time",
                parent.DEVICE_TIME_SECONDS,
                workload=str(warmup_for(workload)),
                settling=settling(workload),
            )
            if answer is None:  # cupti-python is not installed
                break
            times[str(workload)] = _usable(typed(answer, DeviceTime))
        except RwkvPerfError as error:
            reason = str(error).partition("\n")[0].removesuffix("; its last lines:")
            return times, f"{workload}: {reason}"
    return times, ""


def _usable(taken: DeviceTime) -> DeviceTime:
    if min(taken.tokens, taken.busy_nanoseconds) <= 0:
        raise MeasurementError(f"{taken.busy_nanoseconds} ns of device time for {taken.tokens} tokens are unusable")
    return taken
