"""The energy that a GPU draws for a workload, by its own counter."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from pytest_rwkvperf.measure.record import Energy

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pytest_rwkvperf.core.cases import Workload

ENERGY_SECONDS = 3.0
"""A workload is repeated for so long: thirty steps of an H200's counter."""

_TICK_SECONDS = 0.5


def measure_energy(
    repeat: Callable[[Workload], object], workloads: Sequence[Workload], meter: Callable[[], int | None]
) -> dict[str, Energy]:
    """Repeat each workload without a pause and read `meter`, the GPU's counter in millijoules, before and after.

    Not at a depth: bringing the state there before each repetition would count as well.

    Raises:
        RwkvPerfError: as `repeat`.
    """
    energy = {}
    for workload in (workload for workload in workloads if not workload.depth):
        before = _next_tick(meter)
        if before is None:
            break
        started, tokens = time.monotonic(), 0
        while time.monotonic() - started < ENERGY_SECONDS:
            repeat(workload)
            tokens += workload.tokens
        after = _next_tick(meter)
        if after is not None:
            energy[str(workload)] = Energy(tokens, (after - before) / 1e3, time.monotonic() - started)
    return energy


def _next_tick(meter: Callable[[], int | None]) -> int | None:
    """The counter right after it has changed, which it does about ten times a second; None where there is none."""
    first, limit = meter(), time.monotonic() + _TICK_SECONDS
    while (now := meter()) == first and now is not None and time.monotonic() < limit:
        time.sleep(0.002)
    return now
