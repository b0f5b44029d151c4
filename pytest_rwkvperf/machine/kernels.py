"""Fixed pieces of work that show how fast the machine itself is: a matrix product, a memory sweep and a hand-over.

Each thread computes on its own arrays: a BLAS that spreads one product over threads would leave them spinning beside
the sample that follows. The process that runs this has a BLAS of one thread.
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

ProbeKind = Literal["product", "sweep", "handover"]

PRODUCT_SIZE = 512
PRODUCT_ROUNDS = 3
SWEEP_BYTES = 24 << 20
"""Of each of the two arrays a thread copies between: beyond the caches that one core can call its own."""

SWEEP_ROUNDS = 2

SWEPT_BYTES = 2 * 2 * SWEEP_ROUNDS * SWEEP_BYTES
"""Read and written by a thread in one sweep: there and back."""

HANDOVER_BYTES = 1 << 20
"""Each thread adds to so many in a step, then all meet: 70 microseconds where the cores share a cache."""

HANDOVER_STEPS = 20
HANDOVER_ROUNDS = 5

PRODUCT_OPERATIONS = 2 * PRODUCT_SIZE**3 * PRODUCT_ROUNDS
"""Of a thread in one product."""


@dataclass(slots=True)
class Kernels:
    """The arrays of `threads` threads; times in nanoseconds."""

    threads: int
    _pool: ThreadPoolExecutor = field(init=False)
    _arrays: dict[str, list[tuple[npt.NDArray[np.float32], ...]]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self._pool = ThreadPoolExecutor(self.threads)

    def time(self, kind: ProbeKind) -> int:
        """How long the work took, every thread at once; the first call's arrays are made outside the clock.

        Of a hand-over it is the median round's step.
        """
        if kind not in self._arrays:
            self._arrays[kind] = [_arrays(kind) for _ in range(self.threads)]
            self._run(_WORK[kind], kind)
        if kind == "handover":
            return round(median(self._clock(kind, HANDOVER_STEPS) for _ in range(HANDOVER_ROUNDS)) / HANDOVER_STEPS)
        return self._clock(kind, 1)

    def _clock(self, kind: ProbeKind, steps: int) -> int:
        started = time.perf_counter_ns()
        for _ in range(steps):
            self._run(_WORK[kind], kind)
        return time.perf_counter_ns() - started

    def _run(self, work: Callable[[tuple[npt.NDArray[np.float32], ...]], None], kind: ProbeKind) -> None:
        list(self._pool.map(work, self._arrays[kind]))


def _arrays(kind: ProbeKind) -> tuple[npt.NDArray[np.float32], ...]:
    if kind == "handover":
        return (np.ones(HANDOVER_BYTES // 4, dtype=np.float32),)
    if kind == "sweep":
        sweep = np.ones(SWEEP_BYTES // 4, dtype=np.float32)
        return sweep, sweep.copy()
    source = np.linspace(-1, 1, PRODUCT_SIZE**2, dtype=np.float32).reshape(PRODUCT_SIZE, PRODUCT_SIZE)
    return source, source.T.copy(), np.empty_like(source)


def _product(arrays: tuple[npt.NDArray[np.float32], ...]) -> None:
    left, right, out = arrays
    for _ in range(PRODUCT_ROUNDS):
        np.matmul(left, right, out=out)


def _sweep(arrays: tuple[npt.NDArray[np.float32], ...]) -> None:
    one, other = arrays
    for _ in range(SWEEP_ROUNDS):
        np.copyto(other, one)
        np.copyto(one, other)


def _handover(arrays: tuple[npt.NDArray[np.float32], ...]) -> None:
    np.add(arrays[0], 1, out=arrays[0])


_WORK: dict[ProbeKind, Callable[[tuple[npt.NDArray[np.float32], ...]], None]] = {
    "product": _product,
    "sweep": _sweep,
    "handover": _handover,
}


def version() -> str:
    """What the probes' times depend on besides the machine; times of another version are never compared."""
    blas = np.show_config(mode="dicts").get("Build Dependencies", {}).get("blas", {})
    sizes = f"{PRODUCT_SIZE} {PRODUCT_ROUNDS} {SWEEP_BYTES} {SWEEP_ROUNDS}"
    sizes += f" on one thread {HANDOVER_BYTES} {HANDOVER_STEPS} {HANDOVER_ROUNDS}"
    facts = f"{sizes} numpy {np.__version__} {blas.get('name')} {blas.get('version')}"
    return hashlib.sha256(facts.encode()).hexdigest()[:12]
