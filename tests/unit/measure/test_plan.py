"""The sampling plan: when a warm-up is over, how many samples, in which order, and when it is enough."""

from __future__ import annotations

import math
from collections import Counter
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from pytest_rwkvperf.core.cases import Workload
from pytest_rwkvperf.core.engine import Device
from pytest_rwkvperf.measure import plan, sampling
from pytest_rwkvperf.measure.plan import ENOUGH_PROCESSES, MAX_PROCESSES, MIN_PROCESSES, Plan, half_width, schedule
from pytest_rwkvperf.measure.process import MeasuredCase
from pytest_rwkvperf.measure.sampling import MAX_SAMPLES, MIN_SAMPLES, sample_count, steady, warmup_for
from pytest_rwkvperf.stats.spread import Spread
from tests.unit.building import CASE, make_run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_rwkvperf.machine.cupti import DeviceTime
    from pytest_rwkvperf.machine.watching import GpuWatch
    from pytest_rwkvperf.measure.process import Target
    from pytest_rwkvperf.measure.record import Energy, ProcessRun

PREFILL, GENERATION, DEEP = Workload("prefill", 512), Workload("generation", 128), Workload("generation", 128, 4096)
WORKLOADS = st.builds(
    Workload, st.sampled_from(["prefill", "generation"]), st.integers(1, 9_999), st.integers(0, 9_999)
)
SECONDS = st.floats(1e-6, 1e4)


# Warm-up


@pytest.mark.parametrize(
    ("durations", "over"),
    [
        ([], False),
        ([20.0], False),
        ([0.6, 0.6], True),
        ([0.4, 0.5], False),  # agree within 10 % no more, and too short
        ([0.4, 0.4], False),
        ([0.4, 0.4, 0.4], True),
        ([0.5, 0.6], False),
        ([1.0, 1.1], True),
        ([1.0, 1.11], False),
        ([1.1, 1.0], True),
        ([1.11, 1.0], False),
        ([9.0, 5.0], False),
        ([9.0, 6.0], True),  # the limit of 15 s
        ([8.0, 0.001], False),
        ([0.01, 0.01, 0.001, 0.001], False),  # an H200's first two agree and are slow: not over before a second
    ],
)
def test_a_warm_up_is_over_after_a_second_of_steady_work_or_at_the_limit(durations: list[float], *, over: bool) -> None:
    assert steady(durations) is over


@given(st.lists(SECONDS, min_size=2, max_size=40), st.floats(1.2, 100))
def test_only_the_last_two_need_to_agree(durations: list[float], factor: float) -> None:
    total = sum(durations)
    calm = [*durations, 1.0, 1.0]
    assert steady(calm)
    assert steady([*durations, 1.0, factor]) == (total + 1.0 + factor >= sampling.WARMUP_LIMIT_SECONDS)


def test_what_warms_a_workload() -> None:
    assert warmup_for(PREFILL) == PREFILL
    assert warmup_for(Workload("prefill", 512, 64)) == Workload("prefill", 512, 64)
    assert warmup_for(GENERATION) == Workload("generation", sampling.WARMUP_TOKENS)
    assert warmup_for(DEEP) == Workload("generation", sampling.WARMUP_TOKENS, DEEP.depth)
    assert warmup_for(Workload("generation", 3)) == Workload("generation", 3)


# Samples


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0.25, 4),
        (0.26, 4),
        (0.24, 5),
        (100.0, MIN_SAMPLES),
        (1e-9, MAX_SAMPLES),
    ],
)
def test_a_process_takes_samples_for_about_a_second(seconds: float, expected: int) -> None:
    assert sample_count(seconds) == expected


@given(SECONDS, SECONDS)
def test_the_number_of_samples_is_bounded_and_falls_with_their_length(one: float, other: float) -> None:
    short, long = sorted((one, other))
    assert MIN_SAMPLES <= sample_count(long) <= sample_count(short) <= MAX_SAMPLES


# Order

COUNTS = st.dictionaries(WORKLOADS, st.integers(MIN_SAMPLES, MAX_SAMPLES), min_size=1, max_size=5)


@given(COUNTS, st.text(max_size=5))
def test_every_workload_gets_its_samples(counts: dict[Workload, int], seed: str) -> None:
    assert Counter(schedule(counts, seed)) == counts


@given(COUNTS, st.text(max_size=5))
def test_every_block_holds_each_workload_once_until_it_has_its_samples(counts: dict[Workload, int], seed: str) -> None:
    order = schedule(counts, seed)
    for block in range(max(counts.values())):
        members = {workload for workload, count in counts.items() if block < count}
        head, order = order[: len(members)], order[len(members) :]
        assert set(head) == members
    assert order == []


@given(COUNTS, st.text(max_size=5))
def test_an_order_can_be_repeated_by_its_seed(counts: dict[Workload, int], seed: str) -> None:
    assert schedule(counts, seed) == schedule(counts, seed)


def test_the_order_is_that_of_every_earlier_run() -> None:
    order = schedule({PREFILL: 3, GENERATION: 3}, "case 0")
    assert [workload.kind[0] for workload in order] == ["g", "p", "g", "p", "g", "p"]


def test_blocks_and_processes_differ_in_their_order() -> None:
    counts = {PREFILL: 10, GENERATION: 10, DEEP: 10}
    orders = [schedule(counts, f"case {index}") for index in range(20)]
    assert len({tuple(order) for order in orders}) == 20
    # Each workload is first in about a third of 200 blocks; 3 standard deviations of that count are 20.
    first = Counter(order[start] for order in orders for start in range(0, 30, 3))
    assert all(abs(first[workload] - 200 / 3) < 20 for workload in counts)


class Telling:
    """A process and its sampling in one, which does nothing but note what it is asked."""

    def __init__(self, asked: list[str], device: Device) -> None:
        self.asked = asked
        self.target = SimpleNamespace(device=device)
        self.process = self.worker = self
        self.time = self.settling = lambda _workload: None
        self.versions: dict[str, str] = {}
        self.deep = None

    def warm_up(self, workloads: list[Workload], **_: object) -> dict[Workload, float]:
        self.asked.append("warm up")
        return dict.fromkeys(workloads, 100.0)

    def check_answers(self, _counts: dict[Workload, int]) -> None:
        """Nothing to compare."""

    def take(self, workload: Workload, _progress: object) -> None:
        self.asked.append(str(workload))

    def measure_energy(self, *_: object) -> dict[str, Energy]:
        self.asked.append("energy")
        return {}

    def finish(self) -> ProcessRun:
        self.asked.append("finish")
        return make_run(pp512=[1])

    def record_device_time(self, *_: object) -> tuple[dict[str, DeviceTime], str]:
        self.asked.append("device time")
        return {}, "refused"


class Seeing:
    """A GPU's watch, which notes when it is paused."""

    def __init__(self, asked: list[str]) -> None:
        self.asked = asked
        self.gpu = SimpleNamespace(millijoules=lambda: 0)
        self.unrecorded = ""

    def own_bytes(self) -> int:
        return 0

    @contextmanager
    def paused(self) -> Iterator[None]:
        self.asked.append("pause")
        yield
        self.asked.append("resume")


@pytest.mark.parametrize(
    ("device", "index", "expected"),
    [
        ("cuda:1", 0, ["warm up", "pp512", "energy", "finish", "pause", "device time", "end", "resume"]),
        ("cuda:1", 1, ["warm up", "pp512", "finish", "end"]),
        ("vulkan:0", 0, ["warm up", "pp512", "energy", "finish", "end"]),
    ],
)
def test_device_time_is_recorded_after_everything_else(
    monkeypatch: pytest.MonkeyPatch, device: str, index: int, expected: list[str]
) -> None:
    asked: list[str] = []
    telling = Telling(asked, Device(device, "GPU", "gpu"))

    @contextmanager
    def running(*_what: object, **_more: object) -> Iterator[Telling]:
        yield telling
        asked.append("end")

    monkeypatch.setattr(plan, "running", running)
    monkeypatch.setattr(plan, "Sampling", lambda process, *_: process)
    monkeypatch.setattr(plan, "sample_count", lambda _seconds: 1)
    monkeypatch.setattr(plan, "measure_energy", telling.measure_energy)
    monkeypatch.setattr(plan, "record_device_time", telling.record_device_time)
    target = SimpleNamespace(case=CASE, known_deep=None, expected=())
    seeing = Seeing(asked)
    measured = MeasuredCase(cast("Target", target), [make_run()] * index)
    plan.run_process(measured, [PREFILL], lambda _sentence: None, gpu=cast("GpuWatch", seeing))
    assert asked == expected
    assert seeing.unrecorded == ("refused" if "device time" in expected else "")


# Enough


def test_the_half_width_is_that_of_students_interval() -> None:
    times = [1.00e9, 1.03e9, 1.01e9]
    runs = [make_run(pp512=[int(time)] * 3) for time in times]
    logs = [math.log(time) for time in times]
    _, high = stats.t.interval(0.95, 2, loc=0, scale=stats.sem(logs))
    assert half_width(CASE, runs, PREFILL, Spread(1e-12, 1e-6)) == pytest.approx(math.exp(high) - 1, rel=1e-4)
    assert half_width(CASE, runs[:1], PREFILL) > 1e100


def steadily(count: int) -> list[ProcessRun]:
    return [make_run(pp512=[1_000_000] * 3, tg128=[1_000_000] * 3) for _ in range(count)]


def enough(runs: list[ProcessRun], elapsed: float, *, precision: float = 0.02, budget: float = 100.0) -> str | None:
    limits = Plan(precision, budget)
    return plan._enough(len(runs), widths_of(runs, limits), limits, elapsed)


def widths_of(runs: list[ProcessRun], limits: Plan) -> dict[Workload, float]:
    return plan._half_widths(CASE, runs, [PREFILL, GENERATION], limits)


def apart(count: int) -> list[ProcessRun]:
    """Processes whose prefills are half as fast as each other's in turn."""
    return [make_run(pp512=[10**6 << (number % 2)] * 3, tg128=[10**6] * 3) for number in range(count)]


@pytest.mark.parametrize(
    ("processes", "elapsed", "left", "others", "ended"),
    [
        (apart(3), 31.0, 100.0, 4, "budget"),  # the others need 4 x 31 s for their minimum
        (apart(3), 31.0, 200.0, 4, None),  # 76 s are left for this case
        (apart(3), 80.0, 200.0, 1, "budget"),  # a fourth process would pass half of what is left
        (apart(3), 70.0, 200.0, 1, None),
        (steadily(3), 70.0, 200.0, 1, "budget"),  # narrow enough: its share ends it
        (apart(3), 70.0, 200.0, 0, "budget"),  # alone, its share is all there is
    ],
    ids=["minimum of others", "room", "half", "below half", "believable", "alone"],
)
def test_a_case_whose_interval_is_beyond_belief_takes_time_of_later_ones(
    processes: list[ProcessRun], elapsed: float, left: float, others: int, ended: str | None
) -> None:
    limits = Plan(0.001, 40.0, left_seconds=left, others=others)
    assert plan._enough(len(processes), widths_of(processes, limits), limits, elapsed) == ended


def test_what_is_known_of_the_machine_narrows_the_interval() -> None:
    runs = apart(3)
    known = Plan(0.02, 100.0, process_spread={"prefill": Spread(0.01**2, 10.0)})
    unknown = Plan(0.02, 100.0)
    assert widths_of(runs, known)[PREFILL] < widths_of(runs, unknown)[PREFILL] / 2
    assert widths_of(runs, known)[GENERATION] == widths_of(runs, unknown)[GENERATION]


def test_repetitions_with_slow_handovers_do_not_widen_the_interval() -> None:
    quick = make_run(pp512=[10**6, 10**6], tg128=[10**6])
    placed = [replace(quick, handovers={"pp512": (70_000, 70_000), "tg128": (70_000,)}) for _ in range(2)]
    mixed = replace(
        make_run(pp512=[10**6, 3 * 10**6, 3 * 10**6], tg128=[10**6]),
        handovers={"pp512": (70_000, 150_000, 150_000), "tg128": (70_000,)},
    )
    limits = Plan(0.02, 100.0)
    assert widths_of([*placed, mixed], limits)[PREFILL] == widths_of([*placed, placed[0]], limits)[PREFILL]


def test_workloads_that_are_precise_get_the_fewest_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    telling = Telling(asked, Device("cpu", "CPU", "cpu"))
    monkeypatch.setattr(telling, "warm_up", lambda workloads, **_: dict.fromkeys(workloads, 0.01))

    @contextmanager
    def running(*_what: object, **_more: object) -> Iterator[Telling]:
        yield telling

    monkeypatch.setattr(plan, "running", running)
    monkeypatch.setattr(plan, "Sampling", lambda process, *_: process)
    measured = MeasuredCase(cast("Target", SimpleNamespace(case=CASE, known_deep=None, expected=())), [make_run()])
    plan.run_process(measured, [PREFILL, GENERATION], lambda _sentence: None, precise={GENERATION})
    assert (asked.count("pp512"), asked.count("tg128")) == (10, 3)


@pytest.mark.parametrize("elapsed", [0.0, 1e6])
def test_the_minimum_goes_before_the_budget_and_the_precision(elapsed: float) -> None:
    for count in range(1, MIN_PROCESSES):
        assert enough(steadily(count), elapsed) is None


def test_processes_that_agree_are_enough_from_the_fifth() -> None:
    for count in range(MIN_PROCESSES, ENOUGH_PROCESSES):
        assert enough(steadily(count), 1.0) is None
    assert enough(steadily(ENOUGH_PROCESSES), 1.0) == "precision"


def test_every_workload_must_be_precise() -> None:
    restless = [make_run(pp512=[10**6] * 3, tg128=[10**6 + number * 10**5] * 3) for number in range(ENOUGH_PROCESSES)]
    assert enough(restless, 1.0) is None
    assert enough(restless, 1.0, precision=0.5) == "precision"


def test_a_process_that_would_end_past_the_budget_is_not_begun() -> None:
    runs = steadily(4)
    # Four took 80 s, so that a fifth would end at 100 s.
    assert enough(runs, 80.0) is None
    assert enough(runs, 80.1) == "budget"


def test_the_number_of_processes_is_limited() -> None:
    def restless(count: int) -> list[ProcessRun]:
        return [make_run(pp512=[10**6 << (number % 2)] * 3, tg128=[10**6]) for number in range(count)]

    assert enough(restless(MAX_PROCESSES - 1), 1.0, budget=1e9) is None
    assert enough(restless(MAX_PROCESSES), 1.0, budget=1e9) == "budget"


def test_progress_says_how_precise_it_is_so_far() -> None:
    limits = Plan(0.02, 100.0)
    for count in (0, 1):
        assert plan._precision_so_far(widths_of(steadily(count), limits)) == ""
    assert plan._precision_so_far({PREFILL: 0.0213, GENERATION: 0.5}) == " (intervals up to ± 50.0%)"
