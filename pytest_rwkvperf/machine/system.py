"""The machine's software, which reports show beside figures; it is not part of the hardware's identity."""

from __future__ import annotations

import platform
from dataclasses import dataclass, field

import psutil

from pytest_rwkvperf.machine import nvml


@dataclass(frozen=True, slots=True)
class System:
    """Operating system, this Python, main memory in bytes, and drivers by name."""

    operating_system: str
    python: str
    memory_bytes: int
    drivers: dict[str, str] = field(default_factory=dict)


def read() -> System:
    """The software of this machine."""
    return System(_operating_system(), platform.python_version(), psutil.virtual_memory().total, _drivers())


def _operating_system() -> str:
    """The distribution's own name and the kernel's, where there is a distribution."""
    try:
        name = platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return platform.platform()
    return f"{name}, {platform.system()} {platform.release()} {platform.machine()}"


def _drivers() -> dict[str, str]:
    """NVIDIA's driver and the CUDA version that it supports; empty without it."""
    with nvml.opened() as library:
        driver, cuda = nvml.driver_versions(library) if library else ("", "")
    return {name: value for name, value in (("NVIDIA driver", driver), ("CUDA (driver)", cuda)) if value}
