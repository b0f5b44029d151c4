"""The probe process: which work stands beside which workload, and where there is none."""

from __future__ import annotations

import os
import signal
import time

import pytest

from pytest_rwkvperf.core import clock
from pytest_rwkvperf.core.cases import Workload
from pytest_rwkvperf.core.engine import Device
from pytest_rwkvperf.core.errors import WorkerDiedError
from pytest_rwkvperf.machine import probe_work
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
        assert prober.version == probe_work.version()
        assert prober.beside(Workload.parse("pp8")) > 0
        assert prober.beside(Workload.parse("tg8")) > 0
    assert asked == [("probe_version", None), ("probe", "product"), ("probe", "sweep")]


def test_the_reach_is_of_all_threads_and_the_fastest_of_a_few(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([5, 3, 4, 9, 8, 7])
    asked = []

    def request(_self: Worker, do: str, _seconds: float, **arguments: object) -> object:
        asked.append(arguments)
        return next(times) if do == "probe" else "v"

    monkeypatch.setattr(Worker, "request", request)
    with probing(Device("cpu", "CPU", "cpu"), 4) as prober:
        assert prober is not None
        assert prober.reach() == {"product": 3, "sweep": 7}
    assert asked[1:] == [{"kind": kind, "threads": 4} for kind in ("product",) * 3 + ("sweep",) * 3]


class Slow:
    """A probe process of a machine whose handovers take these nanoseconds, one after the other."""

    def __init__(self, *handovers: int) -> None:
        self.left = list(handovers)

    def request(self, do: str, _seconds: float, **arguments: object) -> object:
        return "v" if do == "probe_version" else self.left.pop(0) if arguments["kind"] == "handover" else 1


def prober_of(slow: Slow, max_wait: float = 60.0, known: dict[str, float] | None = None, threads: int = 2) -> Prober:
    return Prober(slow, threads, max_wait, known)  # type: ignore[arg-type]


@pytest.fixture
def waited(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    naps: list[float] = []
    monkeypatch.setattr(time, "sleep", naps.append)
    return naps


def test_a_sample_waits_until_handovers_are_as_fast_as_they_were(waited: list[float]) -> None:
    prober, told = prober_of(Slow(70, 71, 105, 104, 72, 70)), list[str]()
    assert [prober.handover(told.append) for _ in range(4)] == [70, 71, 72, 70]
    assert len(waited) == len(told) == 2
    assert told[0] == "handovers between threads are slow, waiting 60 s at most"


def test_the_baselines_handovers_are_the_limit_from_the_start(waited: list[float]) -> None:
    assert prober_of(Slow(105, 70), known={"v": 69.0}).handover(lambda _: None) == 70
    assert len(waited) == 1


def test_handovers_of_another_probe_version_are_ignored(waited: list[float]) -> None:
    assert prober_of(Slow(105), known={"w": 69.0}).handover(lambda _: None) == 105
    assert waited == []


def test_waiting_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter(range(0, 1000, 10))
    monkeypatch.setattr(time, "sleep", lambda _: None)
    monkeypatch.setattr(clock, "monotonic", lambda: float(next(seconds)))
    slow = Slow(*[105] * 20)
    prober = prober_of(slow, max_wait=25.0, known={"v": 70.0})
    assert prober.handover(lambda _: None) == 105
    assert len(slow.left) == 16
    assert prober.handover(lambda _: None) == 105
    assert len(slow.left) == 15


def test_one_thread_has_no_handover() -> None:
    assert prober_of(Slow(), threads=1).handover(lambda _: None) is None


def test_two_threads_are_timed_in_a_real_process() -> None:
    with probing(Device("cpu", "CPU", "cpu"), 2) as prober:
        assert prober is not None
        assert 1_000 < (prober.handover(lambda _: None) or 0) < 1_000_000_000


def test_a_gpu_has_no_probe_on_the_host() -> None:
    with probing(Device("cuda:0", "GPU", "gpu"), 1) as prober:
        assert prober is None


def test_a_dead_probe_is_an_error() -> None:
    with Worker() as worker:
        prober = Prober(worker, 1)
        os.kill(worker.pid, signal.SIGKILL)
        with pytest.raises(WorkerDiedError, match="SIGKILL"):
            prober.beside(Workload.parse("pp8"))
