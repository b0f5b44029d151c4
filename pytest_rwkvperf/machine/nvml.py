"""A GPU's facts and readings, from NVIDIA's management library (NVML).

NVML may not answer a question (old boards, virtual GPUs, containers): the answer is then None. Units are NVML's own:
MHz, milliwatts, millijoules, bytes (nvml.h, "NVML API Reference Guide").
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pytest_rwkvperf.core import clock
from pytest_rwkvperf.core.engine import pci_address

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_rwkvperf.core.engine import Device

THROTTLES = {
    0x0000000000000008: "hardware slowdown",
    0x0000000000000020: "software thermal slowdown",
    0x0000000000000040: "hardware thermal slowdown",
    0x0000000000000080: "power brake",
}
"""nvmlClocksEventReason* that make a GPU slower than it is (nvml.h); idling, set clocks and sync boost do not."""

POWER_CAP = 0x0000000000000004
"""nvmlClocksEventReasonSwPowerCap: how a board that is sold with a power limit works at full load."""


@dataclass(frozen=True, slots=True)
class GpuFacts:
    """What a GPU is. `link` is PCIe generation and width now, `link_most` what it and its slot can do."""

    name: str
    uuid: str
    address: str
    memory_bytes: int | None = None
    driver: str = ""
    cuda: str = ""
    mig: bool | None = None
    ecc: bool | None = None
    persistence: bool | None = None
    power_limit_milliwatts: int | None = None
    sm_mhz_most: int | None = None
    link: tuple[int, int] | None = None
    link_most: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class GpuProcess:
    """A process that holds memory on a GPU; `used_bytes` is None where the driver does not report it."""

    pid: int
    used_bytes: int | None


@dataclass(frozen=True, slots=True)
class GpuReading:
    """One reading at a Unix time `at` (seconds); `utilisation` is the percentage of time that a kernel ran.

    `own_bytes` is the memory of the measured worker, `foreign` how many other processes there are, with
    `foreign_bytes`.
    """

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
    """How many other GPUs of the host were busy; None where they were not read."""


class Gpu:
    """One GPU of an open NVML; `nvml` is the module pynvml, or a recording of it."""

    def __init__(self, nvml: Any, handle: Any) -> None:  # noqa: ANN401 - the binding has no types
        self._nvml = nvml
        self._handle = handle

    def facts(self) -> GpuFacts:
        """The GPU's facts, which do not change while it is measured."""
        nvml, handle = self._nvml, self._handle
        memory, ecc, mig = (self._ask(f"nvmlDeviceGet{what}") for what in ("MemoryInfo", "EccMode", "MigMode"))
        driver, cuda = driver_versions(nvml)
        persistence = self._ask("nvmlDeviceGetPersistenceMode")
        return GpuFacts(
            name=str(nvml.nvmlDeviceGetName(handle)),
            uuid=str(self._ask("nvmlDeviceGetUUID") or ""),
            address=self.address,
            memory_bytes=None if memory is None else int(memory.total),
            driver=driver,
            cuda=cuda,
            mig=None if mig is None else bool(mig[0]),
            ecc=None if ecc is None else bool(ecc[0]),
            persistence=None if persistence is None else bool(persistence),
            power_limit_milliwatts=self._ask("nvmlDeviceGetEnforcedPowerLimit"),
            sm_mhz_most=self._ask("nvmlDeviceGetMaxClockInfo", nvml.NVML_CLOCK_SM),
            link=self._link("Curr"),
            link_most=self._link("Max"),
        )

    @property
    def address(self) -> str:
        """Its PCI address, as `Device.physical` has it."""
        return pci_address(str(self._nvml.nvmlDeviceGetPciInfo(self._handle).busId))

    def read(self) -> GpuReading:
        """A reading that does not say whose memory is whose."""
        memory = self._ask("nvmlDeviceGetMemoryInfo")
        return GpuReading(
            at=clock.time_of_day(),
            sm_mhz=self._ask("nvmlDeviceGetClockInfo", self._nvml.NVML_CLOCK_SM),
            memory_mhz=self._ask("nvmlDeviceGetClockInfo", self._nvml.NVML_CLOCK_MEM),
            celsius=self._ask("nvmlDeviceGetTemperature", self._nvml.NVML_TEMPERATURE_GPU),
            milliwatts=self._ask("nvmlDeviceGetPowerUsage"),
            reasons=self._ask("nvmlDeviceGetCurrentClocksThrottleReasons"),
            utilisation=self.utilisation(),
            used_bytes=None if memory is None else int(memory.used),
        )

    def utilisation(self) -> int | None:
        """Percentage of the time that a kernel ran, over the last sixth of a second to a second."""
        rates = self._ask("nvmlDeviceGetUtilizationRates")
        return None if rates is None else int(rates.gpu)

    def millijoules(self) -> int | None:
        """Energy since the driver was loaded; an H200 updates the counter about ten times a second."""
        energy: int | None = self._ask("nvmlDeviceGetTotalEnergyConsumption")
        return energy

    def processes(self) -> tuple[GpuProcess, ...]:
        """Processes of both kinds on it: NVML lists a Vulkan process that only computes among the graphics ones too."""
        listed = [
            *(self._ask("nvmlDeviceGetComputeRunningProcesses") or ()),
            *(self._ask("nvmlDeviceGetGraphicsRunningProcesses") or ()),
        ]
        by_pid = {process.pid: GpuProcess(int(process.pid), process.usedGpuMemory) for process in listed}
        return tuple(by_pid[pid] for pid in sorted(by_pid))

    def _link(self, which: str) -> tuple[int, int] | None:
        parts = [self._ask(f"nvmlDeviceGet{which}PcieLink{part}") for part in ("Generation", "Width")]
        return None if None in parts else (int(parts[0]), int(parts[1]))

    def _ask(self, function: str, *arguments: object) -> Any:  # noqa: ANN401 - as NVML answers
        return answered(self._nvml, getattr(self._nvml, function), self._handle, *arguments)


def answered(nvml: Any, function: Callable[..., Any], *arguments: object) -> Any:  # noqa: ANN401 - as NVML answers
    """What a function of NVML returns; None where it raises: no such GPU, mode or figure."""
    try:
        return function(*arguments)
    except nvml.NVMLError:
        return None


def driver_versions(nvml: Any) -> tuple[str, str]:  # noqa: ANN401 - the binding has no types
    """The driver's version and the CUDA version that it supports; empty where it reports none."""
    driver = answered(nvml, nvml.nvmlSystemGetDriverVersion)
    cuda = answered(nvml, nvml.nvmlSystemGetCudaDriverVersion)  # 1000 · major + 10 · minor
    return str(driver or ""), "" if cuda is None else f"{cuda // 1000}.{cuda % 1000 // 10}"


@contextmanager
def gpus() -> Iterator[list[Gpu]]:
    """Every GPU that NVML lists, in its order; none without a driver."""
    import pynvml

    with handles() as listed:
        yield [Gpu(pynvml, handle) for handle in listed]


@contextmanager
def handles() -> Iterator[list[Any]]:
    """Handles of the GPUs that answer, while NVML is open: the driver still counts one that has fallen off its bus."""
    with opened() as nvml:
        count = range(nvml.nvmlDeviceGetCount()) if nvml else ()
        listed = [answered(nvml, nvml.nvmlDeviceGetHandleByIndex, index) for index in count]
        yield [handle for handle in listed if handle is not None]


@contextmanager
def opened() -> Iterator[Any]:
    """The open NVML, by its binding; None without a driver."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        yield None
        return
    try:
        yield pynvml
    finally:
        pynvml.nvmlShutdown()


def matching(device: Device, gpus: list[Gpu]) -> Gpu | None:
    """The GPU that a device is: by its PCI address, or by its name where only one GPU has it."""
    if device.kind != "gpu":
        return None
    if device.physical:
        return next((gpu for gpu in gpus if gpu.address == device.physical), None)
    named = [gpu for gpu in gpus if gpu.facts().name == device.name]
    return named[0] if len(named) == 1 else None
