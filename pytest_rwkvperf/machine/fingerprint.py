"""The hardware's identity: what a baseline belongs to. No clock rate, no software version, nothing that jitters."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import sys
from dataclasses import asdict, dataclass

import psutil


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
    """Logical cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else psutil.cpu_count() or 1


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
    numbers = (f"{word} {info[word]}" for word in ("family", "model", "stepping") if word in info)
    return re.sub(r"\s*@\s*[\d.]+\s*[GM]Hz", "", name).strip(), " ".join(numbers)


def nvidia_gpus() -> tuple[str, ...]:
    """Name and memory of each NVIDIA GPU, in NVML's order; empty without a driver."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return ()
    try:
        handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
        return tuple(_gpu(handle) for handle in handles)
    finally:
        pynvml.nvmlShutdown()


def _gpu(handle: object) -> str:
    import pynvml

    memory = round(pynvml.nvmlDeviceGetMemoryInfo(handle).total / 2**30)
    return f"{pynvml.nvmlDeviceGetName(handle)} {memory} GiB"
