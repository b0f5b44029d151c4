"""A/B: two workers are alive, one runs, samples alternate in the order old new new old; each pair has new processes.

A generation pauses every tenth of a second for the other side's, so that both meet the machine in the same state.

Nothing but the environment may distinguish the sides. So the side that is opened and warmed first, which may get the
better memory, changes from pair to pair; and a pair has an even number of blocks, of which every second one is
mirrored, so that both sides follow each other and themselves equally often.
"""

from __future__ import annotations

import math
import random
import time
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_rwkvperf.core.errors import RwkvPerfError
from pytest_rwkvperf.machine.conditions import Watch
from pytest_rwkvperf.machine.watching import GpuWatch
from pytest_rwkvperf.measure.process import MeasuredCase, running
from pytest_rwkvperf.measure.record import Pairing
from pytest_rwkvperf.measure.sampling import SlicedSampling
from pytest_rwkvperf.stats.paired import LOOKS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pytest_rwkvperf.core.cases import Workload
    from pytest_rwkvperf.measure.process import Target

PAIR_SECONDS = 2.0
"""A process takes samples of a workload for about this long, within the limits of `sampling`: twice as long as without
A/B. Noise within a process dominates, so take more samples per process; opening and warming two processes takes as long
as these samples (recorded pairs, benchmarks/ab)."""

_Member = tuple[MeasuredCase, SlicedSampling]


def measure_pairs(
    new: Target,
    old: Target,
    workloads: Sequence[Workload],
    *,
    budget_seconds: float,
    decided: Callable[[Pairing], bool],
    progress: Callable[[str], None],
) -> Pairing:
    """Measure pairs until `decided` says so at one of the planned looks, or the budget does not reach to the next one.

    Between two looks nothing ends it: the error rate is kept at the looks alone.

    Raises:
        RwkvPerfError: a worker failed, or one side's answers are wrong; the message names its interpreter.
    """
    watch, started = Watch(new.case.threads), time.monotonic()
    sides = MeasuredCase(new), MeasuredCase(old)
    with GpuWatch(new.device) as gpu:
        while True:
            count = len(sides[0].runs) + 1
            progress(f"pair {count}")
            _run_pair(*sides, workloads)
            if count not in LOOKS:
                continue
            elapsed = time.monotonic() - started
            pairing = Pairing(*(side.record("budget", seconds=elapsed, watch=watch, gpu=gpu) for side in sides))
            if decided(pairing):
                return Pairing(replace(pairing.new, ended_by="verdict"), replace(pairing.old, ended_by="verdict"))
            next_look = next((look for look in LOOKS if look > count), math.inf)
            if elapsed * next_look / count > budget_seconds:
                return pairing


def _run_pair(new: MeasuredCase, old: MeasuredCase, workloads: Sequence[Workload]) -> None:
    index = len(new.runs)
    members: list[_Member] = []
    with ExitStack() as stack:
        for side in (old, new) if index % 2 == 0 else (new, old):
            with _named(side):
                process = stack.enter_context(running(side.target, first=side.first))
            members.append((side, SlicedSampling(process)))
        _alternate(members, workloads, seed=f"{new.target.case.key} {index}")
        for side, sampling in members:
            with _named(side):
                side.add(sampling.process, sampling.finish())


def _alternate(members: Sequence[_Member], workloads: Sequence[Workload], seed: str) -> None:
    """Blocks of a b b a and b a a b in turn for each workload, the workloads of a block in a seeded random order."""
    source = random.Random(seed)
    counts = []
    for side, sampling in members:
        with _named(side):
            counts.append(sampling.warm_up(workloads, PAIR_SECONDS))
    blocks = {workload: block_count(max(count[workload] for count in counts)) for workload in workloads}
    for block in range(max(blocks.values())):
        due = [workload for workload in workloads if block < blocks[workload]]
        source.shuffle(due)
        first, second = members if block % 2 == 0 else members[::-1]
        for workload in due:
            if workload.kind == "generation":
                _generate(first, second, workload)
                _generate(second, first, workload)
                continue
            for side, sampling in (first, second, second, first):
                with _named(side):
                    sampling.take(workload)


def _generate(first: _Member, second: _Member, workload: Workload) -> None:
    """One generation of each side, both in slices that alternate as a b b a."""
    size = min(sampling.slice_tokens(workload) for _, sampling in (first, second))
    for index, start in enumerate(range(0, workload.tokens, size)):
        for side, sampling in (first, second) if index % 2 == 0 else (second, first):
            with _named(side):
                sampling.take_slice(workload, start, min(size, workload.tokens - start))


def block_count(samples: int) -> int:
    """How many blocks, of two samples a side each, hold at least so many samples a side: an even number."""
    return 2 * math.ceil(samples / 4)


@contextmanager
def _named(side: MeasuredCase) -> Iterator[None]:
    """Name the interpreter in which something failed."""
    try:
        yield
    except RwkvPerfError as error:
        raise type(error)(f"{side.target.python}: {error}") from error
