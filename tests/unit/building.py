"""Records as a run would leave them, for tests of what is done with records."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_rwkvperf.backends.base import Device
from pytest_rwkvperf.cases import Case
from pytest_rwkvperf.machine.conditions import Conditions
from pytest_rwkvperf.measure.protocol import Sample
from pytest_rwkvperf.measure.record import CaseRecord, ModelFacts, Run
from pytest_rwkvperf.oracle.agreement import Agreement
from pytest_rwkvperf.oracle.check import Short

if TYPE_CHECKING:
    from collections.abc import Sequence

CASE = Case("llama-cpp", "synthetic:nano", "q8_0", "cpu", 2, 512)
CPU = Device("cpu", "CPU", "cpu")
MODEL = ModelFacts("synthetic:nano", "a" * 64, 36_000_000, 72_000_000)
RIGHT = Agreement(finite=True, relative_l2=1e-4, kl=1e-7, top_matches=True)


def make_run(load: int = 10**9, peak: int = 2**30, **times: Sequence[int]) -> Run:
    """A process with these nanoseconds per repetition by workload; a generated token takes an equal share of them."""
    samples: dict[str, tuple[Sample, ...]] = {}
    for name, taken in times.items():
        tokens = int(name[2:]) if name.startswith("tg") else 0
        samples[name] = tuple(
            Sample(1e9 + index, value, (value // tokens,) * tokens if tokens else ())
            for index, value in enumerate(taken)
        )
    return Run(1e9, load, peak, dict.fromkeys(times, 2), samples, Short(RIGHT, RIGHT, 0.0))


def make_record(*runs: Run, case: Case = CASE, device: Device = CPU) -> CaseRecord:
    """A record of these processes."""
    conditions = Conditions(0.25, 0.01)
    return CaseRecord(case, MODEL, device, {case.backend: "1"}, 1, None, "precision", 12.5, conditions, runs)


def record_of(times: Sequence[Sequence[int]], workload: str = "pp512", case: Case = CASE) -> CaseRecord:
    """A record of one workload with these nanoseconds by process."""
    return make_record(*(make_run(**{workload: row}) for row in times), case=case)  # type: ignore[arg-type]


def slower(record: CaseRecord, factor: float) -> CaseRecord:
    """The same with every time multiplied."""
    runs = (
        replace(
            run,
            samples={
                name: tuple(replace(sample, nanoseconds=round(factor * sample.nanoseconds)) for sample in taken)
                for name, taken in run.samples.items()
            },
        )
        for run in record.runs
    )
    return replace(record, runs=tuple(runs))
