"""Comparing two stored files, each a baseline or a measurement record, with the verdicts of a run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pytest_rwkvperf.core import strict_json
from pytest_rwkvperf.core.cases import Item, Workload
from pytest_rwkvperf.core.errors import BaselineError, RecordError
from pytest_rwkvperf.stats.several import holm
from pytest_rwkvperf.store import baseline as baselines
from pytest_rwkvperf.store import record as records
from pytest_rwkvperf.verdict import accept, judgement
from pytest_rwkvperf.verdict.judged import Judgement, Reference

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pytest_rwkvperf.store.baseline import Baseline, StoredCase
    from pytest_rwkvperf.store.record import Record

_EITHER = "give what --rwkv-save-baseline or --rwkv-report=FILE.json wrote"


@dataclass(frozen=True, slots=True)
class Side:
    """One file's content as a baseline; `doubts` says, by case key, why no verdict may rest on its figures."""

    baseline: Baseline
    doubts: Mapping[str, str] = field(default_factory=dict)


def read(path: Path) -> Side:
    """Read a baseline, or a measurement record as the baseline that its run would have stored.

    Raises:
        RecordError: the file cannot be read, or is neither.
        BaselineError: it is an unusable baseline.
    """
    try:
        text = strict_json.read_text(path)
    except (OSError, UnicodeDecodeError) as error:
        raise RecordError(f"{path} cannot be read: {error}; {_EITHER}") from error
    try:
        raw = strict_json.loads(text, clean=True)  # what is compared is shown and not written back
    except ValueError as error:
        raise RecordError(f"{path} is not valid JSON ({error}): restore it from version control; {_EITHER}") from error
    cases = raw.get("cases") if isinstance(raw, dict) else None
    if isinstance(cases, list):
        return _of_record(records.FORMAT.convert(raw, path))
    if isinstance(cases, dict):
        return Side(baselines.FORMAT.convert(raw, path))
    raise RecordError(f"{path} is neither a baseline nor a record; {_EITHER}")


def _of_record(record: Record) -> Side:
    measured = [case.measured for case in record.cases if case.measured is not None]
    workloads = {case.case.key: set(case.runs[0].samples) for case in measured}
    baseline = baselines.Baseline(record.fingerprint)
    for stored in accept.stored_cases(measured, workloads, record.started):
        baseline = baseline.with_case(stored, replacing=True)
    return Side(baseline, {case.case.key: case.doubt for case in measured if case.doubt})


@dataclass(frozen=True, slots=True)
class Pair:
    """The contents of the old file and the new one."""

    old: Side
    new: Side

    def doubt(self, item: Item) -> str:
        """Why no verdict on an item may rest on these figures, in words; empty if one may."""
        key = item.case.key
        sides = (("", self.new), ("in the old file ", self.old))
        return " and ".join(f"{where}{side.doubts[key]}" for where, side in sides if key in side.doubts)


def compare(pair: Pair, tolerance: float) -> list[Judgement]:
    """Each workload of the new side's newest sessions, with Holm's share of the error rate.

    Raises:
        BaselineError: the new side holds no case.
        MeasurementError: stored times carry no figure.
    """
    old, new = pair.old.baseline, pair.new.baseline
    stored = {Item(case.case, Workload.parse(name)): case for case in new.cases.values() for name in _names(case)}
    if not stored:
        raise BaselineError("the new file holds no measured case; measure with --rwkv-save-baseline or --rwkv-report")
    same = old.fingerprint == new.fingerprint
    reference = Reference(new.fingerprint, old if same else None, None if same else old.fingerprint)

    def judge(item: Item, share: int) -> Judgement:
        judged = judgement.judge(stored[item], item, reference, tolerance, share)
        return judgement.void(judged, "gpu", pair.doubt(item))

    compared = [item for item in stored if judge(item, len(stored)).comparison is not None]
    shares = dict.fromkeys(stored, max(1, len(compared)))
    for wanted in (("PASS", "IMPROVEMENT"), ("REGRESSION",)):
        shares |= holm(compared, lambda item, share: judge(item, share).verdict, wanted)
    return [judge(item, shares[item]) for item in stored]


def _names(case: StoredCase) -> list[str]:
    return sorted({name for session in case.sessions for name in session.workloads})
