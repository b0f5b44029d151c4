"""The probe process: which work stands beside which workload, and where there is none."""

from __future__ import annotations

import os
import signal

import pytest

from pytest_rwkvperf.backends.base import Device
from pytest_rwkvperf.cases import Workload
from pytest_rwkvperf.errors import WorkerDiedError
from pytest_rwkvperf.machine import kernels
from pytest_rwkvperf.measure.probes import Prober, probing
from pytest_rwkvperf.worker.parent import Worker


def test_a_process_times_both_kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    plain = Worker.request

    def request(self: Worker, do: str, *positional: object, **arguments: object) -> object:
        asked.append((do, arguments.get("kind")))
        return plain(self, do, *positional, **arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Worker, "request", request)
    with probing(Device("cpu", "CPU", "cpu"), 1) as prober:
        assert prober is not None
        assert prober.version == kernels.version()
        assert prober.beside(Workload.parse("pp8")) > 0
        assert prober.beside(Workload.parse("tg8")) > 0
    assert asked == [("probe_version", None), ("probe", "product"), ("probe", "sweep")]


def test_a_gpu_has_no_probe_on_the_host() -> None:
    with probing(Device("cuda:0", "GPU", "gpu"), 1) as prober:
        assert prober is None


def test_a_dead_probe_is_an_error() -> None:
    with Worker() as worker:
        prober = Prober(worker, 1)
        os.kill(worker.pid, signal.SIGKILL)
        with pytest.raises(WorkerDiedError, match="SIGKILL"):
            prober.beside(Workload.parse("pp8"))
