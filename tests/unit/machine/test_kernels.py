"""The probes' fixed work: all of it is timed, and its version changes with what it stands on."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from pytest_rwkvperf.machine import kernels
from pytest_rwkvperf.machine.kernels import Kernels


@pytest.mark.parametrize(
    ("kind", "operation", "rounds", "operations"),
    [("product", "matmul", "PRODUCT_ROUNDS", 1), ("sweep", "copyto", "SWEEP_ROUNDS", 2)],
)
def test_the_clock_is_around_all_the_work_and_nothing_else(
    kind: kernels.ProbeKind, operation: str, rounds: str, operations: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock that each operation moves by one; a real one was wrong in one run of ten on a machine in use."""
    done: list[int] = []
    real = getattr(np, operation)

    def counted(*arguments: object, **more: object) -> object:
        done.append(1)
        return real(*arguments, **more)

    monkeypatch.setattr(np, operation, counted)
    monkeypatch.setattr(kernels, "time", SimpleNamespace(perf_counter_ns=lambda: len(done)))
    monkeypatch.setattr(kernels, "PRODUCT_SIZE", 96)
    monkeypatch.setattr(kernels, "SWEEP_BYTES", 4 << 20)
    kernel = Kernels(1)
    for work in (1, 4):
        monkeypatch.setattr(kernels, rounds, work)
        assert kernel.time(kind) == work * operations


def test_every_thread_has_arrays_of_its_own() -> None:
    kernel = Kernels(2)
    kernel.time("sweep")
    (one, _), (other, _) = kernel._arrays["sweep"]
    assert not np.shares_memory(one, other)


def test_a_hand_over_is_a_step_and_every_thread_takes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    # Too small for a BLAS of several threads, as this process's is and a prober's is not: two of them would wait for
    # each other's, once for three sweeps' time.
    monkeypatch.setattr(kernels, "HANDOVER_SIZE", 8)
    kernel = Kernels(2)
    assert 0 < kernel.time("handover") < kernel.time("sweep")
    steps = 1 + 2 * kernels.HANDOVER_STEPS * kernels.HANDOVER_ROUNDS + kernels.HANDOVER_STEPS * kernels.HANDOVER_ROUNDS
    kernel.time("handover")
    kernel.time("handover")
    assert [float(array[0]) - 1 for array, *_ in kernel._arrays["handover"]] == [steps, steps]


@pytest.mark.parametrize(
    "name",
    [
        "PRODUCT_SIZE",
        "PRODUCT_ROUNDS",
        "SWEEP_BYTES",
        "SWEEP_ROUNDS",
        "HANDOVER_BYTES",
        "HANDOVER_SIZE",
        "HANDOVER_STEPS",
        "HANDOVER_ROUNDS",
    ],
)
def test_the_version_tells_the_work(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = kernels.version()
    monkeypatch.setattr(kernels, name, getattr(kernels, name) + 1)
    assert kernels.version() != before


def test_the_version_tells_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    before = kernels.version()
    monkeypatch.setattr(np, "__version__", "9.9")
    assert kernels.version() != before
