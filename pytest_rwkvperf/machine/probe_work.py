"""The probes' fixed work, which shows how fast the machine is: a matrix product, a memory sweep, a thread handover.

Each thread computes on its own arrays and the process has a BLAS of one thread: the threads of a BLAS would go on
spinning during the sample that follows.
"""

from __future__ import annotations

import hashlib
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    Arrays = tuple[npt.NDArray[np.float32], ...]

ProbeKind = Literal["product", "sweep", "handover"]

PRODUCT_SIZE = 512
PRODUCT_ROUNDS = 3
SWEEP_BYTES = 24 << 20
"""Size of each of the two arrays that a thread copies between: more than a core's private caches hold."""

SWEEP_ROUNDS = 2

SWEPT_BYTES = 2 * 2 * SWEEP_ROUNDS * SWEEP_BYTES
"""Read and written by a thread in one sweep, which copies forth and back."""

HANDOVER_BYTES = 1 << 20
HANDOVER_SIZE = 128
"""A step of a handover: each thread adds to HANDOVER_BYTES that another thread had in the step before, and multiplies
two matrices with HANDOVER_SIZE rows; then all synchronize. Processors that share no cache take longer to add, two of
one core to multiply."""

HANDOVER_STEPS = 20
HANDOVER_ROUNDS = 5

PRODUCT_OPERATIONS = 2 * PRODUCT_SIZE**3 * PRODUCT_ROUNDS
"""Operations of a thread in one product."""


@dataclass(slots=True)
class ProbeWork:
    """Probes on `threads` threads, each of which does its own share of every step; times in nanoseconds."""

    threads: int
    _pools: list[ThreadPoolExecutor] = field(init=False)
    _arrays: dict[str, list[Arrays]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        # A pool for each thread: in a shared pool, which thread does which part, and so what its cache holds, varies.
        self._pools = [ThreadPoolExecutor(1) for _ in range(self.threads)]

    def time(self, kind: ProbeKind) -> int:
        """How long the work took on all threads at once; of a handover, a step of the median round.

        The arrays are made before the first call's clock starts.
        """
        if kind not in self._arrays:
            self._arrays[kind] = [_arrays(kind) for _ in range(self.threads)]
            self._step(kind, 0)
        if kind == "handover":
            return round(median(self._clock(kind, HANDOVER_STEPS) for _ in range(HANDOVER_ROUNDS)) / HANDOVER_STEPS)
        return self._clock(kind, 1)

    def _clock(self, kind: ProbeKind, steps: int) -> int:
        started = time.perf_counter_ns()
        for step in range(steps):
            self._step(kind, step if kind == "handover" else 0)
        return time.perf_counter_ns() - started

    def _step(self, kind: ProbeKind, turn: int) -> None:
        """Every thread does the work once, on the arrays of the thread that is `turn` places further."""
        arrays = self._arrays[kind]
        futures = [
            pool.submit(_WORK[kind], arrays[(own + turn) % self.threads]) for own, pool in enumerate(self._pools)
        ]
        for future in futures:
            future.result()


def _arrays(kind: ProbeKind) -> Arrays:
    if kind == "sweep":
        sweep = np.ones(SWEEP_BYTES // 4, dtype=np.float32)
        return sweep, sweep.copy()
    if kind == "handover":
        return (np.ones(HANDOVER_BYTES // 4, dtype=np.float32), *_factors(HANDOVER_SIZE))
    return _factors(PRODUCT_SIZE)


def _factors(size: int) -> Arrays:
    source = np.linspace(-1, 1, size**2, dtype=np.float32).reshape(size, size)
    return source, source.T.copy(), np.empty_like(source)


def _product(arrays: Arrays) -> None:
    left, right, out = arrays
    for _ in range(PRODUCT_ROUNDS):
        np.matmul(left, right, out=out)


def _sweep(arrays: Arrays) -> None:
    first, second = arrays
    for _ in range(SWEEP_ROUNDS):
        np.copyto(second, first)
        np.copyto(first, second)


def _handover(arrays: Arrays) -> None:
    sums, left, right, out = arrays
    np.add(sums, 1, out=sums)
    np.matmul(left, right, out=out)


_WORK: dict[ProbeKind, Callable[[Arrays], None]] = {"product": _product, "sweep": _sweep, "handover": _handover}


def version() -> str:
    """What the probes' times depend on besides the machine; times of another version are never compared."""
    blas = np.show_config(mode="dicts").get("Build Dependencies", {}).get("blas", {})
    sizes = f"{PRODUCT_SIZE} {PRODUCT_ROUNDS} {SWEEP_BYTES} {SWEEP_ROUNDS}"
    sizes += f" on one thread {HANDOVER_BYTES} {HANDOVER_SIZE} {HANDOVER_STEPS} {HANDOVER_ROUNDS}"
    facts = f"{sizes} numpy {np.__version__} {blas.get('name')} {blas.get('version')}"
    return hashlib.sha256(facts.encode()).hexdigest()[:12]
