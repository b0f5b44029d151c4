"""Witnesses of a case: each in a worker process of its own, after the timed samples, so that no timing is under one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pytest_rwkvperf.core.errors import RwkvPerfError
from pytest_rwkvperf.core.work import Reading, WorkCount
from pytest_rwkvperf.measure.process import typed
from pytest_rwkvperf.measure.sampling import warmup_for
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
    """The worker's: what counted, and what it counted."""

    instrument: str
    instruction_set: str
    count: WorkCount


def suitable(names: Iterable[str], case: Case, device: Device) -> list[Witness]:
    """Those of the named witnesses that can count the case's work; none of an engine's own tool."""
    if case.protocol != "uniform":
        return []
    return [witness for witness in map(registry.load, names) if witness.suits(case.backend, device)]


def read(
    target: Target, workloads: Sequence[Workload], witness: Witness, progress: Callable[[str], None]
) -> Reading | str:
    """What a witness counts of a case's workloads, or why it could not, as a sentence."""
    if absence := witness.absence():
        return absence
    counts: dict[str, WorkCount] = {}
    instrument = instruction_set = ""
    try:
        with Worker(
            python=target.python,
            environment={**target.environment, **witness.variables},
            command=witness.command,
        ) as worker:
            worker.open(target.location, target.path, target.case, witness.name)
            for workload in workloads:
                progress(f"counting {witness.unit} of {workload}")
                asked = str(counted_part(workload, target.case.chunk))
                answer = typed(
                    worker.request("count_work", parent.SAMPLE_SECONDS, witness=witness.name, workload=asked), _Answer
                )
                instrument, instruction_set = answer.instrument, answer.instruction_set
                counts[str(workload)] = answer.count
    except RwkvPerfError as error:
        return str(error).partition("\n")[0].removesuffix("; its last lines:")
    return Reading(witness.name, witness.unit, instrument, counts, witness.allowance, instruction_set)


def counted_part(workload: Workload, chunk: int) -> Workload:
    """What of a workload is counted: of a prefill one chunk, of a generation some tokens; the rest is the same work."""
    part = warmup_for(workload)
    return replace(part, tokens=min(part.tokens, chunk)) if part.kind == "prefill" else part
