"""The probes' fixed work: all of it is timed, and its version changes with what it stands on."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from pytest_rwkvperf.machine import probe_work
from pytest_rwkvperf.machine.probe_work import ProbeWork


@pytest.mark.parametrize(
    ("kind", "operation", "rounds", "operations"),
    [("product", "matmul", "PRODUCT_ROUNDS", 1), ("sweep", "copyto", "SWEEP_ROUNDS", 2)],
)
def test_the_clock_is_around_all_the_work_and_nothing_else(
    kind: probe_work.ProbeKind, operation: str, rounds: str, operations: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock that each operation moves by one; a real one was wrong in one run of ten on a machine in use."""
    done: list[int] = []
    real = getattr(np, operation)

    def counted(*arguments: object, **more: object) -> object:
        done.append(1)
        return real(*arguments, **more)

    monkeypatch.setattr(np, operation, counted)
    monkeypatch.setattr(probe_work, "time", SimpleNamespace(perf_counter_ns=lambda: len(done)))
    monkeypatch.setattr(probe_work, "PRODUCT_SIZE", 96)
    monkeypatch.setattr(probe_work, "SWEEP_BYTES", 4 << 20)
    probe = ProbeWork(1)
    for count in (1, 4):
        monkeypatch.setattr(probe_work, rounds, count)
        assert probe.time(kind) == count * operations


def test_every_thread_has_arrays_of_its_own() -> None:
    probe = ProbeWork(2)
    probe.time("sweep")
    (one, _), (other, _) = probe._arrays["sweep"]
    assert not np.shares_memory(one, other)


def test_a_hand_over_is_a_step_and_every_thread_takes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    # Too small for a BLAS of several threads, as this process's is and a prober's is not: two of them would wait for
    # each other's, once for three sweeps' time.
    monkeypatch.setattr(probe_work, "HANDOVER_SIZE", 8)
    probe = ProbeWork(2)
    assert 0 < probe.time("handover") < probe.time("sweep")
    steps = (
        1
        + 2 * probe_work.HANDOVER_STEPS * probe_work.HANDOVER_ROUNDS
        + probe_work.HANDOVER_STEPS * probe_work.HANDOVER_ROUNDS
    )
    probe.time("handover")
    probe.time("handover")
    assert [float(array[0]) - 1 for array, *_ in probe._arrays["handover"]] == [steps, steps]


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
    before = probe_work.version()
    monkeypatch.setattr(probe_work, name, getattr(probe_work, name) + 1)
    assert probe_work.version() != before


def test_the_version_tells_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    before = probe_work.version()
    monkeypatch.setattr(np, "__version__", "9.9")
    assert probe_work.version() != before
