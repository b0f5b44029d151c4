"""The machine's load, clock and limits while a case was measured."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import psutil

from pytest_rwkvperf.machine import usage


@dataclass(frozen=True, slots=True)
class Conditions:
    """Load average before (processes that want the CPU, over a minute), and the share of CPU time stolen, 0..1.

    Where the system reports them: the load average after, the first core's clock (MHz) and governor, and the limits of
    this process's control group (processors, bytes of memory).
    """

    load_before: float
    steal: float
    load_after: float | None = None
    cpu_mhz: float | None = None
    governor: str = ""
    quota_cpus: float | None = None
    memory_limit_bytes: int | None = None
    foreign: float = 0.0
    """Share of the processor time that the case's threads want which other processes left them without, 0..1."""


class Watch:
    """Reads the CPU's counters at the start; `conditions()` gives the difference."""

    def __init__(self, threads: int = 1, system: Path = Path("/sys")) -> None:
        self._threads = threads
        self._system = system
        self._load = psutil.getloadavg()[0]
        self._before = psutil.cpu_times()
        self._usage = usage.now()

    def conditions(self) -> Conditions:
        """The conditions since this object was made. Steal time exists on Linux guests only; elsewhere it is 0."""
        after = psutil.cpu_times()
        total = sum(after) - sum(self._before)
        stolen = getattr(after, "steal", 0.0) - getattr(self._before, "steal", 0.0)
        return Conditions(
            load_before=round(self._load, 2),
            steal=round(stolen / total, 4) if total > 0 else 0.0,
            load_after=round(psutil.getloadavg()[0], 2),
            cpu_mhz=_clock(),
            governor=_text(self._system / "devices/system/cpu/cpu0/cpufreq/scaling_governor"),
            quota_cpus=quota_cpus(self._system),
            memory_limit_bytes=_memory_limit(self._system),
            foreign=round(usage.crowding(self._usage, usage.now(), psutil.cpu_count() or 1, self._threads), 4),
        )


def quota_cpus(system: Path = Path("/sys")) -> float | None:
    """Processors that a control group allows this process (`cpu.max`, cgroup v2); None without a limit.

    Inside a container the group is the root of what it sees. Source: the kernel's "Control Group v2", Interface Files.
    """
    words = _text(system / "fs/cgroup/cpu.max").split()
    return int(words[0]) / int(words[1]) if len(words) == 2 and words[0].isdigit() else None  # noqa: PLR2004 - "quota period"


def _memory_limit(system: Path) -> int | None:
    text = _text(system / "fs/cgroup/memory.max")
    return int(text) if text.isdigit() else None


def _clock() -> float | None:
    try:
        clock = psutil.cpu_freq()
    except (NotImplementedError, OSError, RuntimeError):  # no such sensor here
        return None
    current: float | None = getattr(clock, "current", None)  # psutil gives None where there is no sensor
    return round(current, 1) if current else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""
