"""The CUDA devices of torch, for every engine that computes with it."""

from __future__ import annotations

from pytest_rwkvperf.core.engine import Device
from pytest_rwkvperf.machine.ceilings import address_of

CPU = Device("cpu", "CPU", "cpu")


def cuda_devices() -> tuple[Device, ...]:
    """As torch lists them; none where it was built for the CPU or finds no driver. For workers: it imports torch."""
    import torch

    return tuple(
        Device(f"cuda:{index}", torch.cuda.get_device_name(index), "gpu", physical=address_of(index))
        for index in range(torch.cuda.device_count())
    )
