"""Processor time that other processes used while a case was measured, which may have slowed it."""

from __future__ import annotations

from dataclasses import dataclass

import psutil

from pytest_rwkvperf.core import clock


@dataclass(frozen=True, slots=True)
class Usage:
    """Processor seconds so far of the whole machine, and of this process with its children; `moment` is the clock."""

    busy: float
    own: float
    moment: float


def now() -> Usage:
    """Counters now. Not busy: idle, waiting for disks, and what a guest counts twice (proc(5), /proc/stat)."""
    times = psutil.cpu_times()
    idle = sum(getattr(times, name, 0.0) for name in ("idle", "iowait", "guest", "guest_nice", "steal"))
    busy = sum(times) - idle
    return Usage(busy, sum(map(_used, _family())), clock.monotonic())


def _family() -> list[psutil.Process]:
    """This process and its live descendants."""
    process = psutil.Process()
    return [process, *process.children(recursive=True)]


def _used(process: psutil.Process) -> float:
    """Processor seconds of a process and of the children that it has reaped; 0 if it has just ended."""
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    reaped = getattr(times, "children_user", 0.0) + getattr(times, "children_system", 0.0)
    return float(times.user + times.system + reaped)


def crowding(before: Usage, after: Usage, cores: int, threads: int) -> float:
    """Share of the processor time that `threads` threads want and other processes took, 0 to 1.

    Others used a share f of `cores` cores between the two moments, so that cores x (1 - f) were left. This process's
    descendants are not others, whether they have ended or not.
    """
    seconds = after.moment - before.moment
    if seconds <= 0:
        return 0.0
    taken = (after.busy - before.busy - (after.own - before.own)) / seconds
    left = cores - min(float(cores), max(0.0, taken))
    return max(0.0, 1.0 - left / threads)
