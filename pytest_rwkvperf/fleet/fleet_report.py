"""One report of a fleet, as Markdown, CSV or JSON: every machine's figures, and what is missing."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

import msgspec

from pytest_rwkvperf.core import strict_json
from pytest_rwkvperf.core.text import csv_cell, redacted, safe
from pytest_rwkvperf.reports import markdown

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
    """The table's rows, without anything that a terminal or a spreadsheet would obey."""
    for run in merged.runs:
        for case, item in run.told_apart().items():
            one = case.case
            speed = item.rate
            wide = speed.half_width if speed else None
            yield tuple(
                safe(text)
                for text in (
                    run.fingerprint.id,
                    one.backend,
                    one.model,
                    one.variant,
                    one.device,
                    item.workload,
                    f"{speed.median:.2f}" if speed else "",
                    f"{wide:.1%}" if wide is not None else "",
                    f"{item.baseline.median:.2f}" if item.baseline else "",
                    f"{item.comparison.ratio:.3f}" if item.comparison else "",
                    item.verdict or "none",
                )
            )


def as_markdown(merged: Merged) -> str:
    """For people: the sum, the missing, the failed with their reasons, the table."""
    machines = len({run.fingerprint.id for run in merged.runs})
    count = f"{len(merged.runs)} runs of {machines} kinds of machine; {len(merged.missing)} missing."
    lines = ["# Fleet", "", count, ""]
    if merged.missing:
        lines += ["## Missing", "", *(f"* {_text(one.name)}: {_text(one.reason)}" for one in merged.missing), ""]
    failed = [(run, case, item) for run in merged.runs for case, item in run.told_apart().items() if item.fails]
    if failed:
        lines += ["## Failed", ""]
        lines += [
            f"* {_text(run.fingerprint.id)}, {_text(case.case.label)} {item.workload}: {_text(item.reason)}"
            for run, case, item in failed
        ] + [""]
    cells = [[markdown.escape(cell) for cell in row] for row in rows(merged)]
    lines += ["## Figures", "", markdown.table(COLUMNS, cells, right=_FIGURES)]
    return "\n".join(lines).rstrip() + "\n"


def as_csv(merged: Merged) -> str:
    """For spreadsheets, which find no formula in it."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([csv_cell(text) for text in row] for row in rows(merged))
    writer.writerows([f"missing: {csv_cell(safe(one.name))}", csv_cell(safe(one.reason))] for one in merged.missing)
    return out.getvalue()


def as_json(merged: Merged) -> str:
    """For programs: whole records, and the missing."""
    return strict_json.dumps({"schema": SCHEMA, **msgspec.to_builtins(merged)}, sort_keys=False)


FORMATS = {".md": as_markdown, ".csv": as_csv, ".json": as_json}
"""By the suffix of the file."""


def _text(text: str) -> str:
    return markdown.escape(redacted(text))
