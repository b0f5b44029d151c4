"""The hardware's identity, which a baseline belongs to: no clock rate, no software version, nothing that varies."""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import re
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from pytest_rwkvperf.machine import nvml
from pytest_rwkvperf.machine.conditions import quota_cpus

_CPUINFO = Path("/proc/cpuinfo")


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """The processor's own name, the cores that this process may use, and NVIDIA GPUs by name and memory (GiB)."""

    system: str
    architecture: str
    cpu: str
    cpu_model: str
    cores: int
    physical_cores: int
    gpus: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """File name of the baseline: readable words, and a hash of all fields so that no two machines share one."""
        digest = hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:8]
        words = [self.cpu, f"{self.cores}-cores", *self.gpus[:1], self.system, digest]
        return "-".join(re.sub(r"[^a-z0-9]+", "-", word.lower()).strip("-") for word in words)

    def differences(self, other: Fingerprint) -> dict[str, tuple[object, object]]:
        """Fields that differ: name to (here, there)."""
        mine, theirs = asdict(self), asdict(other)
        return {name: (mine[name], theirs[name]) for name in mine if mine[name] != theirs[name]}


def read() -> Fingerprint:
    """The fingerprint of this machine. A container with another cpuset counts as another machine."""
    name, model = _processor()
    return Fingerprint(platform.system(), platform.machine(), name, model, cores(), physical_cores(), nvidia_gpus())


def cores() -> int:
    """Logical cores that this process may run on, or its control group's quota, rounded up, where that is less."""
    logical = len(os.sched_getaffinity(0)) if sys.platform == "linux" else psutil.cpu_count() or 1
    quota = quota_cpus() if sys.platform == "linux" else None
    return logical if quota is None else min(logical, max(1, math.ceil(quota)))


def physical_cores() -> int:
    """Physical cores that this process may run on."""
    return min(psutil.cpu_count(logical=False) or cores(), cores())


def _processor() -> tuple[str, str]:
    """The processor's own name without its rated clock, and its family and model numbers.

    Through py-cpuinfo. The numbers distinguish generations where a hypervisor shortens the name to `AMD EPYC`.
    """
    import cpuinfo

    info = cpuinfo.get_cpu_info()
    name = str(info.get("brand_raw") or platform.processor() or "unknown processor")
    numbers = " ".join(f"{word} {info[word]}" for word in ("family", "model", "stepping") if word in info)
    return re.sub(r"\s*@\s*[\d.]+\s*[GM]Hz", "", name).strip(), numbers or _other_numbers()


def _other_numbers() -> str:
    """For processors without a family number: ARM's implementer and part of each kind of core, or IBM's machine.

    On ARM the kernel gives no name, and tools derive names that change with their releases.
    """
    try:
        text = _CPUINFO.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
    makers, parts = (re.findall(rf"^CPU {word}\s*: (\w+)", text, re.MULTILINE) for word in ("implementer", "part"))
    kinds = sorted({f"implementer {maker} part {part}" for maker, part in zip(makers, parts, strict=False)})
    machines = sorted(set(re.findall(r"\bmachine = (\w+)", text)))
    return ", ".join([*kinds, *(f"machine {machine}" for machine in machines)])


def nvidia_gpus() -> tuple[str, ...]:
    """Name and memory of each NVIDIA GPU that answers, in NVML's order; empty without a driver."""
    with nvml.handles() as handles:
        return tuple(map(_gpu, handles))


def _gpu(handle: object) -> str:
    """A divided GPU (MIG) is named with its parts, because a process on a part has a fraction of the GPU."""
    import pynvml

    name = f"{pynvml.nvmlDeviceGetName(handle)} {_memory(handle)}".strip()
    parts = [_memory(part) for part in _parts(handle)]
    return f"{name} MIG {' + '.join(parts) or 'undivided'}" if _divided(handle) else name


def _memory(handle: object) -> str:
    """A GPU's memory in GiB; empty where the driver reports none, as for one that shares the processor's memory."""
    import pynvml

    memory = nvml.answered(pynvml, pynvml.nvmlDeviceGetMemoryInfo, handle)
    return "" if memory is None else f"{round(int(memory.total) / 2**30)} GiB"


def _divided(handle: object) -> bool:
    """Whether the GPU is in MIG mode; False where it has no such mode."""
    import pynvml

    mode = nvml.answered(pynvml, pynvml.nvmlDeviceGetMigMode, handle)
    return mode is not None and bool(mode[0])


def _parts(handle: object) -> list[object]:
    """The MIG instances of a divided GPU."""
    import pynvml

    if not _divided(handle):
        return []
    most = range(pynvml.nvmlDeviceGetMaxMigDeviceCount(handle))
    found = [nvml.answered(pynvml, pynvml.nvmlDeviceGetMigDeviceHandleByIndex, handle, index) for index in most]
    return [part for part in found if part is not None]
