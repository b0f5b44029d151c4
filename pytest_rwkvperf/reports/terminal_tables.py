"""The tables at the end of a run, as text for a terminal."""

from __future__ import annotations

import io
from functools import partial
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pytest_rwkvperf.reports import batches, figures

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from pytest_rwkvperf.store.record import CaseItem, Record

    Rows = Sequence[Mapping[str, str]]

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

_NAMES = ("backend", "quant", "device")

_INDENT = "  "

_MAX_WIDTH = 1000
"""Columns: more than any table has."""


def verdicts(items: Iterable[CaseItem], width: int, *, colour: bool) -> str:
    """The workloads that were measured, with their verdicts; empty if there are none.

    Of a case whose invariants were judged, which have a table of their own, those without a verdict are left out.
    """
    shown = [(case, item) for case, item in items if item.verdict or (item.rate and not case.invariants)]
    rows = figures.item_rows(shown)
    dispensable = ("parity", "by", "bounds", "detects ≥")
    return _fitted(rows, width, dispensable, ("baseline", "± 95 %"), colour=colour)


def invariants(record: Record, width: int, *, colour: bool) -> str:
    """The verdicts on invariants; empty if the run judged none."""
    rows = [figures.invariant_cells(case, each) for case in record.cases for each in case.invariants]
    return _fitted(rows, width, ("bounds",), ("compares",), colour=colour)


def scaling(record: Record, width: int) -> str:
    """Speed by the number of sequences; empty if each workload was measured with one number of them."""
    rows = batches.rows(batches.scalings(record))
    return _fitted(rows, width, ("memory each", "J/token", "MFU", "MBU"), ("step p99", "step p50"))


def cases(record: Record, width: int) -> str:
    """What belongs to a case rather than to a workload: load time, latencies, memory. Empty if nothing was measured."""
    rows = [figures.case_cells(case) for case in record.cases if case.measured]
    return _fitted(rows, width, ("file",), ("load", "MFU", "MBU", "ITL p99"))


def gpus(record: Record, width: int) -> str:
    """What only a GPU has; empty if none was used."""
    rows = [figures.gpu_cells(case) for case in record.cases if case.measured and case.measured.gpu]
    dispensable = ("SM clock", "hottest", "tg device", "pp device")
    return _fitted(rows, width, dispensable, ("tg busy", "pp busy"))


def _fitted(
    rows: Rows, width: int, dispensable: Sequence[str], last_resort: Sequence[str], *, colour: bool = False
) -> str:
    """The first of these that fits into `width`: two spaces between columns, one space, fewer columns, grouped by case.

    Grouped, a case's names stand above its figures. Nothing is truncated, as rich would do ("REGRESS…"): what is still
    too wide is left to the terminal to wrap.

    Args:
        rows: the cells by column; columns that are empty in all rows are left out.
        width: the terminal's columns.
        dispensable: the columns that a narrow table lacks, the first one first.
        last_resort: those that a grouped one lacks too.
        colour: whether verdicts are coloured.
    """
    rows = figures.without_empty_columns(rows)
    if not rows:
        return ""
    layouts = _layouts(rows, dispensable, last_resort)
    chosen = layouts[-1]
    for layout in layouts:
        if max(map(cell_len, layout(colour=False).splitlines())) <= width:
            chosen = layout
            break
    return chosen(colour=colour)


def _layouts(rows: Rows, dispensable: Sequence[str], last_resort: Sequence[str]) -> list[Callable[..., str]]:
    """The layouts of a table, from the widest to the narrowest; each takes whether to colour."""
    narrower = [_without(rows, dispensable[:count]) for count in range(len(dispensable) + 1)]
    barest = [_without(narrower[-1], last_resort[:count]) for count in range(1, len(last_resort) + 1)]
    return [
        partial(_text, rows, padded=True),
        *(partial(_text, each, padded=False) for each in narrower),
        *(partial(_grouped, each) for each in (*narrower, *barest)),
    ]


def _without(rows: Rows, columns: Collection[str]) -> Rows:
    return [{name: cell for name, cell in row.items() if name not in columns} for row in rows]


def _grouped(rows: Rows, *, colour: bool) -> str:
    """A table without the columns of names, which stand on a line of their own before each case's rows."""
    header, *lines = _text(_without(rows, _NAMES), colour=colour, padded=False).splitlines()
    text, last = [_INDENT + header], None
    for row, line in zip(rows, lines, strict=True):
        names = " ".join(filter(None, (row.get(name) for name in _NAMES)))
        if names != last:
            text.append(names)
        text.append(_INDENT + line)
        last = names
    return "\n".join(text) + "\n"


def _text(rows: Rows, *, colour: bool, padded: bool) -> str:
    table = Table(box=None, pad_edge=False, collapse_padding=not padded, header_style="bold")
    for name in rows[0]:
        table.add_column(name, justify="left" if name in figures.TEXT_COLUMNS else "right")
    for row in rows:
        # As a Text a cell is never read as rich's markup: names come from elsewhere.
        table.add_row(*(Text(cell, _COLOURS.get(cell, "") if name == "verdict" else "") for name, cell in row.items()))
    console = Console(file=io.StringIO(), width=_MAX_WIDTH, force_terminal=colour, no_color=not colour, highlight=False)
    with console.capture() as captured:
        console.print(table)
    return captured.get()
