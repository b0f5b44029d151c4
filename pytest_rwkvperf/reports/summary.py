"""The terminal's tables as markdown: for a pull request, a CI job's summary or a chat."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from pytest_rwkvperf.core.cause import why
from pytest_rwkvperf.core.text import duration
from pytest_rwkvperf.reports import batches, figures, native_ratio
from pytest_rwkvperf.reports.markdown_text import escape, table
from pytest_rwkvperf.reports.report import Report

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pytest_rwkvperf.reports.report import Language
    from pytest_rwkvperf.store.record import Record, RecordedItem

_MARKS = {
    "REGRESSION": "❌ ",
    "INVALID": "❌ ",
    "PASS": "✅ ",
    "IMPROVEMENT": "🚀 ",
    "INCONCLUSIVE": "❔ ",
    "HOLDS": "✅ ",
    "BROKEN": "❌ ",
}


class Summary(Report):
    """Verdicts first, then figures of the cases, failures, and the machine."""

    def render(self, record: Record, _language: Language, /) -> Mapping[str, str]:
        """One text, also of a run that measured nothing."""
        record = record.disambiguated()
        parts = [f"### RWKV-7 throughput: {_headline(record)}\n"]
        if any(item.rate for _, item in record.items()):
            parts.append(_table(figures.item_rows([*record.items()])))
            if note := figures.mixed_rates(record):
                parts.append(f"{note}\n")
            if invariants := [figures.invariant_cells(case, each) for case in record.cases for each in case.invariants]:
                parts.append(_table(invariants))
            if scaling := batches.rows(batches.scalings(record)):
                parts.append(_table(scaling))
            parts.append(_table([figures.case_cells(case) for case in record.cases]))
            parts += [f"{escape(note)}\n" for note in figures.work_notes(record)]
        if ratios := native_ratio.sentence(record):
            parts.append(f"{escape(ratios)}\n")
        if failures := _failures(record):
            parts.append(failures)
        parts.append(_machine(record))
        return {"": "\n".join(parts)}


REPORT = Summary()


def _marked(cells: Mapping[str, str]) -> dict[str, str]:
    return {"verdict": _MARKS.get(cells["verdict"], "") + cells["verdict"]} if "verdict" in cells else {}


def _table(rows: Sequence[Mapping[str, str]]) -> str:
    """A table without the columns that are empty in all rows; its verdicts are marked."""
    rows = [{**row, **_marked(row)} for row in figures.without_empty_columns(rows)]
    columns = [*rows[0]]
    right = [index for index, name in enumerate(columns) if name not in figures.TEXT_COLUMNS]
    return table(columns, [[escape(row[name]) for name in columns] for row in rows], right=right)


def _headline(record: Record) -> str:
    invariants = [each for case in record.cases for each in case.invariants]
    compared = [figures.verdict_of(item) for _, item in record.items() if item.verdict or not invariants]
    counts = Counter([*compared, *(each.verdict for each in invariants)])
    return ", ".join(f"{count} {verdict}" for verdict, count in counts.items()) or "nothing was measured"


def _failures(record: Record) -> str:
    failed = ((figures.item_name(case, item), _reason(item)) for case, item in record.items() if item.fails)
    broken = (
        (f"{case.case.label} {each.name}", each.reason)
        for case in record.cases
        for each in case.invariants
        if each.fails
    )
    lines = [f"- **{escape(name)}**: {escape(reason)}" for name, reason in (*failed, *broken)]
    lines += [f"- {escape(engine.name)} was skipped: {escape(engine.reason)}" for engine in record.skipped]
    return "\n".join(lines) + "\n" if lines else ""


def _reason(item: RecordedItem) -> str:
    return f"{item.reason}; why: {'; '.join(why(item.causes))}" if item.causes else item.reason


def _machine(record: Record) -> str:
    machine = record.fingerprint
    gpus = "".join(f", {escape(gpu)}" for gpu in machine.gpus)
    commit = f", commit {record.commit[:10]}" if record.commit else ""
    other = f"; compared with the run of {escape(record.against.started)}" if record.against else ""
    return (
        f"{escape(machine.cpu)}, {machine.physical_cores} cores{gpus}; {escape(record.system.operating_system)}; "
        f"pytest-rwkvperf {escape(record.project_version)}{commit}; {escape(record.started)}, "
        f"{duration(record.seconds)}{other}\n"
    )
