"""The tables at the end of a run, as text for a terminal."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pytest_rwkvperf.reports import figures

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pytest_rwkvperf.store.record import Record, RecordedCase, RecordedItem

_COLOURS = {
    "PASS": "green",
    "IMPROVEMENT": "bold green",
    "REGRESSION": "bold red",
    "INVALID": "bold red",
    "INCONCLUSIVE": "yellow",
    "NO-BASELINE": "cyan",
    "HOLDS": "green",
    "BROKEN": "bold red",
}

_TEXT_COLUMNS = ("backend", "quant", "device", "workload", "invariant", "compares", "by", "verdict")

_WIDE_COLUMNS = ("bounds", "finds", "parity", "by")
"""Left out of a narrow terminal."""

_MAX_WIDTH = 1000
"""Columns: more than any table has."""


def verdicts(items: Iterable[tuple[RecordedCase, RecordedItem]], width: int, *, colour: bool) -> str:
    """The verdicts for a terminal of `width` columns.

    A table that is too wide becomes narrower by fewer columns and single spaces. What is still too wide is left to the
    terminal to wrap: rich would truncate columns to "REGRESS…" and "12…".
    """
    rows = [figures.item_cells(case, item) for case, item in items if item.verdict]
    text = _text(rows, colour=colour)
    if max(map(cell_len, _text(rows).splitlines()), default=0) <= width:
        return text
    narrow = [{name: cell for name, cell in row.items() if name not in _WIDE_COLUMNS} for row in rows]
    return _text(narrow, colour=colour, padded=False)


def invariants(record: Record, *, colour: bool) -> str:
    """The verdicts on invariants; empty if the run judged none."""
    rows = [figures.invariant_cells(case, each) for case in record.cases for each in case.invariants]
    return _text(rows, colour=colour)


def cases(record: Record) -> str:
    """What belongs to a case rather than to a workload: load time, latencies, memory. Empty if nothing was measured."""
    return _text([figures.case_cells(case) for case in record.cases if case.measured], padded=False)


def gpus(record: Record) -> str:
    """What only a GPU has; empty if none was used."""
    used = [case for case in record.cases if case.measured and case.measured.gpu]
    return _text([figures.gpu_cells(case) for case in used], padded=False)


def _text(rows: Sequence[Mapping[str, str]], *, colour: bool = False, padded: bool = True) -> str:
    if not rows:
        return ""
    table = Table(box=None, pad_edge=False, collapse_padding=not padded, header_style="bold")
    for name in rows[0]:
        table.add_column(name, justify="left" if name in _TEXT_COLUMNS else "right")
    for row in rows:
        # As a Text a cell is never read as rich's markup: names come from elsewhere.
        table.add_row(*(Text(cell, _COLOURS[cell] if name == "verdict" else "") for name, cell in row.items()))
    console = Console(file=io.StringIO(), width=_MAX_WIDTH, force_terminal=colour, no_color=not colour, highlight=False)
    with console.capture() as captured:
        console.print(table)
    return captured.get()
