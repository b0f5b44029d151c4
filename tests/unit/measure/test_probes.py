"""The probe process: which work stands beside which workload, and where there is none."""

from __future__ import annotations

import os
import signal
import time

import pytest

from pytest_rwkvperf.core.cases import Workload
from pytest_rwkvperf.core.engine import Device
from pytest_rwkvperf.core.errors import WorkerDiedError
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


class Apart:
    """A probe process of a machine whose hand-overs take these nanoseconds, one after the other."""

    def __init__(self, *handovers: int) -> None:
        self.left = list(handovers)

    def request(self, do: str, _seconds: float, **arguments: object) -> object:
        return "v" if do == "probe_version" else self.left.pop(0) if arguments["kind"] == "handover" else 1


def prober_of(apart: Apart, patience: float = 60.0, known: dict[str, float] | None = None, threads: int = 2) -> Prober:
    return Prober(apart, threads, patience, known)  # type: ignore[arg-type]


@pytest.fixture
def waited(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    naps: list[float] = []
    monkeypatch.setattr(time, "sleep", naps.append)
    return naps


def test_a_sample_waits_until_the_processors_stand_as_near_as_they_did(waited: list[float]) -> None:
    prober, told = prober_of(Apart(70, 71, 105, 104, 72, 70)), list[str]()
    assert [prober.near(told.append) for _ in range(4)] == [70, 71, 72, 70]
    assert len(waited) == len(told) == 2
    assert told[0] == "the processors stand apart, waiting 60 s at most"


def test_what_the_baseline_was_measured_at_is_known_from_the_start(waited: list[float]) -> None:
    assert prober_of(Apart(105, 70), known={"v": 69.0}).near(lambda _: None) == 70
    assert len(waited) == 1


def test_another_version_s_hand_overs_say_nothing(waited: list[float]) -> None:
    assert prober_of(Apart(105), known={"w": 69.0}).near(lambda _: None) == 105
    assert waited == []


def test_patience_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 1000, 10))
    monkeypatch.setattr(time, "sleep", lambda _: None)
    monkeypatch.setattr(time, "monotonic", lambda: float(next(clock)))
    apart = Apart(*[105] * 20)
    prober = prober_of(apart, patience=25.0, known={"v": 70.0})
    assert prober.near(lambda _: None) == 105
    assert len(apart.left) == 16
    assert prober.near(lambda _: None) == 105
    assert len(apart.left) == 15


def test_one_thread_hands_nothing_over() -> None:
    assert prober_of(Apart(), threads=1).near(lambda _: None) is None


def test_two_threads_are_timed_in_a_real_process() -> None:
    with probing(Device("cpu", "CPU", "cpu"), 2) as prober:
        assert prober is not None
        assert 1_000 < (prober.near(lambda _: None) or 0) < 1_000_000_000


def test_a_gpu_has_no_probe_on_the_host() -> None:
    with probing(Device("cuda:0", "GPU", "gpu"), 1) as prober:
        assert prober is None


def test_a_dead_probe_is_an_error() -> None:
    with Worker() as worker:
        prober = Prober(worker, 1)
        os.kill(worker.pid, signal.SIGKILL)
        with pytest.raises(WorkerDiedError, match="SIGKILL"):
            prober.beside(Workload.parse("pp8"))
