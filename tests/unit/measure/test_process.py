"""The energy of a workload, counted from tick to tick of the GPU's counter; its device time; what settles it."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import pytest

from pytest_rwkvperf.core.cases import Workload
from pytest_rwkvperf.core.errors import DeviceError, WorkerDiedError
from pytest_rwkvperf.core.samples import Sample
from pytest_rwkvperf.machine.cupti import DeviceTime, KernelTime
from pytest_rwkvperf.measure import process
from pytest_rwkvperf.measure.process import Process
from pytest_rwkvperf.worker import parent
from tests.unit.building import make_run


class Repeating(Process):
    """A process whose samples cost nothing but counting."""

    def __init__(self, *, on_gpu: bool = True, seconds: float = 1e-3) -> None:
        self._energy = {}
        self._prober = None
        self._samples, self._warmups, self._quick, self._token_seconds = {}, {}, {}, {}
        self._last = None
        self._on_gpu = on_gpu
        self._nanoseconds = round(seconds * 1e9)
        self.count = 0
        self.ran: list[str] = []

    def _sample(self, workload: Workload) -> Sample:
        self.count += workload.tokens
        self.ran.append(str(workload))
        return Sample(0.0, self._nanoseconds, ())


def test_the_counters_steps_bound_what_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "ENERGY_SECONDS", 0.05)
    ticks = itertools.chain([100, 100, 108, 5000, 5000], itertools.repeat(9108))
    repeating = Repeating()
    repeating.measure_energy([Workload("prefill", 512)], lambda: next(ticks))
    energy = repeating._energy["pp512"]
    assert (energy.tokens, energy.joules) == (repeating.count, 9.0)
    assert 0.05 <= energy.seconds < 2


def test_energy_at_a_depth_is_not_counted_for_it_would_hold_the_context_s() -> None:
    repeating = Repeating()
    repeating.measure_energy([Workload("prefill", 512, 4096)], lambda: 100)
    assert (repeating._energy, repeating.count) == ({}, 0)


def test_a_gpu_without_a_counter_has_no_energy() -> None:
    repeating = Repeating()
    repeating.measure_energy([Workload("prefill", 512)], lambda: None)
    assert (repeating._energy, repeating.count) == ({}, 0)


PREFILL, GENERATION = Workload("prefill", 512), Workload("generation", 128)


def answering(*answers: object) -> tuple[Repeating, list[dict[str, object]]]:
    """A process whose worker gives these answers or errors, and what it was asked."""
    asked: list[dict[str, object]] = []
    left = iter(answers)

    def request(do: str, deadline: float, **words: object) -> object:
        assert (do, deadline) == ("device_time", parent.DEVICE_TIME_SECONDS)
        asked.append(words)
        answer = next(left)
        if isinstance(answer, Exception):
            raise answer
        return answer

    repeating = Repeating()
    repeating._worker = SimpleNamespace(request=request)  # type: ignore[assignment]
    repeating._quick = {PREFILL: True, GENERATION: False}
    return repeating, asked


TOLD = {"tokens": 16, "wall_nanoseconds": 9, "busy_nanoseconds": 5, "kernels": 2, "copies": 1, "launches": 2,
        "longest": [{"name": "k", "count": 2, "nanoseconds": 4}]}  # fmt: skip


def test_device_time_is_asked_of_what_warms_each_workload_without_a_context() -> None:
    repeating, asked = answering(TOLD, TOLD)
    deep = Workload("prefill", 512, 4096)
    run, trouble = repeating.record_device_time(make_run(pp512=[1]), [PREFILL, deep, GENERATION])
    assert asked == [{"workload": "pp512", "settling": 2}, {"workload": "tg16", "settling": 0}]
    assert trouble == ""
    assert run.device_time == dict.fromkeys(("pp512", "tg128"), DeviceTime(16, 9, 5, 2, 1, 2, (KernelTime("k", 2, 4),)))
    assert {**run.samples} == {**make_run(pp512=[1]).samples}


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (WorkerDiedError("the worker was ended by SIGSEGV; its last lines:\n  one\n  two"),
         "the worker was ended by SIGSEGV"),
        (DeviceError("CUPTI refused"), "CUPTI refused"),
        ({**TOLD, "kernels": "9"},
         "the worker's device time is unusable: Expected `int`, got `str` - at `$.kernels`"),
        ({**TOLD, "busy_nanoseconds": 0}, "0 ns of device time for 16 tokens is none"),
    ],
)  # fmt: skip
def test_what_keeps_a_workload_from_its_device_time_is_a_line_and_takes_nothing_from_others(
    answer: object, told: str
) -> None:
    repeating, asked = answering(TOLD, answer)
    run, trouble = repeating.record_device_time(make_run(pp512=[1]), [PREFILL, GENERATION, GENERATION])
    assert (trouble, {*run.device_time}, len(asked)) == (f"tg128: {told}", {"pp512"}, 2)


def test_a_worker_without_cupti_is_asked_once() -> None:
    repeating, asked = answering(None)
    run, trouble = repeating.record_device_time(make_run(pp512=[1]), [PREFILL, GENERATION])
    assert (trouble, run.device_time, len(asked)) == ("", {}, 1)


def alternated(repeating: Repeating) -> list[str]:
    repeating.warm_up([PREFILL, GENERATION])
    repeating.ran.clear()
    for workload in (GENERATION, PREFILL, PREFILL, GENERATION):
        repeating.take(workload)
    return repeating.ran


def test_on_a_gpu_what_follows_another_workload_runs_twice_before_it_counts() -> None:
    repeating = Repeating()
    ran = alternated(repeating)
    assert ran == ["tg128", "pp512", "pp512", "pp512", "pp512", "tg16", "tg16", "tg128"]
    assert [len(taken) for taken in repeating._samples.values()] == [2, 2]


def test_slow_repetitions_and_cpus_need_no_settling() -> None:
    for repeating in (Repeating(seconds=0.6), Repeating(on_gpu=False)):
        assert alternated(repeating) == ["tg128", "pp512", "pp512", "tg128"]


def test_a_slice_is_a_tenth_of_a_second_of_tokens_by_the_warm_up_and_the_last_makes_a_sample() -> None:
    repeating = Repeating(on_gpu=False, seconds=0.16)
    repeating.warm_up([GENERATION])  # sixteen tokens of 10 ms
    assert repeating.slice_tokens(GENERATION) == 10
    answers = iter(
        {"started": started, "nanoseconds": sum(tokens), "token_nanoseconds": tokens}
        for started, tokens in ((1.0, [2, 3]), (2.0, [4]))
    )
    repeating._worker = SimpleNamespace(request=lambda *_words, **_with: next(answers))  # type: ignore[assignment]
    three = Workload("generation", 3)
    repeating.take_slice(three, 0, 2)
    assert str(three) not in repeating._samples
    repeating.take_slice(three, 2, 1)
    assert repeating._samples[str(three)] == [Sample(1.0, 9, (2, 3, 4))]
