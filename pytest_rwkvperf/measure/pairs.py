"""A/B: two workers are alive, one runs, samples alternate in the order old new new old; each pair has new processes.

A program that times itself (llama-bench) alternates by whole invocations, one of each side in a pair.

A generation pauses every tenth of a second for the other side's, so that both meet the machine in the same state.

Nothing but the environment may distinguish the sides. So the side that is opened, warmed and timed first, which may get
the better memory, changes from pair to pair, and every second block of a pair is mirrored.

Many cheap pairs decide sooner than a few long ones, since the number of pairs is what the error is estimated from. So
both engines are imported at the same time, warming up ends when a side is as fast as it was in its earlier pairs, and
the first pairs take as few samples as they may; then the number that costs least for the same precision is chosen.
"""

from __future__ import annotations

import math
import random
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

import numpy as np

from pytest_rwkvperf.core import clock
from pytest_rwkvperf.core.errors import RwkvPerfError
from pytest_rwkvperf.machine.conditions import Watch
from pytest_rwkvperf.machine.neighbours import Neighbours, free_threads
from pytest_rwkvperf.machine.watching import GpuWatch
from pytest_rwkvperf.measure import own_tool
from pytest_rwkvperf.measure.process import MeasuredCase, Process, running, started
from pytest_rwkvperf.measure.record import Pairing
from pytest_rwkvperf.measure.sampling import SlicedSampling, sample_count
from pytest_rwkvperf.stats.paired import LOOKS, MIN_PAIRS, Costs, best_blocks
from pytest_rwkvperf.stats.verdicts import MAX_CONTENTION

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from pytest_rwkvperf.core.cases import Workload
    from pytest_rwkvperf.measure.paced_progress import PacedProgress
    from pytest_rwkvperf.measure.process import Target

PAIR_SECONDS = 0.5
"""A process takes samples of a workload for about this long at first: of quick workloads several, so that some are
undisturbed."""

FEWEST_SAMPLES = 2
"""Fewest samples of a workload per process: one block. Without A/B, where an interval is wanted, it is more."""

WAITING_SHARE = 1 / 4
"""Share of the budget that a case may spend on waiting for other processes to leave the processors."""

CHOOSING_PAIRS = 8
"""Pairs before the number of samples is chosen: with fewer the pairs' variance is hardly known."""

MOST_BLOCKS = 20
"""Most blocks of a workload in a pair. More than without A/B: where quick repetitions scatter much, many of them are
cheap."""

_LONGEST_SHARE = 2.0
"""Samples may take this many times as long as opening and warming two processes: beyond it a pair becomes dearer
without becoming much better, and pairs are what the error is estimated from."""

_Member = tuple[MeasuredCase, SlicedSampling]
"""One side of a pair: the case, and the samples of its process."""


def measure_pairs(
    new: Target,
    old: Target,
    workloads: Sequence[Workload],
    *,
    budget_seconds: float,
    decided: Callable[[Pairing], bool],
    progress: PacedProgress,
    fewer_threads: bool = False,
) -> Pairing:
    """Measure pairs until `decided` says so at one of the planned looks, or the budget does not reach to the next one.

    Between two looks nothing ends it: the error rate is kept at the looks alone. With `fewer_threads` both sides use
    only as many threads as other processes leave processors for, and the records say how many.

    Raises:
        RwkvPerfError: a worker failed, or one side's answers are wrong; the message names its build.
    """
    waiting = WAITING_SHARE * budget_seconds
    if fewer_threads and new.case.threads > 1:
        waiting /= 2
        new, old = _with_free_threads(new, old, waiting, progress)
    threads = new.fewer_threads or new.case.threads
    watch, began = Watch(threads), clock.monotonic()
    sides = MeasuredCase(new), MeasuredCase(old)
    with GpuWatch(new.device) as gpu:
        kind = _InvocationPairs if new.case.protocol == "native" else _ProcessPairs
        pairs: _Pairs = kind(*sides, workloads, progress)
        neighbours = Neighbours(threads, MAX_CONTENTION, waiting, progress)
        while True:
            count = len(sides[0].runs) + 1
            neighbours.wait()
            pairs.run()
            progress.pace(count, MIN_PAIRS)
            if count not in LOOKS:
                continue
            elapsed = clock.monotonic() - began
            pairing = Pairing(*(side.record("budget", seconds=elapsed, watch=watch, gpu=gpu) for side in sides))
            if decided(pairing):
                return Pairing(replace(pairing.new, ended_by="verdict"), replace(pairing.old, ended_by="verdict"))
            pairs.learn(pairing)
            next_look = next((look for look in LOOKS if look > count), math.inf)
            if elapsed * next_look / count > budget_seconds:
                return pairing


def _with_free_threads(
    new: Target, old: Target, seconds: float, progress: Callable[[str], None]
) -> tuple[Target, Target]:
    """Both sides with only as many threads as other processes leave processors for; they get `seconds` to leave."""
    wanted = new.case.threads
    free = free_threads(wanted, MAX_CONTENTION, seconds, progress)
    return (replace(new, fewer_threads=free), replace(old, fewer_threads=free)) if free < wanted else (new, old)


class _Pairs(Protocol):
    """Measures one pair after another."""

    def run(self) -> None:
        """Measure one pair."""

    def learn(self, pairing: Pairing) -> None:
        """Choose by the pairs so far how much the next ones measure, where that can be chosen."""


class _ProcessPairs:
    """Runs pairs of processes, and knows from the earlier ones how long the next ones need."""

    def __init__(
        self, new: MeasuredCase, old: MeasuredCase, workloads: Sequence[Workload], progress: Callable[[str], None]
    ) -> None:
        self._new, self._old = new, old
        self._workloads = workloads
        self._progress = progress
        self._blocks = dict.fromkeys(workloads, 1)
        self._overhead: list[float] = []
        self._block_seconds: dict[Workload, list[float]] = {workload: [] for workload in workloads}

    def run(self) -> None:
        """Measure one pair."""
        index, began = len(self._new.runs), clock.monotonic()
        self._say(self._new.opening)
        order = (self._old, self._new) if index % 2 == 0 else (self._new, self._old)
        with started([side.target for side in order]) as workers:
            members: list[_Member] = []
            for side, worker in zip(order, workers, strict=True):
                with _naming(side):
                    members.append((side, SlicedSampling(Process(worker, side.target, first=side.first))))
            for side, sampling in members:
                with _naming(side):
                    seconds = sampling.warm_up(
                        self._workloads, known=_typical_seconds(side, self._workloads), progress=self._say
                    )
                if index == 0:
                    self._take_at_least(seconds)
            for _, sampling in members:
                sampling.check_answers({workload: 2 * self._blocks[workload] for workload in self._checked(sampling)})
            self._overhead.append(clock.monotonic() - began)
            self._alternate(members, seed=f"{self._new.target.case.key} {index}")
            for side, sampling in members:
                with _naming(side):
                    side.add(sampling.process, sampling.finish())

    def _say(self, sentence: str) -> None:
        self._progress(f"pair {len(self._new.runs) + 1}: {sentence}")

    def _checked(self, sampling: SlicedSampling) -> list[Workload]:
        """The workloads of which a timed answer is compared: in the first pair all, later those that cost nothing."""
        first, known = sampling.process.first, sampling.process.target.known_answers
        return [workload for workload in self._workloads if first or str(workload) in known]

    def _take_at_least(self, seconds: Mapping[Workload, float]) -> None:
        """Choose the blocks of the first pairs by how many seconds a repetition takes on the slower side.

        Both sides call this; the larger number counts.
        """
        for workload, each in seconds.items():
            samples = sample_count(each, PAIR_SECONDS, FEWEST_SAMPLES)
            self._blocks[workload] = max(self._blocks[workload], math.ceil(samples / 2))

    def learn(self, pairing: Pairing) -> None:
        """After CHOOSING_PAIRS pairs, choose the number of blocks of each workload that costs least for a precision."""
        if len(self._new.runs) < CHOOSING_PAIRS:
            return
        overhead = float(np.median(self._overhead[1:]))  # the first pair makes the deep check
        for workload in self._workloads:
            seconds = float(np.median(self._block_seconds[workload]))
            most = min(MOST_BLOCKS, int(_LONGEST_SHARE * overhead / len(self._workloads) / seconds))
            costs = Costs(pair=overhead / len(self._workloads), block=seconds)
            self._blocks[workload] = max(1, min(most, best_blocks(pairing.block_differences(workload), costs)))

    def _alternate(self, members: Sequence[_Member], seed: str) -> None:
        """Blocks of a b b a and b a a b in turn for each workload; a block's workloads in a seeded random order."""
        source = random.Random(seed)
        for block in range(max(self._blocks.values())):
            due = [workload for workload in self._workloads if block < self._blocks[workload]]
            source.shuffle(due)
            first, second = members if block % 2 == 0 else members[::-1]
            for workload in due:
                began = clock.monotonic()
                self._say(f"timing {workload}")
                _take_block(first, second, workload)
                self._block_seconds[workload].append(clock.monotonic() - began)


class _InvocationPairs:
    """Runs pairs of invocations of a program that times itself, one after the other, the sides in turn first."""

    def __init__(
        self, new: MeasuredCase, old: MeasuredCase, workloads: Sequence[Workload], progress: Callable[[str], None]
    ) -> None:
        self._new, self._old, self._workloads, self._progress = new, old, workloads, progress

    def run(self) -> None:
        """Measure one pair."""
        order = (self._old, self._new) if len(self._new.runs) % 2 == 0 else (self._new, self._old)
        for side in order:
            with _naming(side), running(side.target, first=side.first) as process:
                side.add(process, own_tool.invoke(process, self._workloads, self._say))

    def learn(self, pairing: Pairing) -> None:
        """The program itself chooses how often it repeats."""

    def _say(self, sentence: str) -> None:
        self._progress(f"pair {min(len(self._new.runs), len(self._old.runs)) + 1}: {sentence}")


def _take_block(first: _Member, second: _Member, workload: Workload) -> None:
    """Two samples of each side."""
    if workload.kind == "generation":
        _generate(first, second, workload)
        _generate(second, first, workload)
        return
    for side, sampling in (first, second, second, first):
        with _naming(side):
            sampling.take(workload)


def _typical_seconds(side: MeasuredCase, workloads: Sequence[Workload]) -> dict[Workload, float]:
    """How long a repetition took in the side's earlier processes, in the median; empty before the first one."""
    if not side.runs:
        return {}
    samples = {
        workload: [sample.nanoseconds for run in side.runs for sample in run.samples[str(workload)]]
        for workload in workloads
    }
    return {workload: float(np.median(times)) / 1e9 for workload, times in samples.items()}


def _generate(first: _Member, second: _Member, workload: Workload) -> None:
    """One generation of each side, both in slices that alternate as a b b a."""
    size = min(sampling.slice_tokens(workload) for _, sampling in (first, second))
    for index, start in enumerate(range(0, workload.tokens, size)):
        for side, sampling in (first, second) if index % 2 == 0 else (second, first):
            with _naming(side):
                sampling.take_slice(workload, start, min(size, workload.tokens - start))


@contextmanager
def _naming(side: MeasuredCase) -> Iterator[None]:
    """Put the name of a side's build in front of the messages of errors in the block."""
    try:
        yield
    except RwkvPerfError as error:
        raise type(error)(f"{side.target.build or side.target.python}: {error}") from error
