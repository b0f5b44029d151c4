"""Leases of devices: one measurement at a time on a piece of hardware, in all runs of a user."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from pytest_rwkvperf.core import clock, folders, locks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from pytest_rwkvperf.core.engine import Device
    from pytest_rwkvperf.run.progress import Progress

_PROCESSOR = "cpu"


def hardware(device: Device) -> str:
    """The name of the hardware that a device occupies: a GPU's address, or `cpu` for everything that computes there."""
    return (device.physical or device.id).replace(":", "-") if device.kind == "gpu" else _PROCESSOR


@contextmanager
def lease(
    device: Device, progress: Progress, gpus: Iterable[str] = (), *, is_ours: Callable[[int], bool] = lambda _: False
) -> Iterator[float]:
    """Hold a device for this process alone; while another one has it, wait and say so.

    Yields the seconds of waiting for other runs; `is_ours` tells which processes belong to this one.

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

            def waiting(holder: str, name: str = name) -> None:
                if is_ours(locks.holding_process(folder / f"{name}.lock")):
                    progress(f"waiting for {name}, on which another worker of this run measures")
                    return
                busy.append(name)
                progress.line(f"waiting for {name}: another session measures on it ({holder})")
                progress(f"waiting for {name}, on which {holder} measures")
                progress.expect(None)  # until the case begins

            stack.enter_context(locks.hold(folder / f"{name}.lock", on_wait=waiting))
        yield clock.monotonic() - began if busy else 0.0
