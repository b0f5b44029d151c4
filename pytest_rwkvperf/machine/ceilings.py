"""A CUDA device's ceilings: a copy and matrix products, timed by device events in a worker of their own."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from pytest_rwkvperf.core.engine import pci_address
from pytest_rwkvperf.core.errors import DeviceError

if TYPE_CHECKING:
    from collections.abc import Callable

_COPY_BYTES = 1 << 30
"""Largest size of each of the two arrays: many times any cache."""

_PRODUCT_SIZE = 8192
_SMALL_MEMORY = 12 << 30
_ROUNDS = 8
_SECONDS = 0.7
"""Time limit for each kind of work, so that a slow device gets fewer rounds."""


def measure(address: str) -> dict[str, Any]:
    """Copy bandwidth and product rates of the CUDA device at a PCI address, as `roofline.Ceilings` has them.

    The best of up to eight rounds after a warm-up counts: a ceiling is what the device can do.

    Raises:
        ImportError: torch is not installed.
        DeviceError: torch sees no such device.
    """
    import torch

    index = next((index for index in range(torch.cuda.device_count()) if address_of(index) == address), None)
    if index is None:
        raise DeviceError(f"torch {torch.__version__} sees no CUDA device at {address}")
    torch.cuda.set_device(index)
    free, total = torch.cuda.mem_get_info(index)
    size = min(_COPY_BYTES, free // 8)
    edge = _PRODUCT_SIZE if total >= _SMALL_MEMORY else _PRODUCT_SIZE // 2
    rates = {name: _product(edge, name) for name in ("fp16", "bf16", "tf32", "fp32")}
    return {
        "copy_bytes_per_second": _copy(size),
        "product_per_second": rates,
        "source": f"torch {torch.__version__}, {size >> 20} MiB copied, {edge}² products",
    }


def _copy(size: int) -> float:
    """Bytes per second, read and written."""
    import torch

    source = torch.empty(size, dtype=torch.uint8, device="cuda").random_()
    target = torch.empty_like(source)
    return 2 * size / _best(lambda: target.copy_(source))


def _product(edge: int, name: str) -> float:
    """Operations per second on random numbers: on zeros a GPU draws less power and runs faster."""
    import torch

    kinds = {"fp16": torch.float16, "bf16": torch.bfloat16}
    torch.backends.cuda.matmul.allow_tf32 = name == "tf32"
    left, right = (torch.randn(edge, edge, device="cuda", dtype=kinds.get(name, torch.float32)) for _ in range(2))
    return 2 * float(edge) ** 3 / _best(lambda: torch.mm(left, right))


def _event() -> Any:  # noqa: ANN401 - torch's class has no types
    import torch

    make: Any = torch.cuda.Event
    return make(enable_timing=True)


def _best(work: Callable[[], object]) -> float:
    """Seconds of the fastest round."""
    import torch

    for _ in range(2):
        work()
    torch.cuda.synchronize()
    best, started = float("inf"), time.monotonic()
    for _ in range(_ROUNDS):
        begin, end = _event(), _event()
        begin.record()
        work()
        end.record()
        end.synchronize()
        best = min(best, begin.elapsed_time(end) / 1e3)
        if time.monotonic() - started > _SECONDS:
            break
    return best


def address_of(index: int) -> str:
    """PCI address of a CUDA device; empty with torch before 2.9, which does not have it."""
    import torch

    properties: Any = torch.cuda.get_device_properties(index)  # its stub lacks the address
    if not hasattr(properties, "pci_bus_id"):
        return ""
    return pci_address(f"{properties.pci_domain_id:04x}:{properties.pci_bus_id:02x}:{properties.pci_device_id:02x}")
