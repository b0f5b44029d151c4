"""A fleet's report, as Markdown, CSV or JSON: every machine's figures, and what is missing."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

import msgspec

from pytest_rwkvperf.core import strict_json
from pytest_rwkvperf.core.text import counted, csv_cell, redacted, safe
from pytest_rwkvperf.reports import figures, markdown_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_rwkvperf.fleet.merge import Merged

SCHEMA = 1
COLUMNS = (
    *("machine", "backend", "model", "quant", "device", "workload"),
    *("t/s", "± 95 %", "baseline", "ratio", "verdict"),
)
_FIGURES = (6, 7, 8, 9)


def rows(merged: Merged) -> Iterator[tuple[str, ...]]:
    """The table's rows. No cell has text that a terminal would obey."""
    for run in merged.runs:
        for case, item in run.disambiguated().items():
            cells = {
                **figures.item_cells(case, item),
                "machine": run.fingerprint.id,
                "model": case.case.model,
                # In full: a spreadsheet computes with them.
                "t/s": figures.number(item.rate.median if item.rate else None, ".2f"),
                "baseline": figures.number(item.baseline.median if item.baseline else None, ".2f"),
                "verdict": item.verdict or "none",
            }
            yield tuple(safe(cells[name]) for name in COLUMNS)


def as_markdown(merged: Merged) -> str:
    """For people: the number of runs, what is missing, what failed and why, the table."""
    machines = len({run.fingerprint.id for run in merged.runs})
    count = (
        f"{counted(len(merged.runs), 'run')} of {counted(machines, 'kind')} of machine; {len(merged.missing)} missing."
    )
    lines = ["# Fleet", "", count, ""]
    if merged.missing:
        lines += ["## Missing", "", *(f"* {_text(lost.name)}: {_text(lost.reason)}" for lost in merged.missing), ""]
    failed = [
        f"* {_text(run.fingerprint.id)}, {_text(figures.item_name(case, item))}: {_text(item.reason)}"
        for run in merged.runs
        for case, item in run.disambiguated().items()
        if item.fails
    ]
    if failed:
        lines += ["## Failed", "", *failed, ""]
    cells = [[markdown_text.escape(cell) for cell in row] for row in rows(merged)]
    lines += ["## Figures", "", markdown_text.table(COLUMNS, cells, right=_FIGURES)]
    return "\n".join(lines).rstrip() + "\n"


def as_csv(merged: Merged) -> str:
    """For spreadsheets; no cell is a formula."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([csv_cell(text) for text in row] for row in rows(merged))
    writer.writerows([f"missing: {csv_cell(safe(lost.name))}", csv_cell(safe(lost.reason))] for lost in merged.missing)
    return out.getvalue()


def as_json(merged: Merged) -> str:
    """For programs: the whole records, and what is missing."""
    return strict_json.dumps({"schema": SCHEMA, **msgspec.to_builtins(merged)}, sort_keys=False)


FORMATS = {".md": as_markdown, ".csv": as_csv, ".json": as_json}
"""By the file's suffix."""


def _text(text: str) -> str:
    return markdown_text.escape(redacted(text))
