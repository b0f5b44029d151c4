"""A recording played back in pynvml's place: the same functions, answers that a real driver gave."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

RECORDINGS = Path(__file__).parent / "recordings"


class NVMLError(Exception):
    """pynvml's."""


class Recorded:
    """`moments` are played one per reading and the last one stays; `lacking` names functions that are not supported."""

    NVMLError = NVMLError
    NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_TEMPERATURE_GPU = 1, 2, 0

    def __init__(self, *moments: dict[str, Any], lacking: tuple[str, ...] = ()) -> None:
        self.static = recording()["static"]
        self._link = recording()["pcie"]
        self.moments = list(moments)
        self._lacking = lacking

    def __getattribute__(self, name: str) -> Any:  # noqa: ANN401 - plays any function
        if name.startswith("nvml") and name in super().__getattribute__("_lacking"):
            return self._refuse
        return super().__getattribute__(name)

    def _refuse(self, *_: object) -> None:
        raise NVMLError("Not Supported")

    @property
    def _now(self) -> dict[str, Any]:
        return self.moments[0]

    def nvmlSystemGetDriverVersion(self) -> str:
        return str(self.static["driver"])

    def nvmlSystemGetCudaDriverVersion(self) -> int:
        return int(self.static["cuda"])

    def nvmlDeviceGetName(self, _handle: object) -> str:
        return str(self.static["Name"])

    def nvmlDeviceGetUUID(self, _handle: object) -> str:
        return str(self.static["UUID"])

    def nvmlDeviceGetPciInfo(self, _handle: object) -> SimpleNamespace:
        return SimpleNamespace(**self.static["PciInfo"])

    def nvmlDeviceGetPersistenceMode(self, _handle: object) -> int:
        return int(self.static["PersistenceMode"])

    def nvmlDeviceGetEccMode(self, _handle: object) -> list[int]:
        return [int(one) for one in self.static["EccMode"]]

    def nvmlDeviceGetMigMode(self, _handle: object) -> list[int]:
        return [int(one) for one in self.static["MigMode"]]

    def nvmlDeviceGetEnforcedPowerLimit(self, _handle: object) -> int:
        return int(self.static["EnforcedPowerLimit"])

    def nvmlDeviceGetMaxClockInfo(self, _handle: object, _clock: int) -> int:
        return int(self.static["max_clock_sm"])

    def nvmlDeviceGetMaxPcieLinkGeneration(self, _handle: object) -> int:
        return int(self.static["MaxPcieLinkGeneration"])

    def nvmlDeviceGetMaxPcieLinkWidth(self, _handle: object) -> int:
        return int(self.static["MaxPcieLinkWidth"])

    def nvmlDeviceGetCurrPcieLinkGeneration(self, _handle: object) -> int:
        return int(self._link[0])

    def nvmlDeviceGetCurrPcieLinkWidth(self, _handle: object) -> int:
        return int(self._link[1])

    def nvmlDeviceGetMemoryInfo(self, _handle: object) -> SimpleNamespace:
        return SimpleNamespace(total=self.static["MemoryInfo"]["total"], used=self._now["used"])

    def nvmlDeviceGetUtilizationRates(self, _handle: object) -> SimpleNamespace:
        return SimpleNamespace(gpu=self._now["gpu_utilisation"])

    def nvmlDeviceGetClockInfo(self, _handle: object, clock: int) -> int:
        return int(self._now["sm" if clock == self.NVML_CLOCK_SM else "memory_clock"])

    def nvmlDeviceGetTemperature(self, _handle: object, _sensor: int) -> int:
        return int(self._now["temperature"])

    def nvmlDeviceGetPowerUsage(self, _handle: object) -> int:
        return int(self._now["power"])

    def nvmlDeviceGetTotalEnergyConsumption(self, _handle: object) -> int:
        return int(self._now["energy"])

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, _handle: object) -> int:
        return int(self._now["reasons"])

    def nvmlDeviceGetComputeRunningProcesses(self, _handle: object) -> list[SimpleNamespace]:
        return [SimpleNamespace(**one) for one in self._now["compute"]]

    def nvmlDeviceGetGraphicsRunningProcesses(self, _handle: object) -> list[SimpleNamespace]:
        """The last question of a reading: the next moment follows."""
        found = [SimpleNamespace(**one) for one in self._now["graphics"]]
        if len(self.moments) > 1:
            self.moments.pop(0)
        return found


def recording() -> dict[str, Any]:
    """Readings of an H200: `idle`, `llama` under load, `loaded_idle` with the model in memory, `vulkan` under load."""
    found: dict[str, Any] = json.loads((RECORDINGS / "h200.json").read_text(encoding="utf-8"))
    return found
