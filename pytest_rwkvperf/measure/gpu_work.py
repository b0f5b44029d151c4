"""What a GPU does for a workload: the energy that it draws, and how long it computes."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from pytest_rwkvperf.core import clock
from pytest_rwkvperf.core.errors import MeasurementError, RwkvPerfError
from pytest_rwkvperf.machine.cupti import DeviceTime
from pytest_rwkvperf.measure.process import typed
from pytest_rwkvperf.measure.record import Energy
from pytest_rwkvperf.measure.sampling import warmup_for
from pytest_rwkvperf.worker import parent

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pytest_rwkvperf.core.cases import Workload
    from pytest_rwkvperf.worker.parent import Worker

ENERGY_SECONDS = 3.0
"""How long a workload is repeated: thirty steps of an H200's counter."""

_TICK_SECONDS = 0.5
"""Longest wait for the counter's next step."""


def measure_energy(
    repeat: Callable[[Workload], object], workloads: Sequence[Workload], meter: Callable[[], int | None]
) -> dict[str, Energy]:
    """Repeat each workload without a pause and read `meter`, the GPU's counter in millijoules, before and after.

    Workloads at a depth are left out: bringing the state there before each repetition would count as well.
    """
    energy = {}
    for workload in (workload for workload in workloads if not workload.depth):
        if workload.batch > 1:
            repeat(workload)  # it may have to be made anew
        before = _next_tick(meter)
        if before is None:
            break
        started, tokens = clock.monotonic(), 0
        while clock.monotonic() - started < ENERGY_SECONDS:
            repeat(workload)
            tokens += workload.total_tokens
        after = _next_tick(meter)
        if after is not None:
            energy[str(workload)] = Energy(tokens, (after - before) / 1e3, clock.monotonic() - started)
    return energy


def _next_tick(meter: Callable[[], int | None]) -> int | None:
    """The counter right after it has changed, which it does about ten times a second; None where there is none."""
    first, limit = meter(), clock.monotonic() + _TICK_SECONDS
    while (now := meter()) == first and now is not None and clock.monotonic() < limit:
        time.sleep(0.002)
    return now


def record_device_time(
    worker: Worker, workloads: Sequence[Workload], settling: Callable[[Workload], int]
) -> tuple[dict[str, DeviceTime], str]:
    """The device time of each workload by CUPTI, and in a line what kept CUPTI from recording one; empty for nothing.

    The worker may not survive this: take everything else from it before. `settling` is how many repetitions do not
    count. Workloads at a depth are left out, since a token is the same work there; of a generation only the tokens that
    warm it up are recorded.
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
