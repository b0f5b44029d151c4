"""Makes measurement records like those of a run, for tests of everything that reads records."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from pytest_rwkvperf.core.cases import Case, Workload
from pytest_rwkvperf.core.engine import Device
from pytest_rwkvperf.core.samples import Sample
from pytest_rwkvperf.machine.conditions import Conditions
from pytest_rwkvperf.machine.fingerprint import Fingerprint
from pytest_rwkvperf.machine.nvml import GpuFacts, GpuReading
from pytest_rwkvperf.machine.system import System
from pytest_rwkvperf.machine.watching import GpuConditions
from pytest_rwkvperf.measure.measurement import Measurement
from pytest_rwkvperf.measure.record import CaseRecord, ModelFacts, ProcessRun
from pytest_rwkvperf.oracle.agreement import Agreement, Short
from pytest_rwkvperf.run import recording
from pytest_rwkvperf.run.settings import Settings
from pytest_rwkvperf.stats.estimates import Rate
from pytest_rwkvperf.stats.verdicts import Comparison, Verdict
from pytest_rwkvperf.store.record import Record, RecordedCase, RecordedItem

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
CASE = Case("llama-cpp", "synthetic:nano", "q8_0", "cpu", 2, 512)
CPU = Device("cpu", "CPU", "cpu")
MODEL = ModelFacts("synthetic:nano", "a" * 64, 36_000_000, 72_000_000)
RIGHT = Agreement(finite=True, relative_l2=1e-4, kl=1e-7, top_matches=True)

SETTINGS = Settings(
    backend="",
    model="synthetic:nano",
    quants=(),
    quants_by_backend={},
    workloads=(),
    batches=(),
    devices=(),
    threads=(),
    chunk=None,
    settings_by_backend={},
    suite="auto",
    save="no",
    save_crowded=False,
    baseline_dir=Path("baselines"),
    tolerance=0.05,
    precision=0.02,
    budget_seconds=240.0,
    strict=frozenset(),
    false_alarms=0.01,
    wrong_pass=0.05,
    keep_wheels=None,
    fewer_threads=False,
    ab=None,
    new=None,
    compare="auto",
    witnesses=("operations", "graph", "kernels"),
    reports=(),
    report_language="en",
    protocols=("uniform",),
    history="",
)
"""The settings of a run without options."""


def make_run(load: int = 10**9, peak: int = 2**30, **times: Sequence[int]) -> ProcessRun:
    """A process with these nanoseconds per repetition by workload; a generated token takes an equal share of them."""
    return run_of(times, load, peak)


def run_of(times: Mapping[str, Sequence[int]], load: int = 10**9, peak: int = 2**30) -> ProcessRun:
    """As `make_run`, for workloads that are no Python identifiers, such as tg128@b8."""
    samples: dict[str, tuple[Sample, ...]] = {}
    for name, taken in times.items():
        tokens = int(name[2:].partition("@")[0]) if name.startswith("tg") else 0
        samples[name] = tuple(
            Sample(1e9 + index, value, (value // tokens,) * tokens if tokens else ())
            for index, value in enumerate(taken)
        )
    return ProcessRun(1e9, load, peak, dict.fromkeys(times, 2), samples, Short(RIGHT, RIGHT, 0.0))


def make_record(*runs: ProcessRun, case: Case = CASE, device: Device = CPU) -> CaseRecord:
    """A record of these processes."""
    conditions = Conditions(0.25, 0.01)
    return CaseRecord(case, MODEL, device, {case.backend: "1"}, 1, None, "precision", 12.5, conditions, runs)


def record_of(times: Sequence[Sequence[int]], workload: str = "pp512", case: Case = CASE) -> CaseRecord:
    """A record of one workload with these nanoseconds by process."""
    return make_record(*(make_run(**{workload: row}) for row in times), case=case)  # type: ignore[arg-type]


def throttled(record: CaseRecord, reasons: int = 0x8) -> CaseRecord:
    """The record of a case whose GPU slowed itself down under load; `reasons` are of `nvml.THROTTLES`."""
    slowed = GpuReading(1.0, utilisation=90, reasons=reasons)
    return replace(record, gpu=GpuConditions(GpuFacts("NVIDIA H200", "", ""), GpuReading(0.0), (slowed,)))


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


def report_record(*cases: RecordedCase, **changed: Any) -> Record:  # noqa: ANN401 - the record's fields
    """The record of a run that left these cases."""
    machine = Fingerprint("Linux", "x86_64", "Model of processor", "family 6", 2, 1, ("Model of GPU 24 GiB",))
    here = System("Debian GNU/Linux 13 (trixie), Linux 6.1 x86_64", "3.11.2", 8 << 30, {"NVIDIA driver": "580.1"})
    record = Record(
        id="f" * 32,
        started="2026-11-23T16:00:00Z",
        seconds=61.5,
        project_version="0.1",
        command=("--rwkv-backend=all",),
        options={"backend": "all"},
        exit_status=0,
        fingerprint=machine,
        system=here,
        cases=cases,
    )
    return replace(record, **changed)


def recorded(measured: CaseRecord, *items: RecordedItem, old: CaseRecord | None = None) -> RecordedCase:
    """A case of a record; without items, one that passed for each workload that was measured."""
    return RecordedCase(measured.case, measured, recording.figures_of(measured), items or passed(measured), old)


def passed(measured: CaseRecord) -> tuple[RecordedItem, ...]:
    """Items with their figures, each against a baseline of half the speed."""
    return tuple(_passed(Measurement(measured, Workload.parse(name))) for name in measured.runs[0].samples)


def _passed(measurement: Measurement) -> RecordedItem:
    rate = measurement.tokens_per_second
    item = with_verdict(
        "PASS",
        workload=str(measurement.workload),
        reason="the ratio lies wholly above 0.952",
        rate=rate,
        baseline=replace(rate, median=rate.median / 2),
        comparison=Comparison(2.0, 1.9, 2.1, 0.05, 0.01, 0.2),
    )
    return recording.with_figures(item, measurement)


def with_verdict(verdict: Verdict, **changed: Any) -> RecordedItem:  # noqa: ANN401 - the item's fields
    """An item with the figures that go with its verdict."""
    item = RecordedItem("tg128@d4096", verdict, "reason", fails=verdict in {"REGRESSION", "INVALID"}, tolerance=0.05)
    if verdict != "INVALID":
        item = replace(item, rate=Rate(1234.567, 1200, 1260, 5, 50))
    if verdict not in {"INVALID", "NO-BASELINE"}:
        comparison = Comparison(0.512, 0.456, 0.571, 0.05, 0.01, 0.09)
        item = replace(item, baseline=Rate(98.765, 98, 99, 5, 50), comparison=comparison, step="stored")
    return replace(item, **changed)
