"""Probes beside the samples: fixed work in a process of this project's own shows how fast the machine is.

The process runs under this project's interpreter, never in the environment under test, so that an engine's release
cannot influence it. A matrix product is timed before each prefill sample, a memory sweep before each generation sample:
what bounds the two. They run on one thread, whatever the case has, to measure the machine.

The handover between threads varies too. The host of a virtual machine moves its processors within seconds, and how
long they take to hand work to each other depends on where they are: with two threads a prefill of llama.cpp took 14 ms
or 22 ms, with one always 23 ms (benchmarks/verdicts). So before each sample of several threads a handover is timed,
and while it takes longer than it is known to take here, the sample waits, for a limited time.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pytest_rwkvperf.core import clock
from pytest_rwkvperf.stats.levels import PLACEMENT_FACTOR, handover_limit
from pytest_rwkvperf.worker import parent
from pytest_rwkvperf.worker.parent import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from pytest_rwkvperf.core.cases import Workload
    from pytest_rwkvperf.core.engine import Device
    from pytest_rwkvperf.machine.probe_work import ProbeKind

_ONE_THREAD = {
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "VECLIB_MAXIMUM_THREADS": "1",
}
"""Each of the probe's threads calls the BLAS by itself."""

_PAUSE_SECONDS = 0.05
"""Pause between two handovers while waiting for a fast one: slow phases lasted 3 to 30 s."""

_REACH_ROUNDS = 3
"""Repetitions on all threads, of which the fastest counts."""


class Prober:
    """A live probe process.

    `max_wait` limits the seconds that all waiting may take. `known` is the handover in nanoseconds that this machine's
    stored sessions were measured at, by the probes' version.
    """

    def __init__(
        self, worker: Worker, threads: int, max_wait: float = 0.0, known: Mapping[str, float] | None = None
    ) -> None:
        self._worker = worker
        self._threads = threads
        self._wait_left = max_wait
        self._handovers: list[int] = []
        self.version = str(worker.request("probe_version", parent.QUICK_SECONDS))
        self._known = (known or {}).get(self.version)

    def beside(self, workload: Workload) -> int:
        """Nanoseconds of the fixed work that belongs to a workload.

        Raises:
            WorkerError: the probe process failed.
        """
        return self._time("product" if workload.kind == "prefill" else "sweep", 1)

    def reach(self) -> dict[ProbeKind, int]:
        """Nanoseconds of the same work on every thread of the case at once, the fastest of a few.

        Raises:
            WorkerError: the probe process failed.
        """
        kinds: tuple[ProbeKind, ...] = ("product", "sweep")
        return {kind: min(self._time(kind, self._threads) for _ in range(_REACH_ROUNDS)) for kind in kinds}

    def handover(self, waiting: Callable[[str], None]) -> int | None:
        """Nanoseconds of a handover, after waiting for a fast one; None with one thread.

        Raises:
            WorkerError: the probe process failed.
        """
        if self._threads == 1:
            return None
        while True:
            started = clock.monotonic()
            nanoseconds = self._time("handover", self._threads)
            self._handovers.append(nanoseconds)
            if nanoseconds <= self._limit() or self._wait_left <= 0:
                return nanoseconds
            waiting(f"handovers between threads are slow, waiting {self._wait_left:.0f} s at most")
            time.sleep(_PAUSE_SECONDS)
            self._wait_left -= clock.monotonic() - started

    def _time(self, kind: ProbeKind, threads: int) -> int:
        return int(self._worker.request("probe", parent.QUICK_SECONDS, kind=kind, threads=threads))

    def _limit(self) -> float:
        """The longest handover that is not slow: by this run's own, or by the stored ones where those were faster."""
        own = handover_limit([self._handovers])
        return min(own, PLACEMENT_FACTOR * self._known) if self._known else own


@contextmanager
def probing(
    device: Device, threads: int, max_wait: float = 0.0, known: Mapping[str, float] | None = None
) -> Iterator[Prober | None]:
    """A probe process that ends with the `with` block; None on a GPU, whose speed a probe on the host does not show."""
    if device.kind == "gpu":
        yield None
        return
    with Worker(environment=_ONE_THREAD) as worker:
        yield Prober(worker, threads, max_wait, known)
