"""A/B: two workers alive, one running, samples in the order old new new old; the pair of processes is restarted."""

from __future__ import annotations

import random
import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pytest_rwkvperf.machine.conditions import Watch
from pytest_rwkvperf.measure import protocol
from pytest_rwkvperf.measure.process import Process, running
from pytest_rwkvperf.measure.record import CaseRecord, EndedBy, Pairing, Run
from pytest_rwkvperf.stats.paired import LOOKS, MAX_PAIRS, MIN_PAIRS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pytest_rwkvperf.cases import Workload
    from pytest_rwkvperf.measure.process import Target
    from pytest_rwkvperf.oracle.check import Deep


@dataclass(slots=True)
class _Side:
    """One environment's part: its target, and what its processes have left so far."""

    target: Target
    runs: list[Run]
    versions: dict[str, str]
    deep: Deep | None

    def record(self, ended_by: EndedBy, seconds: float, watch: Watch) -> CaseRecord:
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
        )


def measure_pairs(
    new: Target,
    old: Target,
    workloads: Sequence[Workload],
    budget_seconds: float,
    decided: Callable[[Pairing], bool],
    progress: Callable[[str], None],
) -> Pairing:
    """Measure pairs until `decided` says so at one of the planned looks, or the budget is spent.

    Raises:
        RwkvPerfError: a worker failed, or one side's answers are wrong.
    """
    watch, started = Watch(), time.monotonic()
    sides = [_Side(target, [], {}, target.known_deep) for target in (new, old)]
    while True:
        count = len(sides[0].runs) + 1
        progress(f"pair {count}")
        _run_pair(sides[0], sides[1], workloads)
        elapsed = time.monotonic() - started
        spent = count >= MIN_PAIRS and elapsed * (1 + 1 / count) > budget_seconds
        last = spent or count >= MAX_PAIRS
        if last or count in LOOKS:
            pairing = Pairing(*(side.record("budget", elapsed, watch) for side in sides))
            if decided(pairing):
                return Pairing(replace(pairing.new, ended_by="verdict"), replace(pairing.old, ended_by="verdict"))
            if last:
                return pairing


def _run_pair(new: _Side, old: _Side, workloads: Sequence[Workload]) -> None:
    with ExitStack() as stack:
        processes = []
        for side in (new, old):
            due = side.deep is None and not side.runs
            process = stack.enter_context(running(side.target, deep_due=due))
            processes.append(process)
            side.deep, side.versions = side.deep or process.deep, process.versions
        _alternate(processes[0], processes[1], workloads, seed=f"{new.target.case.key} {len(new.runs)}")
        for side, process in zip((new, old), processes, strict=True):
            side.runs.append(process.finish())


def _alternate(new: Process, old: Process, workloads: Sequence[Workload], seed: str) -> None:
    """Blocks of old new new old (or its mirror, in turn) for each workload, the workloads in a seeded random order."""
    source = random.Random(seed)
    counts = [process.warm_up(workloads) for process in (old, new)]
    blocks = {workload: -(-max(count[workload] for count in counts) // 2) for workload in workloads}
    for block in range(max(blocks.values())):
        members = [workload for workload in workloads if block < blocks[workload]]
        source.shuffle(members)
        first, second = (old, new) if block % 2 == 0 else (new, old)
        for workload in members:
            for process in (first, second, second, first):
                process.take(workload)
