"""Comparing two stored files, each a baseline or a measurement record, with the verdicts of a run."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from pytest_rwkvperf.core import strict_json
from pytest_rwkvperf.core.cases import Item, Workload
from pytest_rwkvperf.core.convention import Convention, check_shared
from pytest_rwkvperf.core.errors import BaselineError, RecordError
from pytest_rwkvperf.stats.several import holm
from pytest_rwkvperf.store import baseline as baselines
from pytest_rwkvperf.store import record as records
from pytest_rwkvperf.store.record import OtherRun
from pytest_rwkvperf.verdict import accept, explaining, judgement
from pytest_rwkvperf.verdict.judged import Judgement, Reference

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pytest_rwkvperf.core.software import Software
    from pytest_rwkvperf.stats.estimates import Rate
    from pytest_rwkvperf.store.baseline import Baseline, StoredCase
    from pytest_rwkvperf.store.record import Record, RecordedCase, RecordedItem
    from pytest_rwkvperf.verdict.explaining import Facts

FAILING = frozenset({"REGRESSION", "INVALID"})
"""Verdicts of a comparison that fails."""

_EITHER = "give what --rwkv-save-baseline or --rwkv-report=FILE.json wrote"
_ALIKE = "measure both with the same --rwkv-protocol and --rwkv-chunk and the same pytest-rwkvperf"


@dataclass(frozen=True, slots=True)
class ComparedFile:
    """One file's content as a baseline, and what a record tells beyond that.

    `doubts` says, by case key, why no verdict may rest on its figures, `software` what was loaded.
    """

    baseline: Baseline
    doubts: Mapping[str, str] = field(default_factory=dict)
    software: Mapping[str, Software] = field(default_factory=dict)

    def facts(self, item: Item) -> Facts:
        """What is known of how an item of this file was measured."""
        key = item.case.key
        return explaining.of_stored(self.baseline.cases[key], str(item.workload), self.software.get(key))


def read_text(path: Path) -> str:
    """A file's text.

    Raises:
        RecordError: it cannot be read.
    """
    try:
        return strict_json.read_text(path)
    except (OSError, UnicodeDecodeError) as error:
        raise RecordError(f"{path} cannot be read: {error}; {_EITHER}") from error


def parse(text: str, path: Path) -> Baseline | Record:
    """The baseline or the measurement record that a file's text is.

    Raises:
        RecordError: it is neither, or an unusable record.
        BaselineError: it is an unusable baseline.
    """
    try:
        raw = strict_json.loads(text, clean=True)  # what is compared is shown and not written back
    except ValueError as error:
        raise RecordError(f"{path} is not valid JSON ({error}): restore it from version control; {_EITHER}") from error
    cases = raw.get("cases") if isinstance(raw, dict) else None
    if isinstance(cases, list):
        return records.FORMAT.convert(raw, path)
    if isinstance(cases, dict):
        return baselines.FORMAT.convert(raw, path)
    raise RecordError(f"{path} is neither a baseline nor a record; {_EITHER}")


def compared_file(content: Baseline | Record) -> ComparedFile:
    """What to compare: a record as the baseline that its run would have stored."""
    return ComparedFile(content) if isinstance(content, baselines.Baseline) else _of_record(content)


def _of_record(record: Record) -> ComparedFile:
    measured = [case.measured for case in record.cases if case.measured is not None]
    workloads = {case.case.key: set(case.runs[0].samples) for case in measured}
    baseline = baselines.Baseline(record.fingerprint)
    for stored in accept.stored_cases(measured, workloads, record.started):
        baseline = baseline.with_case(stored, replacing=True)
    return ComparedFile(
        baseline,
        {case.case.key: case.doubt for case in measured if case.doubt},
        {case.case.key: case.software for case in measured if case.software},
    )


@dataclass(frozen=True, slots=True)
class ComparedFiles:
    """The old file and the new one."""

    old: ComparedFile
    new: ComparedFile

    def doubt(self, item: Item) -> str:
        """Why no verdict on an item may rest on these figures, in words; empty if one may."""
        key = item.case.key
        files = (("", self.new), ("in the old file ", self.old))
        return " and ".join(f"{where}{file.doubts[key]}" for where, file in files if key in file.doubts)


def compare(files: ComparedFiles, tolerance: float) -> list[Judgement]:
    """Judge each workload of the new file's newest sessions, with Holm's share of the error rate.

    Raises:
        BaselineError: the new file holds no case.
        ConventionError: what a case was measured with stands in the old file under other conventions alone.
        MeasurementError: stored times carry no figure.
    """
    old, new = files.old.baseline, files.new.baseline
    stored = {Item(case.case, Workload.parse(name)): case for case in new.cases.values() for name in _names(case)}
    if not stored:
        raise BaselineError("the new file holds no measured case; measure with --rwkv-save-baseline or --rwkv-report")
    _check_conventions(old, new)
    same = old.fingerprint == new.fingerprint
    reference = Reference(new.fingerprint, old if same else None, None if same else old.fingerprint)

    def judge(item: Item, items: int) -> Judgement:
        judged = judgement.judge(stored[item], item, reference, tolerance, items)
        return judgement.void(judged, "gpu", files.doubt(item))

    compared = [item for item in stored if judge(item, len(stored)).comparison is not None]
    sharing = dict.fromkeys(stored, max(1, len(compared)))
    for wanted in (("PASS", "IMPROVEMENT"), ("REGRESSION",)):
        sharing |= holm(compared, lambda item, items: judge(item, items).verdict, wanted)
    return [_explained(judge(item, sharing[item]), files) for item in stored]


def _explained(judged: Judgement, files: ComparedFiles) -> Judgement:
    if judged.verdict != "REGRESSION":
        return judged
    return explaining.explained(judged, files.old.facts(judged.item), files.new.facts(judged.item))


def against(new: Record, old: Record, tolerance: float) -> Record:
    """The new run's record, its items judged by the old run's figures, with the samples of both.

    The old speed is shown even where it decides nothing, such as that of another machine.

    Raises:
        BaselineError: the new record holds no measured case.
        MeasurementError: stored times carry no figure.
    """
    files = ComparedFiles(_of_record(old), _of_record(new))
    judgements = {judged.item: judged for judged in compare(files, tolerance)}
    before = {case.case: case for case in old.cases}
    return replace(
        new,
        cases=tuple(_judged_case(case, before.get(case.case), judgements) for case in new.cases),
        against=OtherRun(old.id, old.started, old.commit, old.fingerprint.id),
    )


def _judged_case(new: RecordedCase, old: RecordedCase | None, judgements: Mapping[Item, Judgement]) -> RecordedCase:
    speeds = {item.workload: item.typical_rate for item in old.items} if old else {}
    items = tuple(
        _judged_item(item, speeds.get(item.workload), judgements.get(Item(new.case, Workload.parse(item.workload))))
        for item in new.items
    )
    return replace(new, items=items, old=old.measured if old else None, settled=None)


def _judged_item(new: RecordedItem, old: Rate | None, judged: Judgement | None) -> RecordedItem:
    if judged is None:  # it was not measured
        return new
    rate = judged.new if judged.comparison else new.typical_rate
    return replace(
        new,
        verdict=judged.verdict,
        reason=judged.reason,
        fails=judged.verdict in FAILING,
        tolerance=judged.tolerance,
        rate=rate,
        baseline=judged.old or old,
        comparison=judged.comparison,
        voided=judged.voided,
        step=judged.step,
        work=None,
        causes=judged.causes,
    )


def _names(case: StoredCase) -> list[str]:
    return sorted({name for session in case.sessions for name in session.workloads})


def _check_conventions(old_baseline: Baseline, new_baseline: Baseline) -> None:
    """Check that what both have was measured in one way.

    Raises:
        ConventionError: no case of some setting was measured under a convention that the old file has for that setting.
    """
    old, new = _conventions(old_baseline), _conventions(new_baseline)
    for setting in old.keys() & new.keys():
        check_shared(old[setting], new[setting], setting, _ALIKE)


def _conventions(baseline: Baseline) -> dict[str, set[Convention]]:
    """The conventions of each setting's newest sessions, by a name of the setting that leaves them out."""
    found: dict[str, set[Convention]] = {}
    for stored in baseline.cases.values():
        case = stored.case
        setting = f"{case.backend} {case.model} {case.quant} {case.device} t{case.threads}"
        if stored.sessions:
            newest = max(stored.sessions, key=lambda session: session.recorded)
            found.setdefault(setting, set()).add(Convention.of_case(case, newest.protocol))
    return found
