"""All figures as tables, and how each case was measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_rwkvperf.core.engine_settings import in_words
from pytest_rwkvperf.reports import figures

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pytest_rwkvperf.measure.record import ModelFacts
    from pytest_rwkvperf.reports.sections.shown import Shown

_LONG_WORDS = ("machine", "model", "quant", "compares")
"""Columns of tables whose cells may be broken into lines."""


@dataclass(frozen=True, slots=True)
class Table:
    """Cells as text; columns without any text are left out."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""

    @staticmethod
    def class_of(column: str, cell: str = "") -> str:
        """The CSS class of a cell, or without one of the column's heading: of figures, of a verdict, of long words."""
        if column not in figures.TEXT_COLUMNS:
            return "n"
        if cell and column == "verdict":
            return cell
        return "words" if cell and column in _LONG_WORDS else ""


def tables(shown: Shown) -> list[Table] | None:
    """The terminal's tables: every workload, every case, and every GPU."""
    record = shown.record
    if not any(item.rate for _, item in record.items()):
        return None
    gpus = [figures.gpu_cells(case) for case, measured in shown.measured() if measured.gpu]
    found = [
        table_of("Every workload", [figures.item_cells(*each) for each in record.items()], figures.mixed_rates(record)),
        table_of("Every case", [figures.case_cells(case) for case, _ in shown.measured()]),
        table_of("GPU", gpus),
    ]
    return [table for table in found if table.rows]


def table_of(caption: str, rows: Sequence[Mapping[str, str]], note: str = "") -> Table:
    """A table of rows by column, without the columns that are empty in all of them."""
    columns = [name for name in (rows[0] if rows else ()) if any(row[name] for row in rows)]
    return Table(caption, columns, [[row[name] for name in columns] for row in rows], note)


@dataclass(frozen=True, slots=True)
class Conditions:
    """The measured models, each once, and how each case was measured."""

    models: Sequence[ModelFacts]
    table: Table


def conditions(shown: Shown) -> Conditions:
    """What the section on machine and run says beside the record's own fields."""
    models = {measured.model.content_hash: measured.model for _, measured in shown.measured()}
    rows = [
        {
            **figures.names(case),
            "threads": str(case.case.threads),
            "chunk": str(case.case.chunk),
            "own settings": in_words(case.case.settings),
            "processes": str(len(measured.runs)),
            "ended by": measured.ended_by,
            "load before": f"{measured.conditions.load_before:.2f}",
            "steal": figures.percent(measured.conditions.steal),
            "other processes": figures.percent(measured.conditions.foreign),
        }
        for case, measured in shown.measured()
    ]
    return Conditions(list(models.values()), table_of("How each case was measured", rows))
