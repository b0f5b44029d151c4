"""A/B: two workers alive, one running, samples in the order old new new old; the pair of processes is restarted.

A generation is paused every tenth of a second for the other side's, so that both meet the machine in the same mood.

Nothing but the environment may tell the sides apart. So the side that is opened and warmed first, which may get the
better memory, changes from pair to pair; and a pair has an even number of blocks, of which every second one is
mirrored, so that both sides follow each other and themselves equally often.
"""

from __future__ import annotations

import math
import random
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pytest_rwkvperf.core.errors import RwkvPerfError
from pytest_rwkvperf.machine.conditions import Watch
from pytest_rwkvperf.machine.watching import GpuWatch
from pytest_rwkvperf.measure.process import PAIR_SECONDS, Process, running
from pytest_rwkvperf.measure.record import CaseRecord, EndedBy, Pairing, ProcessRun
from pytest_rwkvperf.stats.paired import LOOKS
from pytest_rwkvperf.worker import protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pytest_rwkvperf.core.cases import Workload
    from pytest_rwkvperf.measure.process import Target
    from pytest_rwkvperf.oracle.agreement import Deep


@dataclass(slots=True)
class _Side:
    """One environment's part: its target, and what its processes have left so far."""

    target: Target
    runs: list[ProcessRun]
    versions: dict[str, str]
    deep: Deep | None

    def record(self, ended_by: EndedBy, seconds: float, watch: Watch, gpu: GpuWatch) -> CaseRecord:
        """What has been measured until now; both sides share the time and the conditions."""
        target, conditions = self.target, watch.conditions()
        return CaseRecord(
            target.case,
            target.model,
            target.device,
            self.versions,
            protocol.VERSION,
            self.deep,
            ended_by,
            seconds,
            conditions,
            tuple(self.runs),
            gpu=gpu.conditions(),
            work=target.work,
            ceilings=target.ceilings,
        )


_Member = tuple[_Side, Process]


def measure_pairs(
    new: Target,
    old: Target,
    workloads: Sequence[Workload],
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
    sides = [_Side(target, [], {}, target.known_deep) for target in (new, old)]
    with GpuWatch(new.device) as gpu:
        while True:
            count = len(sides[0].runs) + 1
            progress(f"pair {count}")
            _run_pair(sides[0], sides[1], workloads)
            if count not in LOOKS:
                continue
            elapsed = time.monotonic() - started
            pairing = Pairing(*(side.record("budget", elapsed, watch, gpu) for side in sides))
            if decided(pairing):
                return Pairing(replace(pairing.new, ended_by="verdict"), replace(pairing.old, ended_by="verdict"))
            following = next((look for look in LOOKS if look > count), math.inf)
            if elapsed * following / count > budget_seconds:
                return pairing


def _run_pair(new: _Side, old: _Side, workloads: Sequence[Workload]) -> None:
    index = len(new.runs)
    order = (old, new) if index % 2 == 0 else (new, old)
    with ExitStack() as stack:
        members = []
        for side in order:
            with _named(side):
                process = stack.enter_context(running(side.target, deep_due=side.deep is None and not side.runs))
            side.deep, side.versions = side.deep or process.deep, process.versions
            members.append((side, process))
        _alternate(members, workloads, seed=f"{new.target.case.key} {index}")
        for side, process in members:
            with _named(side):
                side.runs.append(process.finish())


def _alternate(members: Sequence[_Member], workloads: Sequence[Workload], seed: str) -> None:
    """Blocks of a b b a and b a a b in turn for each workload, the workloads of a block in a seeded random order."""
    source = random.Random(seed)
    counts = []
    for side, process in members:
        with _named(side):
            counts.append(process.warm_up(workloads, PAIR_SECONDS))
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
            for side, process in (first, second, second, first):
                with _named(side):
                    process.take(workload)


def _generate(first: _Member, second: _Member, workload: Workload) -> None:
    """One generation of each side, both in slices that alternate as a b b a."""
    size = min(process.slice_tokens(workload) for _, process in (first, second))
    for index, start in enumerate(range(0, workload.tokens, size)):
        for side, process in (first, second) if index % 2 == 0 else (second, first):
            with _named(side):
                process.take_slice(workload, start, min(size, workload.tokens - start))


def block_count(samples: int) -> int:
    """How many blocks, of two samples a side each, hold at least so many samples a side: an even number."""
    return 2 * math.ceil(samples / 4)


@contextmanager
def _named(side: _Side) -> Iterator[None]:
    """Say in whose interpreter it went wrong."""
    try:
        yield
    except RwkvPerfError as error:
        raise type(error)(f"{side.target.python}: {error}") from error
