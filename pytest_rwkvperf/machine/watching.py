"""A GPU watched while a case is measured on it: readings during the samples, and what they mean for the figures."""

from __future__ import annotations

import os
import threading
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from statistics import median
from typing import TYPE_CHECKING

import psutil

from pytest_rwkvperf.core import clock
from pytest_rwkvperf.machine import nvml
from pytest_rwkvperf.machine.nvml import GpuFacts, GpuReading

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager
    from types import TracebackType

    from typing_extensions import Self

    from pytest_rwkvperf.core.engine import Device
    from pytest_rwkvperf.machine.nvml import Gpu, GpuProcess

INTERVAL_SECONDS = 0.2
"""Pause between two readings; a reading takes 3 to 13 ms on an H200."""

BUSY = 5
"""Percent of utilisation beyond which another process computes on a GPU: before this project's worker started, or on
the host's other GPUs."""

NEIGHBOURS_EVERY = 5
"""The host's other GPUs are read with every fifth reading only, because they share the driver."""

_REST_SECONDS = 3.0

THROTTLED_SHARE = 0.05
"""Share of the readings under load with a throttle reason beyond which no verdict rests on the samples."""


@dataclass(frozen=True, slots=True)
class GpuConditions:
    """A GPU before and while a case was measured on it; `before` was read before this case's first worker started."""

    facts: GpuFacts
    before: GpuReading
    readings: tuple[GpuReading, ...] = ()
    neighbours: int = 0
    """How many other GPUs of the host the driver lists."""
    unrecorded: str = ""
    """Why CUPTI recorded no device time; empty where it did, or was not asked to."""

    @property
    def peak_bytes(self) -> int | None:
        """The worker's largest memory on the device: by the driver's account, else the increase in used memory.

        None where other processes use the GPU too and the driver does not report whose memory is whose.
        """
        if own := [reading.own_bytes for reading in self.readings if reading.own_bytes is not None]:
            return max(own)
        if any(reading.foreign for reading in (self.before, *self.readings)) or self.before.used_bytes is None:
            return None
        used = [reading.used_bytes for reading in self.readings if reading.used_bytes is not None]
        return max(0, max(used) - self.before.used_bytes) if used else None

    @property
    def idle_watts(self) -> float | None:
        """The lowest power of any reading."""
        power = [reading.milliwatts for reading in (self.before, *self.readings) if reading.milliwatts is not None]
        return min(power) / 1000 if power else None

    def utilisation(self, spans: Sequence[tuple[float, float]]) -> float | None:
        """Median share, 0..1, of the time that a kernel ran, over the readings in spans of Unix times (seconds)."""
        readings = [reading for reading in self.readings if any(start <= reading.at <= stop for start, stop in spans)]
        rates = [rate for reading in readings if (rate := reading.utilisation) is not None]
        return median(rates) / 100 if rates else None

    def doubt(self) -> str:
        """Why no verdict may rest on what was measured; empty when one may."""
        loaded = self._reasons_under_load()
        throttled = [reasons for reasons in loaded if reasons & sum(nvml.THROTTLES)]
        if len(throttled) > THROTTLED_SHARE * len(loaded):
            names = {name for bit, name in nvml.THROTTLES.items() if any(reasons & bit for reasons in throttled)}
            share = f"{len(throttled) / len(loaded):.0%} of the readings under load"
            return f"{self.facts.name} was throttled ({', '.join(sorted(names))}) in {share}"
        if (self.before.utilisation or 0) > BUSY:
            return (
                f"{self.facts.name} was busy at {self.before.utilisation} % before this project's worker started"
                f"{_holding(self.before)}"
            )
        return ""

    def notes(self) -> list[str]:
        """What the reader of the figures should know, doubts first."""
        notes = [doubt] if (doubt := self.doubt()) else []
        shared = max((self.before, *self.readings), key=lambda reading: reading.foreign)
        if shared.foreign:
            notes.append(f"{self.facts.name} was shared{_holding(shared)}")
        loaded = self._reasons_under_load()
        capped = sum(1 for reasons in loaded if reasons & nvml.POWER_CAP)
        if capped > THROTTLED_SHARE * len(loaded):
            notes.append(
                f"{self.facts.name} was at its power limit in {capped / len(loaded):.0%} of the readings under load"
            )
        now, most = self.facts.link, self.facts.link_most
        if now and most and now[1] < most[1]:
            notes.append(f"{self.facts.name} has {now[1]} of its {most[1]} PCIe lanes")
        if busy := self.busy_neighbours:
            share = f"in {self.neighbour_share:.0%} of the readings there"
            others = "the other GPU" if self.neighbours == 1 else f"{busy} of {self.neighbours} other GPUs"
            notes.append(f"{others} worked too, {share}")
        if self.unrecorded:
            notes.append(f"no device time: {self.unrecorded}")
        return notes

    def _reasons_under_load(self) -> list[int]:
        """NVML's reasons for a lower clock, of the readings under load."""
        return [reading.reasons for reading in self.readings if reading.reasons is not None and reading.utilisation]

    @property
    def busy_neighbours(self) -> int:
        """The most other GPUs of the host that were busy at once."""
        return max((reading.busy_neighbours or 0 for reading in self.readings), default=0)

    @property
    def neighbour_share(self) -> float | None:
        """Share of the readings of the other GPUs in which one of them was busy; None where they were not read."""
        counts = [reading.busy_neighbours for reading in self.readings if reading.busy_neighbours is not None]
        return sum(1 for count in counts if count) / len(counts) if counts else None


def _holding(reading: GpuReading) -> str:
    if not reading.foreign:
        return ""
    size = f", {reading.foreign_bytes / 2**20:.0f} MiB" if reading.foreign_bytes else ""
    return f" with {reading.foreign} process{'' if reading.foreign == 1 else 'es'} of others{size}"


class Owners:
    """Distinguishes this project's processes on a GPU from others'.

    Inside a container a driver may give the host's process ids, which do not exist here. Such a process is foreign if
    it was on the GPU before the worker, and otherwise taken for the worker.
    """

    def __init__(self, before: Sequence[GpuProcess]) -> None:
        self._before = {process.pid for process in before}
        self._known: dict[int, bool] = {}

    def owns(self, pid: int) -> bool:
        """Whether a process is this one, a descendant, or one that came with the worker and does not exist here."""
        if pid not in self._known:
            self._known[pid] = self._ask(pid)
        return self._known[pid]

    def _ask(self, pid: int) -> bool:
        try:
            lineage = [pid, *(process.pid for process in psutil.Process(pid).parents())]
        except psutil.NoSuchProcess:
            return pid not in self._before
        except psutil.AccessDenied:
            return False
        return os.getpid() in lineage

    def divide(self, reading: GpuReading, processes: Sequence[GpuProcess]) -> GpuReading:
        """The reading with the memory of own and foreign processes apart."""
        own = [process.used_bytes for process in processes if self.owns(process.pid)]
        foreign = [process.used_bytes for process in processes if not self.owns(process.pid)]
        return replace(reading, own_bytes=_total(own), foreign=len(foreign), foreign_bytes=_total(foreign))


def _total(sizes: Sequence[int | None]) -> int | None:
    known = [size for size in sizes if size is not None]
    return sum(known) if known else None


class GpuWatch:
    """Reads a device's GPU in a thread while a `with` block runs; `gpu` is None where NVML lists none."""

    def __init__(self, device: Device, opened: Callable[[], AbstractContextManager[list[Gpu]]] = nvml.gpus) -> None:
        self._opened = opened
        self._stack = ExitStack()
        self._device = device
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._readings: list[GpuReading] = []
        self._neighbours: list[Gpu] = []
        self._paused = threading.Event()
        self.gpu: Gpu | None = None
        self.unrecorded = ""

    def __enter__(self) -> Self:
        listed = self._stack.enter_context(self._opened()) if self._device.kind == "gpu" else []
        self.gpu = nvml.matching(self._device, listed)
        self._neighbours = [gpu for gpu in listed if gpu is not self.gpu]
        if self.gpu is not None:
            before, processes = _at_rest(self.gpu)
            self._owners = Owners(processes)
            self._facts, self._before = self.gpu.facts(), self._owners.divide(before, processes)
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
            if self._paused.is_set():
                continue
            busy = self._busy_neighbours() if len(self._readings) % NEIGHBOURS_EVERY == 0 else None
            reading = self._owners.divide(gpu.read(), gpu.processes())
            self._readings.append(replace(reading, busy_neighbours=busy))

    def _busy_neighbours(self) -> int | None:
        rates = [rate for gpu in self._neighbours if (rate := gpu.utilisation()) is not None]
        return sum(rate > BUSY for rate in rates) if rates else None

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Keep no reading while a block runs: its use of the GPU, above all of memory, is not the case's."""
        self._paused.set()
        try:
            yield
        finally:
            self._paused.clear()

    def own_bytes(self) -> int | None:
        """The worker's memory on the GPU now; None where the driver does not report it, 0 without a GPU."""
        if self._device.kind != "gpu":
            return 0
        if self.gpu is None:
            return None
        now = self._owners.divide(self.gpu.read(), self.gpu.processes())
        return GpuConditions(self._facts, self._before, (now,)).peak_bytes

    def conditions(self) -> GpuConditions | None:
        """What was read until now; None without a GPU that NVML lists."""
        if self.gpu is None:
            return None
        return GpuConditions(self._facts, self._before, tuple(self._readings), len(self._neighbours), self.unrecorded)


def _at_rest(gpu: Gpu) -> tuple[GpuReading, tuple[GpuProcess, ...]]:
    """A reading and the GPU's processes, without the load of the last worker: drivers report it for a second more."""
    limit = clock.monotonic() + _REST_SECONDS
    while True:
        reading, processes = gpu.read(), gpu.processes()
        if (reading.utilisation or 0) <= BUSY or clock.monotonic() >= limit:
            return reading, processes
        time.sleep(INTERVAL_SECONDS)
