"""What is made of NVML's answers, played back from an H200's, and of answers that other machines give."""

from __future__ import annotations

import os
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from pytest_rwkvperf.core.engine import Device
from pytest_rwkvperf.machine import nvml, watching
from pytest_rwkvperf.machine.nvml import Gpu, GpuProcess, GpuReading
from pytest_rwkvperf.machine.watching import GpuConditions, GpuWatch, Owners
from tests.unit.machine.recorded import Recorded, recording

if TYPE_CHECKING:
    from collections.abc import Iterator

TAPE = recording()
IDLE, LLAMA, VULKAN = TAPE["idle"], TAPE["llama"], TAPE["vulkan"]
DEVICE = Device("cuda:0", "NVIDIA H200", "gpu", physical="0000:00:06.0")
FACTS = Gpu(Recorded(*IDLE), None).facts()
BEFORE = GpuReading(0.0, utilisation=0, reasons=1, milliwatts=80_000, used_bytes=600 << 20)
BUSY = GpuReading(1.0, sm_mhz=1980, utilisation=97, reasons=0, milliwatts=330_000, used_bytes=7000 << 20)


def conditions(*readings: GpuReading, before: GpuReading = BEFORE) -> GpuConditions:
    return GpuConditions(FACTS, before, readings)


def test_what_an_h200_is() -> None:
    assert (FACTS.name, FACTS.address, FACTS.driver, FACTS.cuda) == (
        "NVIDIA H200",
        "0000:00:06.0",
        "580.159.04",
        "13.0",
    )
    assert (FACTS.mig, FACTS.ecc, FACTS.persistence) == (False, True, True)
    assert (FACTS.power_limit_milliwatts, FACTS.sm_mhz_most) == (700_000, 1980)
    assert FACTS.link == FACTS.link_most == (5, 16)


def test_an_idle_and_a_loaded_reading_of_an_h200() -> None:
    idle, loaded = Gpu(Recorded(IDLE[0]), None).read(), Gpu(Recorded(LLAMA[-1]), None).read()
    assert (idle.sm_mhz, idle.reasons, idle.utilisation) == (345, 1, 0)
    assert Gpu(Recorded(IDLE[0]), None).processes() == ()
    assert loaded.sm_mhz == 1980
    assert loaded.utilisation is not None
    assert loaded.utilisation > 90
    assert Gpu(Recorded(LLAMA[-1]), None).processes() == (GpuProcess(9891, 6442450944),)


def test_a_vulkan_process_in_both_lists_is_one() -> None:
    assert [process.pid for process in Gpu(Recorded(VULKAN[0]), None).processes()] == [10099]


LACKING = (
    "nvmlDeviceGetEccMode", "nvmlDeviceGetMigMode", "nvmlDeviceGetPersistenceMode", "nvmlDeviceGetEnforcedPowerLimit",
    "nvmlDeviceGetPowerUsage", "nvmlDeviceGetTotalEnergyConsumption", "nvmlDeviceGetCurrentClocksThrottleReasons",
    "nvmlDeviceGetComputeRunningProcesses", "nvmlDeviceGetUtilizationRates",
    "nvmlDeviceGetCurrPcieLinkWidth", "nvmlDeviceGetTemperature", "nvmlDeviceGetClockInfo",
)  # fmt: skip


def test_a_board_that_answers_little_gives_none_and_no_doubt() -> None:
    gpu = Gpu(Recorded(IDLE[0], lacking=LACKING), None)
    facts, reading = gpu.facts(), gpu.read()
    assert (facts.ecc, facts.mig, facts.link, facts.power_limit_milliwatts) == (None, None, None, None)
    assert (reading.sm_mhz, reading.reasons, reading.utilisation, gpu.processes()) == (None, None, None, ())
    assert gpu.millijoules() is None
    assert GpuConditions(facts, reading, (reading,)).notes() == []


@pytest.mark.parametrize(("bit", "name"), nvml.THROTTLES.items())
def test_a_throttled_gpu_carries_no_verdict(bit: int, name: str) -> None:
    slowed = replace(BUSY, reasons=bit)
    found = conditions(*[BUSY] * 18, slowed, slowed)
    assert found.doubt() == f"NVIDIA H200 was throttled ({name}) in 10% of the readings under load"
    assert conditions(*[BUSY] * 39, slowed).doubt() == "", "a moment is no doubt"
    assert conditions(*[BUSY] * 9, replace(slowed, utilisation=0)).doubt() == "", "what happens between samples is none"


def test_idle_clocks_and_a_power_limit_are_no_throttling() -> None:
    found = conditions(replace(BUSY, reasons=0x1), replace(BUSY, reasons=nvml.POWER_CAP), replace(BUSY, reasons=0x2))
    assert found.doubt() == ""
    assert found.notes() == ["NVIDIA H200 was at its power limit in 33% of the readings under load"]


def test_a_gpu_that_others_compute_on_carries_no_verdict() -> None:
    before = replace(BEFORE, utilisation=60, foreign=1, foreign_bytes=3 << 30)
    found = conditions(BUSY, before=before)
    assert found.doubt() == (
        "NVIDIA H200 was busy at 60 % before this project's worker started with 1 process of others, 3072 MiB"
    )
    assert found.notes()[1] == "NVIDIA H200 was shared with 1 process of others, 3072 MiB"


def test_an_idle_foreign_process_is_only_a_note() -> None:
    found = conditions(replace(BUSY, foreign=2))
    assert found.doubt() == ""
    assert found.notes() == ["NVIDIA H200 was shared with 2 processes of others"]


def test_fewer_pcie_lanes_are_a_note() -> None:
    facts = replace(FACTS, link=(5, 4))
    assert GpuConditions(facts, BEFORE).notes() == ["NVIDIA H200 has 4 of its 16 PCIe lanes"]


def test_busy_neighbours_are_only_a_note() -> None:
    looks = [replace(BUSY, busy_neighbours=count) for count in (0, 1, 2, None)]
    found = GpuConditions(FACTS, BEFORE, tuple(looks), neighbours=3)
    assert found.notes() == ["2 of 3 other GPUs worked too, in 67% of the readings there"]
    assert found.doubt() == ""
    alone = GpuConditions(FACTS, BEFORE, (replace(BUSY, busy_neighbours=0), BUSY), neighbours=1)
    assert (alone.notes(), alone.neighbour_share) == ([], 0.0)
    assert conditions(BUSY).neighbour_share is None


def test_what_kept_the_device_time_from_being_recorded_is_said() -> None:
    found = GpuConditions(FACTS, BEFORE, (BUSY,), unrecorded="CUPTI refused")
    assert (found.notes(), found.doubt()) == (["no device time: CUPTI refused"], "")


def test_peak_memory_by_the_drivers_account_or_by_used_memory() -> None:
    assert conditions(replace(BUSY, own_bytes=5 << 30), replace(BUSY, own_bytes=6 << 30)).peak_bytes == 6 << 30
    assert conditions(BUSY).peak_bytes == 6400 << 20
    assert conditions(replace(BUSY, foreign=1)).peak_bytes is None
    assert conditions(BUSY).idle_watts == 80.0


def test_this_process_and_its_children_are_its_own() -> None:
    owners = Owners(())
    parent = psutil.Process().ppid()
    assert owners.owns(os.getpid())
    assert not owners.owns(parent)


def test_a_hidden_process_that_came_with_the_worker_is_the_worker() -> None:
    hidden = 2**22 + 17  # beyond any process id of Linux, as a host's is in a container
    processes = (GpuProcess(hidden, 1 << 30),)
    assert Owners(()).divide(BUSY, processes).own_bytes == 1 << 30
    foreign = Owners(processes).divide(BUSY, processes)
    assert (foreign.own_bytes, foreign.foreign, foreign.foreign_bytes) == (None, 1, 1 << 30)


def test_utilisation_counts_readings_beside_the_samples_alone() -> None:
    found = conditions(BUSY, replace(BUSY, at=2.0, utilisation=0), replace(BUSY, at=9.0, utilisation=11))
    assert found.utilisation([(0.9, 1.1), (8.0, 10.0)]) == 0.54
    assert found.utilisation([(3.0, 4.0)]) is None


def test_a_device_is_matched_by_address_and_by_a_name_that_is_alone() -> None:
    gpu = Gpu(Recorded(*IDLE), None)
    assert nvml.matching(DEVICE, [gpu]) is gpu
    assert nvml.matching(replace(DEVICE, physical="0000:0a:00.0"), [gpu]) is None
    assert nvml.matching(replace(DEVICE, physical=""), [gpu]) is gpu
    assert nvml.matching(replace(DEVICE, physical=""), [gpu, gpu]) is None
    assert nvml.matching(Device("cpu", "NVIDIA H200", "cpu"), [gpu]) is None


class Beside(Recorded):
    """The same board at another address."""

    def nvmlDeviceGetPciInfo(self, _handle: object) -> SimpleNamespace:  # noqa: N802 - NVML's name
        return SimpleNamespace(busId="00000000:00:07.0")


@contextmanager
def two_boards() -> Iterator[list[Gpu]]:
    yield [Gpu(Recorded(*IDLE), None), Gpu(Beside(LLAMA[-1]), None)]


def test_other_gpus_are_read_every_fifth_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "INTERVAL_SECONDS", 0.001)
    with GpuWatch(DEVICE, two_boards) as watch:
        limit = time.monotonic() + 60
        while (taken := watch.conditions()) is None or len(taken.readings) <= watching.NEIGHBOURS_EVERY:
            assert time.monotonic() < limit
    looks = [one.busy_neighbours for one in taken.readings[: watching.NEIGHBOURS_EVERY + 1]]
    assert looks == [1, None, None, None, None, 1]
    assert taken.notes() == ["the other GPU worked too, in 100% of the readings there"]


@contextmanager
def library(*moments: dict[str, Any]) -> Iterator[list[Gpu]]:
    yield [Gpu(Recorded(*moments), None)]


def test_a_watch_keeps_what_it_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "INTERVAL_SECONDS", 0.001)
    with GpuWatch(DEVICE, lambda: library(*IDLE[:1], *LLAMA)) as watch:
        limit = time.monotonic() + 60
        while (taken := watch.conditions()) is None or len(taken.readings) < len(LLAMA):
            assert time.monotonic() < limit
    assert taken.before.sm_mhz == 345
    assert taken.peak_bytes == 6442450944, "pid 9891 is not this machine's: it came with the worker"
    assert taken.doubt() == ""
    assert taken.idle_watts == 80.255


class Asked(threading.Event):
    """Whether the watch is paused, and how often its thread has asked that."""

    def __init__(self) -> None:
        super().__init__()
        self._count = 0

    def is_set(self) -> bool:
        self._count += 1
        return super().is_set()

    def times(self, more: int) -> None:
        """Wait until it has been asked so often."""
        wanted, limit = self._count + more, time.monotonic() + 60
        while self._count < wanted:
            assert time.monotonic() < limit
            time.sleep(0.001)


def test_a_paused_watch_keeps_nothing_and_goes_on_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "INTERVAL_SECONDS", 0.001)

    def count(watch: GpuWatch) -> int:
        taken = watch.conditions()
        assert taken is not None
        return len(taken.readings)

    asked = Asked()
    with GpuWatch(DEVICE, lambda: library(*IDLE[:1])) as watch:
        watch._paused = asked
        with watch.paused():
            asked.times(2)  # by then a reading that had begun is there
            before = count(watch)
            asked.times(20)
            assert count(watch) == before
        limit = time.monotonic() + 60
        while count(watch) == before:
            assert time.monotonic() < limit


def test_the_last_workers_load_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "INTERVAL_SECONDS", 0.001)
    with GpuWatch(DEVICE, lambda: library(LLAMA[-1], LLAMA[-1], IDLE[0])) as watch:
        found = watch.conditions()
    assert found is not None
    assert found.before.utilisation == 0


def _asked() -> Any:  # noqa: ANN401 - never returns
    pytest.fail("a CPU has nothing to ask NVML for")


def test_a_cpu_asks_no_library() -> None:
    with GpuWatch(Device("cpu", "CPU", "cpu"), _asked) as watch:
        assert watch.conditions() is None
