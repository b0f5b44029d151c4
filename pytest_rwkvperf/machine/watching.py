"""A GPU watched while a case is measured on it: readings beside the samples, and what they say of the figures."""

from __future__ import annotations

import os
import threading
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from statistics import median
from typing import TYPE_CHECKING

import psutil

from pytest_rwkvperf.machine import nvml
from pytest_rwkvperf.machine.nvml import GpuFacts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager
    from types import TracebackType

    from typing_extensions import Self

    from pytest_rwkvperf.core.engine import Device
    from pytest_rwkvperf.machine.nvml import Gpu, Reading

INTERVAL_SECONDS = 0.2
"""Between two readings; one takes 3 to 13 ms on an H200."""

BUSY = 5
"""Percent of utilisation before this project's worker started beyond which somebody else is computing there."""

NEIGHBOURS_EVERY = 5
"""Readings from one look at the host's other GPUs to the next: they are asked through the same driver."""

_REST_SECONDS = 3.0

THROTTLED_SHARE = 0.05
"""Share of the readings under load with a throttle reason beyond which no verdict rests on the samples."""


@dataclass(frozen=True, slots=True)
class GpuReading:
    """One reading as it is kept; `own_bytes` is the memory of the measured worker, `foreign_bytes` that of others."""

    at: float
    sm_mhz: int | None = None
    memory_mhz: int | None = None
    celsius: int | None = None
    milliwatts: int | None = None
    reasons: int | None = None
    utilisation: int | None = None
    used_bytes: int | None = None
    own_bytes: int | None = None
    foreign: int = 0
    foreign_bytes: int | None = None
    busy_neighbours: int | None = None
    """How many other GPUs of the host were busy; None where they were not looked at."""


@dataclass(frozen=True, slots=True)
class GpuConditions:
    """A GPU before and while a case was measured on it; `before` was read when no worker of this case was there yet."""

    facts: GpuFacts
    before: GpuReading
    readings: tuple[GpuReading, ...] = ()
    neighbours: int = 0
    """Other GPUs of the host that the driver shows."""
    unrecorded: str = ""
    """What kept CUPTI from recording the device's time, where it was asked to; empty else."""

    @property
    def peak_bytes(self) -> int | None:
        """The worker's largest memory on the device: the driver's own account of it, else what the device lost.

        None where others are there too and the driver does not tell whose memory is whose.
        """
        if own := [one.own_bytes for one in self.readings if one.own_bytes is not None]:
            return max(own)
        if any(one.foreign for one in (self.before, *self.readings)) or self.before.used_bytes is None:
            return None
        used = [one.used_bytes for one in self.readings if one.used_bytes is not None]
        return max(0, max(used) - self.before.used_bytes) if used else None

    @property
    def idle_watts(self) -> float | None:
        """The least power of any reading: what the board draws for being there."""
        drawn = [one.milliwatts for one in (self.before, *self.readings) if one.milliwatts is not None]
        return min(drawn) / 1000 if drawn else None

    def within(self, start: float, stop: float) -> list[GpuReading]:
        """Readings between two Unix times."""
        return [one for one in self.readings if start <= one.at <= stop]

    def doubt(self) -> str:
        """Why no verdict may rest on what was measured, in words; empty when one may."""
        loaded = [one for one in self.readings if one.reasons is not None and one.utilisation]
        throttled = [one for one in loaded if (one.reasons or 0) & sum(nvml.THROTTLES)]
        if len(throttled) > THROTTLED_SHARE * len(loaded):
            names = {name for bit, name in nvml.THROTTLES.items() if any((one.reasons or 0) & bit for one in throttled)}
            share = f"{len(throttled) / len(loaded):.0%} of the readings under load"
            return f"{self.facts.name} was throttled ({', '.join(sorted(names))}) in {share}"
        if (self.before.utilisation or 0) > BUSY:
            return (
                f"{self.facts.name} was busy at {self.before.utilisation} % before this project's worker started"
                f"{_holding(self.before)}"
            )
        return ""

    def notes(self) -> list[str]:
        """What a person should know beside the figures, doubts first."""
        found = [doubt] if (doubt := self.doubt()) else []
        shared = max((self.before, *self.readings), key=lambda one: one.foreign)
        if shared.foreign:
            found.append(f"{self.facts.name} was shared{_holding(shared)}")
        loaded = [one for one in self.readings if one.reasons is not None and one.utilisation]
        capped = sum(1 for one in loaded if (one.reasons or 0) & nvml.POWER_CAP)
        if capped > THROTTLED_SHARE * len(loaded):
            found.append(
                f"{self.facts.name} was at its power limit in {capped / len(loaded):.0%} of the readings under load"
            )
        now, most = self.facts.link, self.facts.link_most
        if now and most and now[1] < most[1]:
            found.append(f"{self.facts.name} has {now[1]} of its {most[1]} PCIe lanes")
        if busy := self.busy_neighbours:
            share = f"in {self.neighbour_share:.0%} of the looks there"
            others = "the other GPU" if self.neighbours == 1 else f"{busy} of {self.neighbours} other GPUs"
            found.append(f"{others} worked too, {share}")
        if self.unrecorded:
            found.append(f"no device time: {self.unrecorded}")
        return found

    @property
    def busy_neighbours(self) -> int:
        """The most other GPUs of the host that were busy at once."""
        return max((one.busy_neighbours or 0 for one in self.readings), default=0)

    @property
    def neighbour_share(self) -> float | None:
        """Share of the looks at the other GPUs in which one of them was busy; None without any look."""
        looks = [one.busy_neighbours for one in self.readings if one.busy_neighbours is not None]
        return sum(1 for busy in looks if busy) / len(looks) if looks else None


def _holding(one: GpuReading) -> str:
    if not one.foreign:
        return ""
    size = f", {one.foreign_bytes / 2**20:.0f} MiB" if one.foreign_bytes else ""
    return f" with {one.foreign} process{'' if one.foreign == 1 else 'es'} of others{size}"


class Owners:
    """Tells this project's processes on a GPU from others'.

    A driver may give the host's process ids inside a container: such a process is not to be found here. One that was
    there before the worker is foreign, one that came with it is taken for the worker: the own one is never foreign.
    """

    def __init__(self, before: Reading) -> None:
        self._before = {one.pid for one in before.processes}
        self._known: dict[int, bool] = {}

    def owns(self, pid: int) -> bool:
        """Whether a process is this one, one that it started, or one that came with those and cannot be seen."""
        if pid not in self._known:
            self._known[pid] = self._ask(pid)
        return self._known[pid]

    def _ask(self, pid: int) -> bool:
        try:
            lineage = [pid, *(one.pid for one in psutil.Process(pid).parents())]
        except psutil.NoSuchProcess:
            return pid not in self._before
        except psutil.AccessDenied:
            return False
        return os.getpid() in lineage

    def kept(self, reading: Reading) -> GpuReading:
        """A reading with the processes told apart."""
        own = [one.used_bytes for one in reading.processes if self.owns(one.pid)]
        foreign = [one.used_bytes for one in reading.processes if not self.owns(one.pid)]
        return GpuReading(
            reading.at,
            reading.sm_mhz,
            reading.memory_mhz,
            reading.celsius,
            reading.milliwatts,
            reading.reasons,
            reading.utilisation,
            reading.used_bytes,
            _total(own),
            len(foreign),
            _total(foreign),
        )


def _total(sizes: Sequence[int | None]) -> int | None:
    known = [size for size in sizes if size is not None]
    return sum(known) if known else None


class GpuWatch:
    """Reads a device's GPU from the start of a block to its end, in a thread; `gpu` is None where NVML has none."""

    def __init__(self, device: Device, opened: Callable[[], AbstractContextManager[list[Gpu]]] = nvml.gpus) -> None:
        self._opened = opened
        self._stack = ExitStack()
        self._device = device
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._readings: list[GpuReading] = []
        self._neighbours: list[Gpu] = []
        self._away = threading.Event()
        self.gpu: Gpu | None = None
        self.unrecorded = ""

    def __enter__(self) -> Self:
        there = self._stack.enter_context(self._opened()) if self._device.kind == "gpu" else []
        self.gpu = nvml.matching(self._device, there)
        self._neighbours = [gpu for gpu in there if gpu is not self.gpu]
        if self.gpu is not None:
            before = _at_rest(self.gpu)
            self._owners = Owners(before)
            self._facts, self._before = self.gpu.facts(), self._owners.kept(before)
            self._thread = threading.Thread(target=self._read, args=(self.gpu,), daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        self._stack.close()

    def _read(self, gpu: Gpu) -> None:
        while not self._stop.wait(INTERVAL_SECONDS):
            if self._away.is_set():
                continue
            looked = self._busy_neighbours() if len(self._readings) % NEIGHBOURS_EVERY == 0 else None
            self._readings.append(replace(self._owners.kept(gpu.read()), busy_neighbours=looked))

    def _busy_neighbours(self) -> int | None:
        rates = [rate for gpu in self._neighbours if (rate := gpu.utilisation()) is not None]
        return sum(rate > BUSY for rate in rates) if rates else None

    @contextmanager
    def looking_away(self) -> Iterator[None]:
        """Keep no reading while a block runs: what it does to the GPU, its memory above all, is no part of the case."""
        self._away.set()
        try:
            yield
        finally:
            self._away.clear()

    def conditions(self) -> GpuConditions | None:
        """What was read until now; None without a GPU that NVML shows."""
        if self.gpu is None:
            return None
        return GpuConditions(self._facts, self._before, tuple(self._readings), len(self._neighbours), self.unrecorded)


def _at_rest(gpu: Gpu) -> Reading:
    """A reading without the load of this project's own last worker, which a driver tells of for up to a second more."""
    limit = time.monotonic() + _REST_SECONDS
    while (reading := gpu.read()).utilisation and reading.utilisation > BUSY and time.monotonic() < limit:
        time.sleep(INTERVAL_SECONDS)
    return reading


def utilisation(conditions: GpuConditions, spans: Sequence[tuple[float, float]]) -> float | None:
    """Median share, 0..1, of the time that a kernel ran, over the readings in spans (Unix seconds)."""
    read = [one.utilisation for span in spans for one in conditions.within(*span) if one.utilisation is not None]
    return median(read) / 100 if read else None
