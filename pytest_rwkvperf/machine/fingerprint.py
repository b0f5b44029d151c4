"""The hardware's identity: what a baseline belongs to. No clock rate, no software version, nothing that jitters."""

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
    """Processor model as it names itself, cores this process may use, and NVIDIA GPUs by name and memory (GiB)."""

    system: str
    architecture: str
    cpu: str
    cpu_model: str
    cores: int
    physical_cores: int
    gpus: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """File name of the baseline: readable, and a hash of every field so that two machines never share one."""
        digest = hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:8]
        words = [self.cpu, f"{self.cores}-cores", *self.gpus[:1], self.system, digest]
        return "-".join(re.sub(r"[^a-z0-9]+", "-", word.lower()).strip("-") for word in words)

    def differences(self, other: Fingerprint) -> dict[str, tuple[object, object]]:
        """Fields that differ: name to (here, there)."""
        mine, theirs = asdict(self), asdict(other)
        return {name: (mine[name], theirs[name]) for name in mine if mine[name] != theirs[name]}


def read() -> Fingerprint:
    """This machine. Cores are those the process may run on, so a container's cpuset counts as another machine."""
    name, model = _processor()
    return Fingerprint(platform.system(), platform.machine(), name, model, cores(), physical_cores(), nvidia_gpus())


def cores() -> int:
    """Logical cores that this process may run on, or as many as its control group's quota gives it the time of.

    So a virtual machine is the cores it sees, and a container its cpuset, or its quota rounded up.
    """
    there = len(os.sched_getaffinity(0)) if sys.platform == "linux" else psutil.cpu_count() or 1
    quota = quota_cpus() if sys.platform == "linux" else None
    return there if quota is None else min(there, max(1, math.ceil(quota)))


def physical_cores() -> int:
    """Physical cores that this process may run on."""
    return min(psutil.cpu_count(logical=False) or cores(), cores())


def _processor() -> tuple[str, str]:
    """The processor's own name without its rated clock, and its family and model numbers.

    Through py-cpuinfo. The numbers tell generations apart where a hypervisor shortens the name to `AMD EPYC`.
    """
    import cpuinfo

    info = cpuinfo.get_cpu_info()
    name = str(info.get("brand_raw") or platform.processor() or "unknown processor")
    numbers = " ".join(f"{word} {info[word]}" for word in ("family", "model", "stepping") if word in info)
    return re.sub(r"\s*@\s*[\d.]+\s*[GM]Hz", "", name).strip(), numbers or _other_numbers()


def _other_numbers() -> str:
    """What tells processors apart that have no family: ARM's implementer and part, of each kind of core; IBM's machine.

    On ARM the kernel gives no name, and what tools make of the numbers differs from one release to the next.
    """
    try:
        text = _CPUINFO.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
    makers, parts = (re.findall(rf"^CPU {word}\s*: (\w+)", text, re.MULTILINE) for word in ("implementer", "part"))
    kinds = sorted({f"implementer {maker} part {part}" for maker, part in zip(makers, parts, strict=False)})
    machines = sorted(set(re.findall(r"\bmachine = (\w+)", text)))
    return ", ".join([*kinds, *(f"machine {one}" for one in machines)])


def nvidia_gpus() -> tuple[str, ...]:
    """Name and memory of each NVIDIA GPU that answers, in NVML's order; empty without a driver."""
    with nvml.handles() as found:
        return tuple(map(_gpu, found))


def _gpu(handle: object) -> str:
    """One that is divided (MIG) is named with its parts: what runs on a part sees a fraction of the GPU."""
    import pynvml

    name = f"{pynvml.nvmlDeviceGetName(handle)} {_memory(handle)}".strip()
    parts = [_memory(part) for part in _parts(handle)]
    return f"{name} MIG {' + '.join(parts) or 'undivided'}" if _divided(handle) else name


def _memory(handle: object) -> str:
    """In GiB; empty where the driver tells none, as of a GPU that shares the processor's."""
    import pynvml

    memory = nvml.answered(pynvml, pynvml.nvmlDeviceGetMemoryInfo, handle)
    return "" if memory is None else f"{round(int(memory.total) / 2**30)} GiB"


def _divided(handle: object) -> bool:
    """False also where there is no such mode."""
    import pynvml

    mode = nvml.answered(pynvml, pynvml.nvmlDeviceGetMigMode, handle)
    return mode is not None and bool(mode[0])


def _parts(handle: object) -> list[object]:
    """Of a divided GPU, those places that have an instance."""
    import pynvml

    if not _divided(handle):
        return []
    most = range(pynvml.nvmlDeviceGetMaxMigDeviceCount(handle))
    found = [nvml.answered(pynvml, pynvml.nvmlDeviceGetMigDeviceHandleByIndex, handle, index) for index in most]
    return [part for part in found if part is not None]
