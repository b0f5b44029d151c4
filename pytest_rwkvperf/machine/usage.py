"""Processor time that others used while a case was measured: the plainest sign that a figure is not all the code's."""

from __future__ import annotations

import time
from dataclasses import dataclass

import psutil


@dataclass(frozen=True, slots=True)
class Usage:
    """Processor seconds at a moment: of the whole machine, of this process and what it has reaped, and the clock."""

    busy: float
    own: float
    moment: float


def now() -> Usage:
    """Counters now. Idle, waiting for disks, and what a guest counts twice are not busy (proc(5), /proc/stat)."""
    times = psutil.cpu_times()
    idle = sum(getattr(times, name, 0.0) for name in ("idle", "iowait", "guest", "guest_nice", "steal"))
    busy = sum(times) - idle
    return Usage(busy, sum(map(_used, _family())), time.monotonic())


def _family() -> list[psutil.Process]:
    """This process and every live one that it has started."""
    here = psutil.Process()
    return [here, *here.children(recursive=True)]


def _used(process: psutil.Process) -> float:
    """Processor seconds of a process and of the children that it has reaped; none of one that has just ended."""
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    reaped = getattr(times, "children_user", 0.0) + getattr(times, "children_system", 0.0)
    return float(times.user + times.system + reaped)


def crowding(before: Usage, after: Usage, cores: int, threads: int) -> float:
    """Share of the processor time that `threads` threads want which others' work left them without, 0 to 1.

    Others used a share f of `cores` cores between the two moments, so that cores x (1 - f) were left; work that fits
    beside ours crowds nobody. What this process has started counts as its own, whether it has ended or not.
    """
    seconds = after.moment - before.moment
    if seconds <= 0:
        return 0.0
    taken = (after.busy - before.busy - (after.own - before.own)) / seconds
    left = cores - min(float(cores), max(0.0, taken))
    return max(0.0, 1.0 - left / threads)
