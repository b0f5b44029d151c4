"""Witnesses of a case: each in a worker process of its own, after the timed samples, so that no timing is under one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_rwkvperf.core.work import Reading, WorkCount
from pytest_rwkvperf.measure.process import typed
from pytest_rwkvperf.witnesses import registry
from pytest_rwkvperf.worker import parent
from pytest_rwkvperf.worker.parent import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from pytest_rwkvperf.core.cases import Case, Workload
    from pytest_rwkvperf.core.engine import Device
    from pytest_rwkvperf.measure.process import Target
    from pytest_rwkvperf.witnesses.witness import Witness


@dataclass(frozen=True, slots=True)
class _Answer:
    """A worker's answer: what counted, and what it counted."""

    instrument: str
    instruction_set: str
    count: WorkCount


def suitable(names: Iterable[str], case: Case, device: Device) -> list[Witness]:
    """The named witnesses that can count a case's work; none in the native protocol."""
    if case.protocol != "uniform":
        return []
    return [witness for witness in map(registry.load, names) if witness.suits(case.backend, device)]


def read(target: Target, workloads: Sequence[Workload], witness: Witness, progress: Callable[[str], None]) -> Reading:
    """What a witness counts of workloads.

    Raises:
        RwkvPerfError: the worker failed, or the instrument refused.
    """
    counts: dict[str, WorkCount] = {}
    instrument = instruction_set = ""
    environment = {**target.environment, **witness.variables}
    with Worker(python=target.python, environment=environment, command=witness.command) as worker:
        worker.open(target.location, target.path, target.case, witness.name)
        for workload in workloads:
            progress(f"counting {witness.unit} of {workload}")
            part = str(witness.part(workload, target.case.chunk))
            answer = typed(
                worker.request("count_work", parent.WITNESS_SECONDS, witness=witness.name, workload=part), _Answer
            )
            instrument, instruction_set = answer.instrument, answer.instruction_set
            counts[str(workload)] = answer.count
    return Reading(witness.name, witness.unit, instrument, counts, witness.allowance, instruction_set)
