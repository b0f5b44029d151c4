"""The probes' fixed work: it takes time in proportion to the work, and its version changes with what it stands on."""

from __future__ import annotations

import numpy as np
import pytest

from pytest_rwkvperf.machine import kernels
from pytest_rwkvperf.machine.kernels import Kernels


@pytest.mark.parametrize(("kind", "rounds"), [("product", "PRODUCT_ROUNDS"), ("sweep", "SWEEP_ROUNDS")])
def test_more_work_takes_longer(kind: kernels.ProbeKind, rounds: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Less work, and what it grows with is the same. A larger product would keep the threads of a BLAS that has several,
    # as this process's has and a prober's has not, waiting for each other.
    monkeypatch.setattr(kernels, "PRODUCT_SIZE", 96)
    monkeypatch.setattr(kernels, "SWEEP_BYTES", 4 << 20)
    kernel, once = Kernels(1), getattr(kernels, rounds)
    less: list[int] = []
    more: list[int] = []
    # In alternation, so that what else runs meanwhile (pytest -n 4 on two cores) meets both.
    for _ in range(15):
        for times, work in ((less, once), (more, 4 * once)):
            monkeypatch.setattr(kernels, rounds, work)
            times.append(kernel.time(kind))
    assert min(more) > 2 * min(less)


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
