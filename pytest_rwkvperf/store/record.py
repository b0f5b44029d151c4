"""The measurement record: everything that one run leaves to be reported. It is the only input of every report.

The file is JSON with the schema `docs/record.schema.json`, which is made from these types. A new field gets a default,
so that older records can still be read; a change of what a field means gets a new VERSION.
"""

from __future__ import annotations

import inspect
import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from pytest_rwkvperf.core import strict_json
from pytest_rwkvperf.core.cases import Case, Workload, disambiguated
from pytest_rwkvperf.core.cause import Cause
from pytest_rwkvperf.core.errors import OptionError, RecordError
from pytest_rwkvperf.core.invariants import Quantity
from pytest_rwkvperf.core.work import WorkJudgement
from pytest_rwkvperf.core.work import problem as work_problem
from pytest_rwkvperf.machine.fingerprint import Fingerprint
from pytest_rwkvperf.machine.system import System
from pytest_rwkvperf.measure.record import CaseRecord, Pairing, ProcessRun
from pytest_rwkvperf.stats.estimates import MAX_NANOSECONDS, Rate
from pytest_rwkvperf.stats.verdicts import Comparison, Step, Verdict, VoidedBy
from pytest_rwkvperf.store.versioned import VersionedFormat

if TYPE_CHECKING:
    from collections.abc import Iterator

VERSION = 3
"""Version 3 added `settings` to a case."""

_YEAR_10000 = 253_402_300_800
"""In Unix seconds: `datetime` ends before it."""


@dataclass(frozen=True, slots=True)
class InterToken:
    """Percentiles of the time of one generated token over all processes, in seconds."""

    p50: float
    p99: float


@dataclass(frozen=True, slots=True)
class RecordedItem:
    """One workload of a case, with its verdict.

    `verdict` is null where the test ended before it had one; `reason` then says why. `fails` is whether it failed its
    test. `rate` is this run's speed, `baseline` what it was compared with: the stored one, with the machine's drift, or
    in A/B the old side's. Both are of the statistic that was compared, so that their quotient is `comparison`'s ratio
    (the mean's, where that alone regressed). `median_rate` is of the processes' medians: cases and runs are compared by
    it.
    `voided` says what made a verdict INCONCLUSIVE that the figures allow.
    """

    workload: str
    verdict: Verdict | None
    reason: str
    fails: bool
    tolerance: float | None = None
    rate: Rate | None = None
    baseline: Rate | None = None
    comparison: Comparison | None = None
    first_token_seconds: float | None = None
    inter_token_seconds: InterToken | None = None
    roofline_share: float | None = None
    joules_per_token: float | None = None
    net_joules_per_token: float | None = None
    utilisation: float | None = None
    device_seconds_per_token: float | None = None
    device_share: float | None = None
    voided: VoidedBy = ""
    step: Step = ""
    """What decided; empty also in records of earlier releases."""
    median_rate: Rate | None = None
    work: WorkJudgement | None = None
    """What the witnesses say; null where none of both sides was there to compare."""
    causes: tuple[Cause, ...] = ()
    """For a REGRESSION: the differences from what it was compared with, the most important first."""

    @property
    def typical_rate(self) -> Rate | None:
        """The speed to compare with other cases and runs: that of the medians, as `rate` was in earlier records."""
        return self.median_rate or self.rate


InvariantVerdict = Literal["HOLDS", "BROKEN", "INCONCLUSIVE", "INVALID"]


@dataclass(frozen=True, slots=True)
class RecordedInvariant:
    """Whether a `tested` workload needed no more time per token, or memory, than a `reference` of the same processes.

    `comparison` is of the reference's time or memory over the tested one's, so that below 1 the tested one needs more;
    null where nothing could be compared. `fails` is whether it failed its test.
    """

    name: str
    claim: str
    tested: str
    reference: str
    quantity: Quantity
    verdict: InvariantVerdict
    reason: str
    fails: bool
    tolerance: float
    comparison: Comparison | None = None


@dataclass(frozen=True, slots=True)
class CaseFigures:
    """What belongs to a case: median load time, largest peak of a worker's memory, file size, largest relative L2.

    `peak_device_bytes` is the largest on a GPU, null elsewhere and where the driver does not tell.
    """

    load_seconds: float
    peak_rss_bytes: int
    file_bytes: int
    parity: float | None
    peak_device_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class RecordedCase:
    """One engine set up one way: raw samples of this run's side, in A/B also of the `old` one, figures and verdicts.

    `measured` and `figures` are null where measuring failed; `failure` then says why. `settled` has both sides of the
    A/B that decided what stored figures left open, of those items alone.
    """

    case: Case
    measured: CaseRecord | None
    figures: CaseFigures | None
    items: tuple[RecordedItem, ...]
    old: CaseRecord | None = None
    failure: str = ""
    settled: Pairing | None = None
    invariants: tuple[RecordedInvariant, ...] = ()

    def sides(self, item: RecordedItem) -> tuple[CaseRecord | None, CaseRecord | None]:
        """Where an item's figures come from: this run's side, and in A/B the old one."""
        return (self.settled.new, self.settled.old) if item.step == "ab" and self.settled else (self.measured, self.old)

    def times(self, workload: str) -> tuple[tuple[int, ...], ...]:
        """Nanoseconds per repetition by process; empty where there are none."""
        runs = self.measured.runs if self.measured else ()
        return tuple(tuple(one.nanoseconds for one in run.samples.get(workload, ())) for run in runs)


CaseItem = tuple[RecordedCase, RecordedItem]
"""A workload with its case, as `Record.items` gives them."""


@dataclass(frozen=True, slots=True)
class SkippedEngine:
    """An engine that was chosen and could not measure, and why."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class OtherRun:
    """Which run a record was compared with afterwards (`rwkvperf report --against`): the fields are those of `Record`.

    `machine` is the fingerprint's id.
    """

    id: str
    started: str
    commit: str
    machine: str


@dataclass(frozen=True, slots=True)
class Record:
    """One run of pytest. `started` is UTC in ISO 8601; `exit_status` pytest's own (2 is an interruption).

    `command` holds pytest's arguments and `options` this project's options, passwords in addresses left out. `commit`
    is the revision of the folder that was tested, empty outside git. `id` is different in every run. `against` is null
    unless the verdicts are of a later comparison with another run.
    """

    id: str
    started: str
    seconds: float
    project_version: str
    command: tuple[str, ...]
    options: dict[str, str]
    exit_status: int
    fingerprint: Fingerprint
    system: System
    cases: tuple[RecordedCase, ...]
    skipped: tuple[SkippedEngine, ...] = ()
    commit: str = ""
    against: OtherRun | None = None
    schema: int = field(default=VERSION)

    def disambiguated(self) -> Record:
        """The record with its cases as people are shown them: no two look alike."""
        shown = disambiguated(case.case for case in self.cases)
        return replace(self, cases=tuple(replace(case, case=shown[case.case]) for case in self.cases))

    def items(self) -> Iterator[CaseItem]:
        """Every item with its case, in order."""
        return ((case, item) for case in self.cases for item in case.items)


def dumps(record: Record) -> str:
    """The record as JSON text; the schema's number first."""
    raw = msgspec.to_builtins(record)
    return strict_json.dumps({"schema": raw.pop("schema"), **raw}, sort_keys=False)


def _problem(record: Record) -> str:
    """What is wrong with a record's content; empty if nothing is."""
    problems = ((case.case.key, _case_problem(case)) for case in record.cases)
    return next((f"{key}: {problem}" for key, problem in problems if problem), "")


def _case_problem(case: RecordedCase) -> str:
    settled = (case.settled.new, case.settled.old) if case.settled else ()
    for side in filter(None, (case.measured, case.old, *settled)):
        if side.case != case.case:
            return f"its samples are those of {side.case.key}"
        if not side.runs:
            return "no process measured it"
        if problem := next(filter(None, map(_run_problem, side.runs)), "") or work_problem(side.witnesses):
            return problem
    return next(filter(None, map(_item_problem, case.items)), "")


def _run_problem(run: ProcessRun) -> str:
    for name, samples in run.samples.items():
        if not Workload.is_name(name):
            return f"{name!r} names no workload"
        if not all(0 < sample.nanoseconds <= MAX_NANOSECONDS for sample in samples):
            return f"{name} holds no usable times"
    if not all(0 < turn.nanoseconds <= MAX_NANOSECONDS for turn in run.turns):
        return "a turn of the chat holds no usable time"
    return "" if 0 <= run.started < _YEAR_10000 else f"a process is said to have started at {run.started:g}"


def _item_problem(item: RecordedItem) -> str:
    try:
        Workload.parse(item.workload)
    except OptionError as error:
        return str(error)
    if not Workload.is_name(item.workload):
        return f"{item.workload!r} names no workload"
    rates = [rate for rate in (item.rate, item.baseline) if rate is not None]
    if any(rate.median <= 0 for rate in rates):
        return f"{item.workload} has a speed that is not positive"
    if any(rate.processes < 1 for rate in rates):
        return f"{item.workload} has a speed of no process"
    return ""


FORMAT = VersionedFormat(
    "record",
    Record,
    VERSION,
    RecordError,
    "give the file that --rwkv-report=FILE.json wrote, or measure again",
    _problem,
    clean=True,
)
loads = FORMAT.loads


def read(path: Path) -> Record:
    """The record in a file.

    Raises:
        RecordError: it cannot be read, or is no record.
    """
    if (record := FORMAT.read(path)) is None:
        raise RecordError(f"record {path} is not there; {FORMAT.advice}")
    return record


def json_schema() -> dict[str, Any]:
    """The record's JSON Schema (draft 2020-12); as strict about unknown keys as reading is."""
    # There and back: defaults are tuples here and lists in JSON.
    schema: dict[str, Any] = json.loads(json.dumps(msgspec.json.schema(Record)))
    for part in schema["$defs"].values():
        part["description"] = inspect.cleandoc(part.get("description", ""))
        if part.get("type") == "object":
            part["additionalProperties"] = False
    top = schema["$defs"]["Record"]
    top["properties"]["schema"] = {"const": VERSION}
    top["required"].insert(0, "schema")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"Measurement record of pytest-rwkvperf, schema {VERSION}",
        **schema,
    }
