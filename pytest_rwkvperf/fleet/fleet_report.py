"""A fleet's report, as Markdown, HTML, CSV or JSON: every machine's figures, and what is missing."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from pytest_rwkvperf.core import strict_json
from pytest_rwkvperf.core.text import counted, csv_cell, redacted, safe
from pytest_rwkvperf.reports import figures, headline, markdown_text, pages, wording
from pytest_rwkvperf.reports.sections.tables import Table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pytest_rwkvperf.fleet.merge import Merged
    from pytest_rwkvperf.reports.headline import Tone
    from pytest_rwkvperf.store.record import Record

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


@dataclass(frozen=True, slots=True)
class _Machine:
    """One run: its headline, and what failed."""

    machine: str
    started: str
    tone: Tone
    sentence: str
    failed: tuple[tuple[str, str], ...]


def as_html(merged: Merged) -> str:
    """For people: whether something got slower anywhere, each machine's headline, the worst first, and the table.

    Raises:
        OptionError: Jinja2 is not installed.
    """
    runs = sorted(map(_machine, merged.runs), key=lambda run: _TONES.index(run.tone))
    tone, sentence = _headline(runs, len(merged.missing))
    context = {
        "tone": tone,
        "sentence": sentence,
        "runs": runs,
        "missing": [(safe(lost.name), safe(lost.reason)) for lost in merged.missing],
        "table": Table("Figures of every machine", COLUMNS, [*rows(merged)]),
    }
    return pages.render("fleet.html.jinja", context)


_TONES: tuple[Tone, ...] = ("bad", "unsure", "good", "plain")


def _machine(run: Record) -> _Machine:
    shown = run.disambiguated()
    found = headline.of(shown)
    failed = ((safe(figures.item_name(case, item)), safe(item.reason)) for case, item in shown.items() if item.fails)
    sentence = safe(found.sentence, keep=wording.SPACE)
    return _Machine(safe(run.fingerprint.id), run.started[:10], found.tone, sentence, tuple(failed))


def _headline(runs: Sequence[_Machine], missing: int) -> tuple[Tone, str]:
    """The worst headline of all runs; with a missing machine it is not `good`."""
    total = wording.count(len(runs), "run")
    lost = f"; {missing} missing" if missing else ""
    words: dict[Tone, str] = {"bad": "Slower, wrong or not measured", "unsure": "Not settled"}
    for tone, word in words.items():
        if number := sum(run.tone == tone for run in runs):
            return tone, f"{word} in {number} of {total}{lost}"
    if not any(run.tone == "good" for run in runs):
        return ("unsure" if missing else "plain"), f"{total} without a comparison{lost}"
    return ("unsure" if missing else "good"), f"Nothing got slower in {total}{lost}"


FORMATS = {".md": as_markdown, ".html": as_html, ".csv": as_csv, ".json": as_json}
"""By the file's suffix."""


def _text(text: str) -> str:
    return markdown_text.escape(redacted(text))
