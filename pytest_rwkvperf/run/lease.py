"""Leases of devices: one measurement at a time on a piece of hardware, in all runs of a user."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from pytest_rwkvperf.core import clock, folders, locks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from pytest_rwkvperf.core.engine import Device

_PROCESSOR = "cpu"


def hardware(device: Device) -> str:
    """The name of the hardware that a device occupies: a GPU's address, or `cpu` for everything that computes there."""
    return (device.physical or device.id).replace(":", "-") if device.kind == "gpu" else _PROCESSOR


@contextmanager
def lease(
    device: Device,
    waiting: Callable[[str, str], object],
    gpus: Iterable[str] = (),
    *,
    is_ours: Callable[[int], bool] = lambda _: False,
) -> Iterator[float]:
    """Hold a device for this process alone; while another one has it, wait.

    Yields the seconds of waiting for other runs. `waiting` is told the name of what is waited for and who holds it,
    empty for a process of this run, which `is_ours` tells by its number.

    The locks are the operating system's, which frees them when their holder is killed. CPU and software adapters are
    one device, and a process that measures on it holds every GPU too: `gpus`, by `hardware`'s names, and those that
    were leased before. An engine on a GPU needs a processor to launch its kernels, one on the CPU needs all of them.

    Raises:
        StorageError: the cache takes no lock.
    """
    folder = folders.in_cache("leases")
    names = [hardware(device)]
    if names == [_PROCESSOR]:
        known = {path.stem for path in folder.glob("*.lock")} | set(gpus)
        names = [*sorted(known - {_PROCESSOR}), _PROCESSOR]  # every process in the same order: no deadlock
    began, busy = clock.monotonic(), []
    with ExitStack() as stack:
        for name in names:

            def held(holder: str, name: str = name) -> None:
                if is_ours(locks.holding_process(folder / f"{name}.lock")):
                    waiting(name, "")
                else:
                    busy.append(name)
                    waiting(name, holder)

            stack.enter_context(locks.hold(folder / f"{name}.lock", on_wait=held))
        yield clock.monotonic() - began if busy else 0.0
