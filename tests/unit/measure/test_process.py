"""Sampling in one process: settling, slices, and which answer is checked; a GPU's energy and its device time."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest

from pytest_rwkvperf.core.cases import Workload
from pytest_rwkvperf.core.errors import DeviceError, WorkerDiedError
from pytest_rwkvperf.core.samples import Sample
from pytest_rwkvperf.machine.cupti import DeviceTime, KernelTime
from pytest_rwkvperf.measure import gpu_work
from pytest_rwkvperf.measure.gpu_work import measure_energy, record_device_time
from pytest_rwkvperf.measure.process import Process
from pytest_rwkvperf.measure.sampling import Sampling, SlicedSampling
from pytest_rwkvperf.worker import parent
from tests.unit.building import CASE, CPU, RIGHT, make_run

if TYPE_CHECKING:
    from pytest_rwkvperf.measure.process import Target
    from pytest_rwkvperf.measure.record import ProcessRun
    from pytest_rwkvperf.worker.parent import Worker

PREFILL, GENERATION = Workload("prefill", 512), Workload("generation", 128)


class Repeating:
    """A process whose repetitions cost nothing and take these seconds; it notes which ones ran."""

    def __init__(self, *, kind: str = "gpu", seconds: float = 1e-3) -> None:
        self.target = SimpleNamespace(device=SimpleNamespace(kind=kind))
        self.first = True
        self.ran: list[Workload] = []
        self.batches: list[tuple[int, int]] = []
        """How many repetitions ran until a batch was checked, and how many sequences it had."""
        self.checked: list[tuple[int, str]] = []
        """How many repetitions and slices ran until one whose answer was checked, and as which sample."""
        self._nanoseconds = round(seconds * 1e9)

    def time(self, workload: Workload, *, checked: bool = False) -> Sample:
        self.ran.append(workload)
        self._was_checked = checked
        return Sample(0.0, self._nanoseconds, ())

    def time_slice(self, workload: Workload, start: int, count: int, *, checked: bool) -> Sample:
        self.ran.append(workload)
        self._was_checked = checked
        return Sample(float(start), count, (1,) * count)

    def check_answer(self, workload: Workload, repetition: int) -> None:
        assert self._was_checked
        self.checked.append((len(self.ran), f"{workload} {repetition}"))

    def check_batch(self, sequences: int) -> None:
        self.batches.append((len(self.ran), sequences))

    def resident_bytes(self) -> int:
        return 1000 + len(self.ran)

    def finish(self) -> ProcessRun:
        return make_run()

    def sampling(self) -> SlicedSampling:
        return SlicedSampling(cast("Process", self))


@pytest.mark.parametrize(("on_device", "noted"), [(0, True), (5000, True), (None, False)])
def test_memory_is_noted_after_each_warm_up_those_without_context_first(on_device: int | None, *, noted: bool) -> None:
    repeating, deep = Repeating(seconds=2.0), Workload("generation", 128, 256)
    sampling = Sampling(cast("Process", repeating), None, lambda: on_device)
    assert [*sampling.warm_up([deep, PREFILL])] == [deep, PREFILL]
    expected = {"pp512": 1002, "tg128@d256": 1004}
    assert sampling.finish().memory == (
        {name: held + (on_device or 0) for name, held in expected.items()} if noted else {}
    )


def test_the_counters_steps_bound_what_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_work, "ENERGY_SECONDS", 0.05)
    ticks = itertools.chain([100, 100, 108, 5000, 5000], itertools.repeat(9108))
    repeating = Repeating()
    drawn = measure_energy(repeating.time, [PREFILL], lambda: next(ticks))["pp512"]
    assert (drawn.tokens, drawn.joules) == (512 * len(repeating.ran), 9.0)
    assert 0.05 <= drawn.seconds < 2


@pytest.mark.parametrize(("workload", "count"), [(Workload("prefill", 512, 4096), 100), (PREFILL, None)])
def test_no_energy_at_a_depth_and_without_a_counter(workload: Workload, count: int | None) -> None:
    repeating = Repeating()
    assert measure_energy(repeating.time, [workload], lambda: count) == {}
    assert repeating.ran == []


TOLD = {"tokens": 16, "wall_nanoseconds": 9, "busy_nanoseconds": 5, "kernels": 2, "copies": 1, "launches": 2,
        "longest": [{"name": "k", "count": 2, "nanoseconds": 4}]}  # fmt: skip
TIME = DeviceTime(16, 9, 5, 2, 1, 2, (KernelTime("k", 2, 4),))


class Answering:
    """A worker that gives these answers or errors, and keeps what it was asked."""

    def __init__(self, *answers: object) -> None:
        self.asked: list[dict[str, object]] = []
        self._left = iter(answers)

    def request(self, do: str, deadline: float, **words: object) -> object:
        assert (do, deadline) == ("device_time", parent.DEVICE_TIME_SECONDS)
        self.asked.append(words)
        answer = next(self._left)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def record(self, *workloads: Workload) -> tuple[dict[str, DeviceTime], str]:
        return record_device_time(cast("Worker", self), workloads, {PREFILL: 2, GENERATION: 0}.__getitem__)


def test_device_time_is_asked_of_what_warms_each_workload_without_a_context() -> None:
    worker = Answering(TOLD, TOLD)
    assert worker.record(PREFILL, Workload("prefill", 512, 4096), GENERATION) == ({"pp512": TIME, "tg128": TIME}, "")
    assert worker.asked == [{"workload": "pp512", "settling": 2}, {"workload": "tg16", "settling": 0}]


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (WorkerDiedError("the worker was ended by SIGSEGV; its last lines:\n  one\n  two"),
         "the worker was ended by SIGSEGV"),
        (DeviceError("CUPTI refused"), "CUPTI refused"),
        ({**TOLD, "kernels": "9"},
         "the worker's DeviceTime is unusable: Expected `int`, got `str` - at `$.kernels`; measure again"),
        ({**TOLD, "busy_nanoseconds": 0}, "0 ns of device time for 16 tokens are unusable"),
    ],
)  # fmt: skip
def test_a_failed_device_time_is_a_line_and_leaves_the_others(answer: object, told: str) -> None:
    worker = Answering(TOLD, answer)
    assert worker.record(PREFILL, GENERATION, GENERATION) == ({"pp512": TIME}, f"tg128: {told}")
    assert len(worker.asked) == 2


def test_a_worker_without_cupti_is_asked_once() -> None:
    worker = Answering(None)
    assert worker.record(PREFILL, GENERATION) == ({}, "")
    assert len(worker.asked) == 1


def alternated(repeating: Repeating) -> list[str]:
    sampling = repeating.sampling()
    sampling.warm_up([PREFILL, GENERATION])
    repeating.ran.clear()
    for workload in (GENERATION, PREFILL, PREFILL, GENERATION):
        sampling.take(workload)
    assert [len(samples) for samples in sampling.finish().samples.values()] == [2, 2]
    return [str(workload) for workload in repeating.ran]


def test_on_a_gpu_a_quick_workload_after_another_runs_twice_before_it_counts() -> None:
    assert alternated(Repeating()) == ["tg128", "pp512", "pp512", "pp512", "pp512", "tg16", "tg16", "tg128"]


def test_slow_repetitions_and_cpus_need_no_settling() -> None:
    for repeating in (Repeating(seconds=0.6), Repeating(kind="cpu")):
        assert alternated(repeating) == ["tg128", "pp512", "pp512", "tg128"]


def test_a_batch_that_is_made_anew_runs_once_before_it_counts() -> None:
    repeating, two, four = Repeating(kind="cpu", seconds=0.6), *(Workload("generation", 128, batch=n) for n in (2, 4))
    sampling = repeating.sampling()
    sampling.warm_up([four, GENERATION, two, PREFILL])
    assert [*dict.fromkeys(repeating.ran)] == [replace(each, tokens=16) for each in (GENERATION,)] + [
        PREFILL, *(replace(each, tokens=16) for each in (two, four))
    ]  # fmt: skip
    first_of_two, first_of_four = (repeating.ran.index(replace(each, tokens=16)) for each in (two, four))
    assert repeating.batches == [(first_of_two, 2), (first_of_four, 4)]
    repeating.ran.clear()
    for workload in (four, GENERATION, four, two, PREFILL, two):
        sampling.take(workload)
    expected = ["tg128@b4", "tg128", "tg128@b4", "tg16@b2", "tg128@b2", "pp512", "tg128@b2"]
    assert [str(workload) for workload in repeating.ran] == expected


def test_a_batchs_energy_is_of_all_its_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_work, "ENERGY_SECONDS", 0.02)
    ticks = itertools.chain([100, 108], itertools.repeat(9108))
    repeating = Repeating()
    drawn = measure_energy(repeating.time, [Workload("generation", 16, batch=8)], lambda: next(ticks))
    assert drawn["tg16@b8"].tokens == 16 * 8 * (len(repeating.ran) - 1), "the first one may make the batch anew"


class Remembering:
    """A worker that answers that all is right, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, object]]] = []

    def open(self, *_: object) -> dict[str, object]:
        return {"versions": {}, "load_nanoseconds": 1, "build_nanoseconds": 0}

    def request(self, do: str, _deadline: float, **words: object) -> object:
        self.asked.append((do, words))
        return {"sequence": 2, "agreement": asdict(RIGHT)}


@pytest.mark.parametrize(
    ("name", "known", "asked"),
    [
        ("tg8", True, ["answer"]),
        ("tg8", False, ["keep"]),
        ("tg8@b4", True, ["answer", "keep"]),
        ("tg8@b4", False, ["keep"]),
    ],
)
def test_of_a_batch_sequences_are_kept_beside_the_one_that_the_oracle_knows(
    name: str,
    known: bool,  # noqa: FBT001 - a parameter of the test
    asked: list[str],
) -> None:
    worker, path = Remembering(), Path("logits.npy")
    answers = {name: path} if known else {}
    target = SimpleNamespace(
        case=replace(CASE, protocol="native"), location="", path=path, device=CPU, fewer_threads=None,
        expected=(path,), known_answers=answers,
    )  # fmt: skip
    process = Process(cast("Worker", worker), cast("Target", target), first=True)
    process.check_answer(Workload.parse(name), 3)
    assert [do for do, _ in worker.asked] == asked
    assert worker.asked[-1][1].get("known", known) == known


def test_warming_up_gives_the_seconds_of_a_whole_repetition() -> None:
    each = Repeating(seconds=0.16).sampling().warm_up([PREFILL, GENERATION])
    assert each == {PREFILL: pytest.approx(0.16), GENERATION: pytest.approx(0.16 * 128 / 16)}


@pytest.mark.parametrize(("known", "repetitions"), [(0.16, 1), (0.1, 7)])
def test_a_process_as_fast_as_earlier_ones_is_warm(known: float, repetitions: int) -> None:
    repeating = Repeating(seconds=0.16)
    repeating.sampling().warm_up([PREFILL], known={PREFILL: known})
    assert len(repeating.ran) == repetitions


def test_a_slice_is_a_tenth_of_a_second_of_tokens_and_the_last_slice_makes_a_sample() -> None:
    repeating = Repeating(kind="cpu", seconds=0.16)
    sampling = repeating.sampling()
    sampling.warm_up([GENERATION])  # sixteen tokens of 10 ms
    assert sampling.slice_tokens(GENERATION) == 10
    sampling.take_slice(GENERATION, 0, 100)
    assert sampling.finish().samples == {}
    sampling.take_slice(GENERATION, 100, 28)
    assert sampling.finish().samples == {"tg128": (Sample(0.0, 128, (1,) * 128),)}


def test_the_first_processs_last_planned_sample_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "SystemRandom", None)
    repeating = Repeating(kind="cpu", seconds=0.6)
    sampling = repeating.sampling()
    sampling.warm_up([PREFILL, GENERATION])
    sampling.check_answers({PREFILL: 3, GENERATION: 3})
    repeating.ran.clear()
    for workload in (PREFILL, GENERATION) * 4:
        sampling.take(workload)
    assert repeating.checked == [(5, "pp512 3"), (6, "tg128 3")]


def test_in_later_processes_a_random_sample_is_checked() -> None:
    found: Counter[str] = Counter()
    for _ in range(60):
        repeating = Repeating(kind="cpu", seconds=0.6)
        repeating.first = False
        sampling = repeating.sampling()
        sampling.warm_up([PREFILL])
        sampling.check_answers({PREFILL: 3})
        for _ in range(3):
            sampling.take(PREFILL)
        ((_, sample),) = repeating.checked
        found[sample] += 1
    assert {*found} == {"pp512 1", "pp512 2", "pp512 3"}, "each is missed with a probability of 3e-11"


def test_every_slice_of_a_checked_generation_is_and_its_answer_is_the_last_ones() -> None:
    repeating = Repeating(kind="cpu", seconds=0.6)
    sampling = repeating.sampling()
    sampling.warm_up([GENERATION])
    sampling.check_answers({GENERATION: 3})
    repeating.ran.clear()
    for _ in range(4):
        for start in (0, 64):
            sampling.take_slice(GENERATION, start, 64)
    assert repeating.checked == [(6, "tg128 3")]
