"""Probes beside the samples: how fast the machine was, told by fixed work in a process of this project's own.

The process runs under this project's interpreter, never in the environment under test, so that an engine's release
cannot move it. A matrix product stands beside each prefill sample, a memory sweep beside each generation sample:
what bounds the two.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from pytest_rwkvperf.worker import parent
from pytest_rwkvperf.worker.parent import Worker

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_rwkvperf.backends.base import Device
    from pytest_rwkvperf.cases import Workload

_ONE_THREAD = {
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "VECLIB_MAXIMUM_THREADS": "1",
}
"""Each of the probe's threads calls the BLAS by itself."""


class Prober:
    """A live probe process."""

    def __init__(self, worker: Worker, threads: int) -> None:
        self._worker = worker
        self._threads = threads
        self.version = str(worker.request("probe_version", parent.QUICK_SECONDS))

    def beside(self, workload: Workload) -> int:
        """Nanoseconds of the fixed work that belongs to a workload.

        Raises:
            WorkerError: the probe process failed.
        """
        kind = "product" if workload.kind == "prefill" else "sweep"
        return int(self._worker.request("probe", parent.QUICK_SECONDS, kind=kind, threads=self._threads))


@contextmanager
def probing(device: Device, threads: int) -> Iterator[Prober | None]:
    """A probe process for the length of a block; None on a GPU, whose speed a probe on the host says nothing of."""
    if device.kind == "gpu":
        yield None
        return
    with Worker(environment=_ONE_THREAD) as worker:
        yield Prober(worker, threads)
