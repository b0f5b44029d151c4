"""The stored types of a measured case: raw samples in order of time, by process, and the facts about them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeVar

import msgspec
import numpy as np

from pytest_rwkvperf.core.cases import Case, Workload, WorkloadKind
from pytest_rwkvperf.core.engine import Device
from pytest_rwkvperf.core.errors import MeasurementError
from pytest_rwkvperf.core.samples import Sample, Turn
from pytest_rwkvperf.core.software import Software
from pytest_rwkvperf.core.work import Reading
from pytest_rwkvperf.machine.conditions import Conditions
from pytest_rwkvperf.machine.cupti import DeviceTime
from pytest_rwkvperf.machine.probe_work import ProbeKind
from pytest_rwkvperf.machine.roofline import Ceilings, TokenWork
from pytest_rwkvperf.machine.watching import GpuConditions
from pytest_rwkvperf.oracle.agreement import Answer, Batched, Deep, Fresh, Short
from pytest_rwkvperf.stats.levels import SessionTimes, drop_slow_handovers
from pytest_rwkvperf.stats.paired import PairRatio, pair_ratio
from pytest_rwkvperf.stats.spread import Spread
from pytest_rwkvperf.stats.verdicts import MAX_CONTENTION
from pytest_rwkvperf.worker import native

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

EndedBy = Literal["precision", "budget", "verdict"]


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """The measured model file, without its folder; sizes in bytes. Old records lack the fields with defaults.

    `tensor_elements` includes numbers in the file that RWKV-7 does not use; `parameters` does not.
    """

    name: str
    content_hash: str
    parameters: int
    file_bytes: int
    file_name: str = ""
    layers: int = 0
    width: int = 0
    tensor_bytes: int = 0
    tensor_elements: int = 0


@dataclass(frozen=True, slots=True)
class Energy:
    """A GPU's energy while a workload was repeated without a pause."""

    tokens: int
    joules: float
    seconds: float


@dataclass(frozen=True, slots=True)
class ProcessRun:
    """One worker process: its samples by workload, in order of time."""

    started: float
    load_nanoseconds: int
    peak_rss_bytes: int
    warmups: dict[str, int]
    samples: dict[str, tuple[Sample, ...]]
    parity: Short | None
    """None for a Program, which gives no logits."""
    probes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """Nanoseconds of the fixed work before each sample, by workload; empty without probes."""
    build_nanoseconds: int = 0
    """Compiling the engine's own kernels, or loading them built; not part of `load_nanoseconds`."""
    energy: dict[str, Energy] = field(default_factory=dict)
    """The GPU's energy by workload; in a case's first process only, and only where the GPU counts it."""
    turns: tuple[Turn, ...] = ()
    """The guide's chat (native protocol of the rwkv package)."""
    handovers: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """Nanoseconds of the handover between threads before each sample, by workload; empty with one thread."""
    reach: dict[ProbeKind, int] = field(default_factory=dict)
    """Nanoseconds of the fixed work on all threads at once; empty without probes."""
    device_time: dict[str, DeviceTime] = field(default_factory=dict)
    """What the device did, by workload; in a case's first process only, and only where CUPTI records the engine."""
    fresh: Fresh | None = None
    """The check with new tokens, in a case's first process only; None in older records."""
    answers: dict[str, Answer] = field(default_factory=dict)
    """The check of one timed repetition, by workload; empty in the native protocol."""
    memory: dict[str, int] = field(default_factory=dict)
    """Bytes that the process held after each workload's warm-up, on a GPU with those there; workloads without context
    were warmed up first, and small batches before large ones. Empty in A/B and the native protocol, and where a GPU's
    driver does not report them."""
    batched: tuple[Batched, ...] = ()
    """The check of each number of sequences that was timed at once."""


def times_of(case: Case, runs: Sequence[ProcessRun], workload: Workload) -> tuple[tuple[int, ...], ...]:
    """Nanoseconds per repetition, by process; in the native protocol one figure per process, as the tool prints it."""
    times = tuple(tuple(sample.nanoseconds for sample in run.samples.get(str(workload), ())) for run in runs)
    if case.protocol == "uniform":
        return times
    return tuple((native.figure(case.backend, row),) if row and min(row) > 0 else row for row in times)


def steady_times_of(case: Case, runs: Sequence[ProcessRun], workload: Workload) -> Sequence[Sequence[float]]:
    """As `times_of`, without repetitions that were taken while handovers were slow."""
    rows = tuple(run.handovers.get(str(workload), ()) for run in runs)
    times = SessionTimes(times_of(case, runs, workload), handovers=rows if all(rows) else ())
    return drop_slow_handovers(times).times


def medians(readings: Sequence[Mapping[str, Sequence[int]]], workload: str) -> tuple[int, ...]:
    """The median reading of a workload, by process; empty if a process has none."""
    if not all(process.get(workload) for process in readings):
        return ()
    return tuple(round(float(np.median(process[workload]))) for process in readings)


@dataclass(frozen=True, slots=True)
class CaseRecord:
    """Everything measured for one case in one run."""

    case: Case
    model: ModelFacts
    device: Device
    versions: dict[str, str]
    protocol: int
    deep: Deep | None
    ended_by: EndedBy
    seconds: float
    conditions: Conditions
    runs: tuple[ProcessRun, ...]
    probe_version: str = ""
    """Probe times of different versions are not compared; empty without probes."""
    gpu: GpuConditions | None = None
    work: TokenWork | None = None
    ceilings: Ceilings | None = None
    software: Software | None = None
    """What was loaded; None in older records."""
    process_spread: dict[WorkloadKind, Spread] = field(default_factory=dict)
    """How far processes lie apart on this machine, as the baseline showed when this was measured."""
    witnesses: tuple[Reading, ...] = ()
    """What counted the engine's work, in processes of their own."""
    fewer_threads: int | None = None
    """A/B: threads that were used instead of the case's, because other processes used the processors."""

    @property
    def doubt(self) -> str:
        """Why no verdict may rest on these figures, now or later; empty when one may."""
        return self.gpu.doubt() if self.gpu else ""

    def steady_times(self, workload: Workload) -> Sequence[Sequence[float]]:
        """Nanoseconds per repetition, by process, without those taken while handovers were slow.

        Raises:
            MeasurementError: as `times`.
        """
        return drop_slow_handovers(self.session_times(workload)).times

    @property
    def crowded(self) -> bool:
        """Whether other processes took so much of the processor that no comparison with these figures is bounded."""
        return self.conditions.foreign > MAX_CONTENTION

    @property
    def parity(self) -> float | None:
        """The largest relative L2 from the oracle in any check of this record; None without a check."""
        checks = [run.parity for run in self.runs if run.parity is not None]
        pairs = [pair for check in checks for pair in (check.prefill, check.generation)]
        answers = [answer for run in self.runs for answer in run.answers.values()]
        pairs += [answer.agreement for answer in answers if answer.compared_with == "oracle"]
        batches = [each for run in self.runs for each in run.batched]
        pairs += [worst.agreement for each in batches for worst in (each.prefill, each.generation)]
        deep = (self.deep.prefill,) if self.deep else ()
        return max((float(pair.relative_l2) for pair in (*pairs, *deep)), default=None)

    def session_times(self, workload: Workload) -> SessionTimes:
        """Nanoseconds per repetition with the handovers before them, and the medians of the probes, by process.

        Raises:
            MeasurementError: as `times`.
        """
        probes = medians([run.probes for run in self.runs], str(workload))
        return SessionTimes(self.times(workload), probes, self.conditions.foreign, self.handovers(workload))

    def handovers(self, workload: Workload) -> tuple[tuple[int, ...], ...]:
        """Nanoseconds of the handover before each repetition, by process; empty if a process has none."""
        rows = tuple(run.handovers.get(str(workload), ()) for run in self.runs)
        return rows if all(rows) else ()

    def token_times(self, workload: Workload) -> list[list[int]]:
        """Nanoseconds of all tokens in order, by process; rows are empty where tokens were not timed one by one."""
        rows = [run.samples.get(str(workload), ()) for run in self.runs]
        return [[token for sample in row for token in sample.token_nanoseconds] for row in rows]

    def within(self, tested: Workload, reference: Workload) -> list[PairRatio]:
        """Log of the tested workload's speed over the reference's, by process.

        Repetitions of one index stood in one block. Those of generations are compared token by token.

        Raises:
            MeasurementError: the samples carry no figure.
        """
        return [pair_ratio(*self._token_times_of_both(run, tested, reference)) for run in self.runs]

    @staticmethod
    def _token_times_of_both(run: ProcessRun, tested: Workload, reference: Workload) -> list[list[float]]:
        """Nanoseconds per token of both workloads in one process, as many of the one as of the other."""
        samples = [run.samples.get(str(workload), ()) for workload in (tested, reference)]
        count = min(map(len, samples))
        steps = [(workload.tokens, workload.batch) for workload in (tested, reference)]
        if tested.kind == "generation" and steps[0] == steps[1]:
            rows = [[share for sample in row[:count] for share in sample.token_nanoseconds] for row in samples]
            if all(rows):
                return [[float(value) for value in row] for row in rows]
        tokens = (tested.total_tokens, reference.total_tokens)
        return [
            [sample.nanoseconds / each for sample in row[:count]] for row, each in zip(samples, tokens, strict=True)
        ]

    def times(self, workload: Workload) -> tuple[tuple[int, ...], ...]:
        """Nanoseconds per repetition, by process.

        Raises:
            MeasurementError: a process has no samples, or a time is not positive.
        """
        name = str(workload)
        times = times_of(self.case, self.runs, workload)
        if not times or not all(times):
            raise MeasurementError(f"{self.case.key}: {name} has a process without samples; measure again")
        if any(value <= 0 for row in times for value in row):
            raise MeasurementError(f"{self.case.key}: {name} has a time that is not positive; the clock is broken")
        return times


@dataclass(frozen=True, slots=True)
class Pairing:
    """Two environments measured in alternation: processes of one index ran together."""

    new: CaseRecord
    old: CaseRecord

    def log_ratios(self, workload: Workload) -> list[PairRatio]:
        """Log of new over old throughput, by pair.

        Raises:
            MeasurementError: the samples carry no figure.
        """
        return [pair_ratio(*pair) for pair in self.pairs(workload)[0]]

    def pairs(self, workload: Workload) -> tuple[list[tuple[Sequence[int], Sequence[int]]], int]:
        """Each pair's new and old times, and how many tokens each time is of.

        They are times of steps where steps were timed, else of repetitions.

        Raises:
            MeasurementError: the samples carry no figure.
        """
        sides = [side.times(workload) for side in (self.new, self.old)]
        tokens = [side.token_times(workload) for side in (self.new, self.old)]
        by_token = all(map(all, tokens))
        pairs = [*zip(*(tokens if by_token else sides), strict=True)]
        return pairs, workload.batch if by_token else workload.total_tokens

    def block_differences(self, workload: Workload) -> list[list[float]]:
        """Log of new over old throughput of each block of two repetitions a side, by pair."""
        new, old = (
            [np.log(row).reshape(-1, 2).mean(axis=1) for row in side.times(workload)] for side in (self.new, self.old)
        )
        return [list(old_row - new_row) for new_row, old_row in zip(new, old, strict=True)]


_Stored = TypeVar("_Stored", CaseRecord, Pairing)


def to_json(record: CaseRecord | Pairing) -> bytes:
    """A record or a pairing as JSON."""
    return msgspec.json.encode(record, order="deterministic")


def from_json(data: bytes | str, kind: type[_Stored]) -> _Stored:
    """Read what `to_json` wrote of a kind.

    Raises:
        MeasurementError: it is something else.
    """
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.MsgspecError as error:
        raise MeasurementError(f"a record cannot be read: {error}; measure again") from error
