"""Pairs of processes that do nothing but write down what is asked of them: order, restarts, looks and budget."""

from __future__ import annotations

import math
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from pytest_rwkvperf.core.cases import Workload
from pytest_rwkvperf.core.errors import BackendError, ParityError, WorkerDiedError
from pytest_rwkvperf.core.samples import Sample
from pytest_rwkvperf.measure import pairs
from pytest_rwkvperf.measure.pairs import CHOOSING_PAIRS, PAIR_SECONDS, WAITING_SHARE
from pytest_rwkvperf.measure.process import Target
from pytest_rwkvperf.measure.record import Pairing
from pytest_rwkvperf.oracle.agreement import Deep
from pytest_rwkvperf.stats.paired import LOOKS, MIN_PAIRS
from tests.unit.building import CASE, CPU, MODEL, RIGHT, make_run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pytest_rwkvperf.core.errors import RwkvPerfError
    from pytest_rwkvperf.measure.record import ProcessRun
    from pytest_rwkvperf.stats.paired import Costs

PREFILL, GENERATION = Workload("prefill", 512), Workload("generation", 128)
DEEP = Deep(RIGHT, 0.0)


class Unheard:
    """Progress that nobody follows."""

    def __call__(self, _sentence: str, /) -> None:
        pass

    def pace(self, done: int, least: int) -> None:
        pass


def target(python: str, known: Deep | None = None) -> Target:
    return Target(CASE, "module:attribute", {}, python, MODEL, Path("model.gguf"), CPU, (), known)


@dataclass
class Stage:
    """Stands for workers and processes: they log (what, who), and time passes by a pair's seconds.

    `seconds` is how long a repetition takes by what warming up says.
    """

    seconds: dict[str, float] = field(default_factory=lambda: {"new": 1.0, "old": 1.0})
    trouble: dict[tuple[str, str], RwkvPerfError] = field(default_factory=dict)
    slices: dict[str, int] = field(default_factory=lambda: {"new": 50, "old": 50})
    pair_seconds: float = 10.0
    warm_seconds: float = 0.0
    sample_seconds: float = 1e-9
    log: list[tuple[str, str]] = field(default_factory=list)
    deep: list[tuple[str, bool]] = field(default_factory=list)
    known: list[dict[Workload, float]] = field(default_factory=list)
    checked: list[dict[str, int]] = field(default_factory=list)
    waits: list[int] = field(default_factory=list)
    clock: float = 100.0

    @contextmanager
    def started(self, targets: Sequence[Target]) -> Iterator[list[str]]:
        try:
            yield [target.python for target in targets]
        finally:
            self.log += [("close", target.python) for target in targets]

    def process(self, who: str, wanted: Target, *, first: bool) -> Process:
        self.say("open", who)
        deep_due = first and wanted.known_deep is None
        self.deep.append((who, deep_due))
        return Process(self, wanted, DEEP if deep_due else None, first=first)

    def say(self, what: str, who: str) -> None:
        self.log.append((what, who))
        if (what, who) in self.trouble:
            raise self.trouble[what, who]

    def whos(self, *words: str) -> str:
        """Who did it, in order, by first letters."""
        return "".join(who[0] for what, who in self.log if what in words)


class Process:
    """A process and its sampling in one."""

    def __init__(self, stage: Stage, wanted: Target, deep: Deep | None, *, first: bool) -> None:
        self.stage, self.who, self.deep, self.process = stage, wanted.python, deep, self
        self.target, self.first = wanted, first
        self.versions = {"engine": f"{self.who}'s version"}
        self.samples: dict[str, list[Sample]] = {}

    def warm_up(
        self, workloads: Sequence[Workload], *, known: dict[Workload, float], progress: Callable[[str], None]
    ) -> dict[Workload, float]:
        progress("warming up")
        self.stage.say("warm", self.who)
        self.stage.known.append(known)
        self.stage.clock += self.stage.warm_seconds
        return dict.fromkeys(workloads, self.stage.seconds[self.who])

    def check_answers(self, counts: dict[Workload, int]) -> None:
        self.stage.checked.append({str(workload): count for workload, count in counts.items()})

    def take(self, workload: Workload) -> None:
        self.stage.say(str(workload), self.who)
        self.stage.clock += self.stage.sample_seconds
        factor = 2 if self.who == "new" else 1
        self.samples.setdefault(str(workload), []).append(Sample(0.0, 1000 * factor, ()))

    def slice_tokens(self, _workload: Workload) -> int:
        return self.stage.slices[self.who]

    def take_slice(self, workload: Workload, start: int, count: int) -> None:
        self.stage.say(f"{workload} {start}+{count}", self.who)
        if start + count >= workload.tokens:
            self.stage.say(str(workload), self.who)
            self.samples.setdefault(str(workload), []).append(Sample(0.0, 1000, (1000,)))

    def finish(self) -> ProcessRun:
        self.stage.clock += self.stage.pair_seconds / 2
        times = {name: [sample.nanoseconds for sample in taken] for name, taken in self.samples.items()}
        return make_run(10**9, 2**30, **times)


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    made = Stage()
    monkeypatch.setattr(pairs, "started", made.started)
    monkeypatch.setattr(pairs, "Neighbours", lambda *_: SimpleNamespace(wait=lambda: made.waits.append(len(made.log))))
    monkeypatch.setattr(pairs, "Process", made.process)
    monkeypatch.setattr(pairs, "SlicedSampling", lambda process: process)
    monkeypatch.setattr(pairs, "clock", SimpleNamespace(monotonic=lambda: made.clock))
    return made


def never(_pairing: Pairing) -> bool:
    return False


def measure(
    budget: float = 0.0,
    decided: Callable[[Pairing], bool] = never,
    workloads: Sequence[Workload] = (PREFILL,),
    known: Deep | None = None,
) -> Pairing:
    sides = target("new"), target("old", known)
    return pairs.measure_pairs(*sides, workloads, budget_seconds=budget, decided=decided, progress=Unheard())


# Order


def test_samples_alternate_old_new_new_old_and_mirrored(stage: Stage) -> None:
    measure()
    assert stage.whos("pp512") == ("onno" + "noon") * (MIN_PAIRS // 2)


def test_every_second_block_of_a_pair_is_mirrored(stage: Stage) -> None:
    stage.seconds = {"new": PAIR_SECONDS / 4, "old": PAIR_SECONDS / 4}
    measure()
    assert stage.whos("pp512") == ("onnonoon" + "noononno") * (MIN_PAIRS // 2)


def test_the_side_that_is_opened_first_changes_from_pair_to_pair(stage: Stage) -> None:
    measure()
    assert stage.whos("open") == stage.whos("warm") == "onno" * (MIN_PAIRS // 2)


def test_both_sides_have_the_same_predecessors_over_two_pairs(stage: Stage) -> None:
    """As often first, as often after the other, as often after oneself."""
    stage.seconds = {"new": PAIR_SECONDS / 5, "old": PAIR_SECONDS / 9}
    measure()
    taken = stage.whos("pp512")
    length = len(taken) // MIN_PAIRS
    one_pair_each = [taken[at : at + length] for at in range(0, len(taken), length)]
    following = Counter(step for pair in one_pair_each for step in pairwise(pair))
    assert taken.count("o") == taken.count("n")
    assert following["o", "o"] == following["n", "n"]
    assert following["o", "n"] == following["n", "o"]


def test_both_are_warm_before_either_is_timed_and_both_live_until_both_are_done(stage: Stage) -> None:
    measure()
    one_pair = [what for what, _ in stage.log[: len(stage.log) // MIN_PAIRS]]
    assert one_pair == ["open", "open", "warm", "warm", *["pp512"] * 4, "close", "close"]


def test_neighbours_are_waited_for_before_each_pair(stage: Stage) -> None:
    measure()
    assert len(stage.waits) == MIN_PAIRS
    assert all(stage.log[at][0] == "open" for at in stage.waits)


def test_every_pair_has_processes_of_its_own(stage: Stage) -> None:
    pairing = measure()
    assert len(pairing.new.runs) == len(pairing.old.runs) == MIN_PAIRS
    assert stage.whos("open").count("o") == stage.whos("close").count("o") == MIN_PAIRS


def test_workloads_take_turns_in_an_order_that_is_seeded(stage: Stage) -> None:
    measure(workloads=(PREFILL, GENERATION))
    order = [what for what, _ in stage.log if what in ("pp512", "tg128")]
    blocks = [tuple(order[at : at + 4]) for at in range(0, len(order), 4)]
    assert set(blocks) == {("pp512",) * 4, ("tg128",) * 4}
    twos = set(zip(blocks[::2], blocks[1::2], strict=True))
    assert all(first != second for first, second in twos)
    assert len(twos) == 2
    first = [*stage.log]
    stage.log.clear()
    measure(workloads=(PREFILL, GENERATION))
    assert stage.log == first


def test_a_generation_pauses_for_the_other_sides_and_the_faster_side_sets_how_often(stage: Stage) -> None:
    stage.slices = {"new": 50, "old": 60}
    measure(workloads=(GENERATION,))
    slices = [(what.removeprefix("tg128 "), who[0]) for what, who in stage.log if "+" in what][:12]
    assert slices == [
        *(("0+50", "o"), ("0+50", "n"), ("50+50", "n"), ("50+50", "o"), ("100+28", "o"), ("100+28", "n")),
        *(("0+50", "n"), ("0+50", "o"), ("50+50", "o"), ("50+50", "n"), ("100+28", "n"), ("100+28", "o")),
    ]


@pytest.mark.usefixtures("stage")
def test_tokens_are_compared_with_those_of_the_same_place() -> None:
    pairing = measure()
    tokens = {"new": (10, 40, 10), "old": (10, 20, 10)}
    sides = [
        replace(side, runs=tuple(replace(run, samples={"tg3": (Sample(0.0, 60, row),)}) for run in side.runs))
        for side, row in ((pairing.new, tokens["new"]), (pairing.old, tokens["old"]))
    ]
    ratios = Pairing(*sides).log_ratios(Workload("generation", 3))
    assert {round(one.mean, 6) for one in ratios} == {round(-math.log(2) / 3, 6)}


def test_quick_workloads_have_more_samples_and_the_quicker_side_decides(stage: Stage) -> None:
    stage.seconds = {"new": 1.0, "old": PAIR_SECONDS / 5}
    pairing = measure()
    assert {len(run.samples["pp512"]) for side in (pairing.new, pairing.old) for run in side.runs} == {6}


def test_a_process_is_warm_when_it_is_as_fast_as_the_sides_earlier_ones(stage: Stage) -> None:
    measure()
    assert stage.known[:2] == [{}, {}]
    assert stage.known[2:4] == [{PREFILL: 2e-6}, {PREFILL: 1e-6}]


def test_a_timed_answer_is_compared_in_the_first_pair_and_later_where_the_right_one_is_known(stage: Stage) -> None:
    known = replace(target("new"), known_answers={"pp512": Path("right.npy")})
    pairs.measure_pairs(known, target("old"), (PREFILL,), budget_seconds=0, decided=never, progress=Unheard())
    # Each pair asks the side that was opened first, which takes turns: the old one, then the new one.
    all_, none = {"pp512": 2}, dict[str, int]()
    assert stage.checked == [all_, all_, all_, none, none, all_, all_, none]


def test_the_number_of_blocks_is_chosen_by_costs_and_variances(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, Costs]] = []

    def best(differences: Sequence[Sequence[float]], costs: Costs) -> int:
        asked.append((len(differences), costs))
        return 3

    monkeypatch.setattr(pairs, "best_blocks", best)
    stage.pair_seconds, stage.warm_seconds, stage.sample_seconds = 0.0, 3.0, 0.5
    pairing = measure(1e9)
    taken = [len(run.samples["pp512"]) for run in pairing.new.runs]
    assert taken == [2] * CHOOSING_PAIRS + [6] * (LOOKS[-1] - CHOOSING_PAIRS)
    ((count, costs), *_) = asked
    assert count == CHOOSING_PAIRS
    assert (costs.pair, costs.block) == pytest.approx((6.0, 2.0))


# What is left


def test_each_side_keeps_its_own_samples_and_versions(stage: Stage) -> None:
    pairing = measure()
    assert stage.pair_seconds == 10
    assert pairing.new.versions == {"engine": "new's version"}
    assert pairing.old.versions == {"engine": "old's version"}
    assert {time for row in pairing.new.times(PREFILL) for time in row} == {2000}
    assert {time for row in pairing.old.times(PREFILL) for time in row} == {1000}
    # New takes twice as long: half the speed.
    assert [one.fast for one in pairing.log_ratios(PREFILL)] == pytest.approx([-0.693147] * MIN_PAIRS, rel=1e-6)
    assert pairing.new.seconds == pairing.old.seconds == pytest.approx(10 * MIN_PAIRS)


def test_the_deep_check_is_each_sides_own_and_made_once(stage: Stage) -> None:
    pairing = measure()
    assert [due for who, due in stage.deep if who == "old"] == [True] + [False] * (MIN_PAIRS - 1)
    assert [due for who, due in stage.deep if who == "new"] == [True] + [False] * (MIN_PAIRS - 1)
    assert pairing.new.deep == pairing.old.deep == DEEP


def test_a_deep_check_that_is_remembered_for_one_side_is_made_for_the_other(stage: Stage) -> None:
    measure(known=DEEP)
    assert {who for who, due in stage.deep if due} == {"new"}


# Enough


@pytest.mark.parametrize("budget", [0.0, 1.0, 59.9])
def test_the_least_number_of_pairs_goes_before_the_budget(stage: Stage, budget: float) -> None:
    assert stage.pair_seconds * LOOKS[1] > budget
    pairing = measure(budget)
    assert (len(pairing.new.runs), pairing.new.ended_by, pairing.old.ended_by) == (MIN_PAIRS, "budget", "budget")


@pytest.mark.parametrize(
    ("budget", "count"), [(60.1, 6), (79.9, 6), (80.1, 8), (119.0, 10), (199.9, 16), (200.1, 20), (1e6, 40)]
)
@pytest.mark.usefixtures("stage")
def test_a_look_that_the_budget_does_not_reach_is_not_begun(budget: float, count: int) -> None:
    assert len(measure(budget).new.runs) == count


def test_a_verdict_is_looked_for_at_the_looks_alone(stage: Stage) -> None:
    looked: list[int] = []

    def watching(pairing: Pairing) -> bool:
        looked.append(len(pairing.new.runs))
        return False

    assert measure(1e9, watching).new.ended_by == "budget"
    assert looked == [*LOOKS]
    assert stage.whos("open").count("n") == LOOKS[-1]


@pytest.mark.usefixtures("stage")
def test_a_verdict_ends_it() -> None:
    pairing = measure(1e9, lambda pairing: len(pairing.new.runs) >= 8)
    assert (len(pairing.new.runs), pairing.new.ended_by, pairing.old.ended_by) == (8, "verdict", "verdict")


# Trouble


@pytest.mark.parametrize("who", ["new", "old"])
@pytest.mark.parametrize(
    ("what", "error"),
    [
        ("open", ParityError("a wrong answer")),
        ("warm", BackendError("out of memory")),
        ("pp512", WorkerDiedError("the worker was killed by SIGSEGV")),
    ],
)
def test_an_error_names_its_environment_and_ends_both_workers(
    stage: Stage, who: str, what: str, error: RwkvPerfError
) -> None:
    stage.trouble[what, who] = error
    with pytest.raises(type(error), match=f"^{who}: {error}$"):
        measure()
    assert sorted(stage.whos("close")) == ["n", "o"]


def test_an_interrupt_ends_both(stage: Stage) -> None:
    stage.trouble["pp512", "new"] = KeyboardInterrupt()  # type: ignore[assignment]  # as Ctrl-C raises it anywhere
    with pytest.raises(KeyboardInterrupt):
        measure()
    assert sorted(stage.whos("close")) == ["n", "o"]


@pytest.mark.usefixtures("stage")
def test_both_sides_use_fewer_threads_where_that_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, float]] = []

    def free(threads: int, _limit: float, most_seconds: float, _progress: object) -> int:
        asked.append((threads, most_seconds))
        return 1

    monkeypatch.setattr(pairs, "free_threads", free)
    new, old = (replace(target(name), case=replace(CASE, threads=2)) for name in ("new", "old"))
    pairing = pairs.measure_pairs(
        new, old, (PREFILL,), budget_seconds=80, decided=never, progress=Unheard(), fewer_threads=True
    )
    assert asked == [(2, WAITING_SHARE * 80 / 2)]
    assert [(side.fewer_threads, side.case.threads) for side in (pairing.new, pairing.old)] == [(1, 2)] * 2
