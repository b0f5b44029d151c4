"""llama-bench's five output formats, laid out as the printers of tools/llama-bench/llama-bench.cpp of llama.cpp do."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, get_type_hints

from pytest_rwkvperf.core.errors import ReportError
from pytest_rwkvperf.core.text import csv_cell
from pytest_rwkvperf.reports.llama_bench_rows import FIELDS, SAMPLES, Row, rows
from pytest_rwkvperf.reports.markdown_text import escape
from pytest_rwkvperf.reports.report import Report

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from pytest_rwkvperf.reports.report import Language
    from pytest_rwkvperf.store.record import Record

_GIB = 1 << 30
_BILLION = 1_000_000_000
_TYPES: dict[str, type] = get_type_hints(Row)


def as_json(chosen: Sequence[Row]) -> str:
    """`-o json`."""
    entries = (",\n".join(f"    {pair}" for pair in _pairs(row)) for row in chosen)
    return "[\n" + ",\n".join(f"  {{\n{entry}\n  }}" for entry in entries) + "\n]\n"


def as_jsonl(chosen: Sequence[Row]) -> str:
    """`-o jsonl`."""
    return "".join("{" + ", ".join(_pairs(row)) + "}\n" for row in chosen)


def _pairs(row: Row) -> Iterator[str]:
    for name in (*FIELDS, *SAMPLES):
        value = getattr(row, name)
        if isinstance(value, tuple):
            yield f'"{name}": [ {", ".join(map(repr, value))} ]'
        else:
            text = f"{value:.6f}" if isinstance(value, float) else json.dumps(value, ensure_ascii=False)
            yield f'"{name}": {text}'


def as_csv(chosen: Sequence[Row]) -> str:
    """`-o csv`: quoted values below an unquoted header. Unlike llama-bench's, no text is a spreadsheet formula."""
    out = io.StringIO()
    writer = csv.writer(out, quoting=csv.QUOTE_ALL, lineterminator="\n")
    for row in chosen:
        writer.writerow(
            csv_cell(text) if _TYPES[name] is str else text for name, text in zip(FIELDS, _texts(row), strict=True)
        )
    return ",".join(FIELDS) + "\n" + out.getvalue()


def as_sql(chosen: Sequence[Row]) -> str:
    """`-o sql`: a table and its rows, which `sqlite3 FILE` reads. Unlike llama-bench's, values are escaped."""
    kinds = {str: "TEXT", float: "REAL"}
    columns = ",\n".join(f"  {name} {kinds.get(_TYPES[name], 'INTEGER')}" for name in FIELDS)
    inserts = (
        # Values are quoted, and nothing here runs the statement.
        f"INSERT INTO llama_bench ({', '.join(FIELDS)}) VALUES ({', '.join(map(_quoted, _texts(row)))});\n"  # noqa: S608
        for row in chosen
    )
    return f"CREATE TABLE IF NOT EXISTS llama_bench (\n{columns}\n);\n\n{''.join(inserts)}"


def _quoted(text: str) -> str:
    # A NUL would end the statement for the sqlite3 shell.
    return "'" + text.replace("\0", "").replace("'", "''") + "'"


def _texts(row: Row) -> list[str]:
    values = (getattr(row, name) for name in FIELDS)
    return [
        f"{value:.6f}" if isinstance(value, float) else str(int(value) if isinstance(value, bool) else value)
        for value in values
    ]


@dataclass(frozen=True, slots=True)
class _Column:
    """A column of the markdown table: heading, width (negative: aligned to the left) and the text of a cell."""

    name: str
    width: int
    text: Callable[[Row], str]

    def line(self, text: str) -> str:
        return text.ljust(-self.width) if self.width < 0 else text.rjust(self.width)

    @property
    def rule(self) -> str:
        return "-" * (abs(self.width) - 1) + ("-" if self.width < 0 else ":")


def as_markdown(chosen: Sequence[Row]) -> str:
    """`-o md`: a table with threads if a row is of a CPU, and with layers if one is of a GPU.

    Settings have a column where a row does not have llama-bench's default, the micro-batch where rows of one engine
    differ in it.
    """
    columns = [
        _Column("model", -30, lambda row: row.model_type),
        _Column("size", 10, lambda row: _size(row.model_size)),
        _Column("params", 10, lambda row: _count(row.model_n_params)),
        _Column("backend", -10, lambda row: row.backends),
    ]
    if any(row.n_gpu_layers for row in chosen):
        columns.append(_Column("ngl", 3, lambda row: str(row.n_gpu_layers)))
    if not all(row.n_gpu_layers for row in chosen):
        columns.append(_Column("threads", 7, lambda row: str(row.n_threads)))
    columns += _setting_columns(chosen)
    columns += [
        _Column("test", 15, lambda row: row.test),
        _Column("t/s", 20, lambda row: f"{row.avg_ts:.2f} ± {row.stddev_ts:.2f}"),
    ]
    lines = [[column.line(column.name) for column in columns], [column.rule for column in columns]]
    lines += [[column.line(escape(column.text(row))) for column in columns] for row in chosen]
    builds = ", ".join(dict.fromkeys(escape(row.build) for row in chosen))
    return "".join("| " + " | ".join(line) + " |\n" for line in lines) + f"\nbuild: {builds}\n"


def _setting_columns(chosen: Sequence[Row]) -> list[_Column]:
    defaults = [
        (_Column("cpu_mask", -10, lambda row: row.cpu_mask), lambda row: row.cpu_mask == "0x0"),
        (_Column("poll", 10, lambda row: str(row.poll)), lambda row: row.poll == 50),  # noqa: PLR2004 - its default
        (_Column("n_ubatch", 8, lambda row: str(row.n_ubatch)), lambda _: not _sweeps_micro_batches(chosen)),
        (_Column("fa", 3, lambda row: str(row.flash_attn)), lambda row: row.flash_attn == -1),
        (_Column("lm", 10, lambda row: row.load_mode), lambda row: row.load_mode == "auto"),
        (_Column("rpk", 3, lambda row: str(int(row.repack))), lambda row: row.repack),
    ]
    return [column for column, is_default in defaults if not all(map(is_default, chosen))]


def _sweeps_micro_batches(chosen: Sequence[Row]) -> bool:
    return len({(row.backends, row.n_ubatch) for row in chosen}) > len({row.backends for row in chosen})


def _size(count: int) -> str:
    return f"{count / (1 << 20):.2f} MiB" if count < _GIB else f"{count / _GIB:.2f} GiB"


def _count(count: int) -> str:
    return f"{count / 1e6:.2f} M" if count < _BILLION else f"{count / 1e9:.2f} B"


class LlamaBench(Report):
    """One of llama-bench's formats, with all engines in one file."""

    def __init__(self, text: Callable[[Sequence[Row]], str]) -> None:
        self._text = text

    def render(self, record: Record, _language: Language, /) -> Mapping[str, str]:
        """One row for each workload that was timed.

        Raises:
            ReportError: nothing was timed.
        """
        chosen = rows(record)
        if not chosen:
            raise ReportError("nothing was timed, so llama-bench's formats have no rows; choose --format json")
        return {"": self._text(chosen)}


JSON = LlamaBench(as_json)
JSONL = LlamaBench(as_jsonl)
CSV = LlamaBench(as_csv)
SQL = LlamaBench(as_sql)
MARKDOWN = LlamaBench(as_markdown)
