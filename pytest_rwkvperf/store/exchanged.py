"""Reading files of speeds: this project's exports (`reports/exchange.py`) and the output of two of llama.cpp's tools.

* llama-batched-bench with `--output-format jsonl` (tools/batched-bench/batched-bench.cpp): one line for each number of
  parallel sequences. The tool warms up with one batch; each figure is of one repetition. This project's own files in
  that format (`reports/llama_batched_bench.py`) say in two fields more which case and convention they are of.
* `test-backend-ops perf --output sql` (tests/test-backend-ops.cpp): one row for each operation. It runs an operation
  once before it times many; its speed here is runs per second.
"""

from __future__ import annotations

import csv
import json
import re
import sqlite3
import statistics
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from pytest_rwkvperf.core import strict_json
from pytest_rwkvperf.core.cases import Workload
from pytest_rwkvperf.core.convention import Convention
from pytest_rwkvperf.core.errors import RecordError
from pytest_rwkvperf.core.text import printable
from pytest_rwkvperf.store.speeds import Speed, series_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

MEASURE = "throughput"
"""Bencher's own measure of which more is better."""

METRIC = "rwkvperf_tokens_per_second"
"""The name of a speed in OpenMetrics."""

OTAVA_COLUMNS = ("time", "commit", "record")
"""What stands before the speeds in a row for Otava."""

_NAME = re.compile(r"(.+) \[([^\[\]]+)\]", re.DOTALL)
_INTERVAL = re.compile(r"^95 % interval: (\S+) to (\S+)$", re.MULTILINE)
_SAMPLE = re.compile(rf"{METRIC}(_low|_high|)\{{(.*)\}} (\S+)")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_BACKEND_OPS = re.compile(r"\bINSERT INTO test_backend_ops\b")
_BATCHED_VERSION = _OPS_VERSION = 1


def parse(text: str, path: Path) -> list[Speed] | None:
    """The speeds in a file's text; None if it is in none of these formats.

    Raises:
        RecordError: it is in one of them, and damaged.
    """
    form = next((form for form in _FORMATS if form.belongs(text)), None)
    if form is None:
        return None
    try:
        found = list(form.read(text))
    except (ValueError, KeyError, TypeError, AttributeError, csv.Error, sqlite3.Error) as error:
        reason = printable(f"{type(error).__name__}: {error}")
        raise RecordError(f"{path} cannot be read as {form.name} ({reason}); write it again") from error
    if not found:
        raise RecordError(f"{path} is {form.name} without a speed that can be compared; measure something")
    return found


def _named(name: str) -> tuple[str, Convention]:
    """Series and convention of `Speed.name`."""
    match = _NAME.fullmatch(name)
    if match is None:
        raise ValueError(f"{name!r} does not end in its convention in square brackets")
    return match[1], Convention.parse(match[2])


def _positive(value: object) -> float:
    number = float(value)  # type: ignore[arg-type]  # what is not a number raises an error that the caller expects
    if not 0 < number < float("inf"):
        raise ValueError(f"{value!r} is no speed")
    return number


def _bencher(text: str) -> Iterator[Speed]:
    for name, measures in strict_json.loads(text, clean=True).items():
        series, convention = _named(name)
        given = {key: _positive(value) for key, value in measures[MEASURE].items()}
        yield Speed(series, convention, given["value"], given.get("lower_value"), given.get("upper_value"))


def _github(text: str) -> Iterator[Speed]:
    for entry in strict_json.loads(text, clean=True):
        series, convention = _named(entry["name"])
        match = _INTERVAL.search(entry.get("extra", ""))
        low, high = map(_positive, match.groups()) if match else (None, None)
        yield Speed(series, convention, _positive(entry["value"]), low, high, entry["unit"])


def _otava(text: str) -> Iterator[Speed]:
    rows = list(csv.reader(text.splitlines(keepends=True)))
    names, newest = rows[0], max(rows[1:], key=lambda row: row[0])
    for name, value in islice(zip(names, newest, strict=True), len(OTAVA_COLUMNS), None):
        yield Speed(*_named(printable(name.removeprefix("'"))), _positive(value))


def _openmetrics(text: str) -> Iterator[Speed]:
    found: dict[tuple[str, Convention], dict[str, float]] = {}
    for line in text.splitlines():
        if match := _SAMPLE.fullmatch(line):
            labels = {name: re.sub(r"\\(.)", r"\1", printable(value)) for name, value in _LABEL.findall(match[2])}
            convention = Convention.parse(labels.pop("convention"))
            found.setdefault((series_of(**labels), convention), {})[match[1]] = _positive(match[3])
    for (series, convention), values in found.items():
        yield Speed(series, convention, values[""], values.get("_low"), values.get("_high"))


def _batched_bench(text: str) -> Iterator[Speed]:
    for line in text.splitlines():
        if not line.startswith("{"):  # the tool logs the loading of the model to the same stream
            continue
        row = strict_json.loads(strict_json.with_zeros(line), clean=True)
        prompt, generated, sequences = int(row["pp"]), int(row["tg"]), int(row["pl"])
        prefill, generation = (
            Workload("prefill", prompt, 0, sequences),
            Workload("generation", generated, prompt, sequences),
        )
        for workload, speed in ((prefill, "speed_pp"), (generation, "speed_tg")):
            if row[speed]:  # 0 where none was asked for
                yield Speed(*_batched_series(row, str(workload)), _positive(row[speed]))


def _batched_series(row: dict[str, Any], workload: str) -> tuple[str, Convention]:
    """Series and convention of a line: of the tool itself, or of this project (`reports/llama_batched_bench.py`)."""
    if "convention" in row:
        return f"{row['case']} {workload}", Convention.parse(row["convention"])
    settings = " ".join(f"{name}={row[name]}" for name in _BATCHED_SETTINGS if name in row)
    convention = Convention("llama-batched-bench", "native", _BATCHED_VERSION, "once", int(row["n_ubatch"]))
    return f"{workload} {settings}", convention


_BATCHED_SETTINGS = ("is_pp_shared", "n_batch", "n_gpu_layers", "n_threads", "n_threads_batch", "flash_attn")
"""What changes a speed of llama-batched-bench; older builds print fewer of them."""


def _backend_ops(text: str) -> Iterator[Speed]:
    times: dict[str, list[float]] = {}
    for backend, operation, parameters, microseconds in _rows_of_backend_ops(text):
        times.setdefault(printable(f"{backend} {operation}({parameters})"), []).append(_positive(microseconds))
    convention = Convention("test-backend-ops", "native", _OPS_VERSION, "once", 0)
    for series, taken in times.items():
        yield Speed(series, convention, 1e6 / statistics.median(taken), unit="runs/s")


def _rows_of_backend_ops(text: str) -> list[tuple[Any, ...]]:
    """Run the statements in a database in memory, which may make that table and fill it, and nothing else."""
    with closing(sqlite3.connect(":memory:")) as database:
        database.set_authorizer(_only_inserts)
        database.executescript(text)
        database.set_authorizer(lambda *_: sqlite3.SQLITE_OK)  # None ends it from Python 3.11 on, and denies all before
        return database.execute(
            "SELECT backend_name, op_name, op_params, time_us FROM test_backend_ops "
            "WHERE test_mode = 'perf' AND supported AND time_us > 0"
        ).fetchall()


_ALLOWED = {sqlite3.SQLITE_CREATE_TABLE, sqlite3.SQLITE_TRANSACTION, sqlite3.SQLITE_READ, sqlite3.SQLITE_UPDATE}


def _only_inserts(action: int, table: str | None, *_: str | None) -> int:
    """SQLite's answer to whether a statement may be run: creating and filling the one table."""
    known = table in ("test_backend_ops", "sqlite_master", "BEGIN", "COMMIT")
    return sqlite3.SQLITE_OK if known and action in (_ALLOWED | {sqlite3.SQLITE_INSERT}) else sqlite3.SQLITE_DENY


def _json_of(text: str, kind: type) -> Any:  # noqa: ANN401 - JSON
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, kind) and value else None


def _is_bencher(text: str) -> bool:
    value = _json_of(text, dict)
    return bool(value) and all(isinstance(each, dict) and MEASURE in each for each in value.values())


def _is_github(text: str) -> bool:
    value = _json_of(text, list)
    return bool(value) and all(isinstance(each, dict) and {"name", "unit", "value"} <= each.keys() for each in value)


def _is_batched_bench(text: str) -> bool:
    return any('"speed_pp"' in line for line in text.splitlines() if line.startswith("{"))


@dataclass(frozen=True, slots=True)
class _Format:
    """A format: its name in messages, whether a text is in it, and the speeds in such a text."""

    name: str
    belongs: Callable[[str], bool]
    read: Callable[[str], Iterator[Speed]]


_FORMATS = (
    _Format("llama-batched-bench's JSONL", _is_batched_bench, _batched_bench),
    _Format("Bencher's JSON", _is_bencher, _bencher),
    _Format("github-action-benchmark's JSON", _is_github, _github),
    _Format("Otava's CSV", lambda text: text.startswith(",".join(OTAVA_COLUMNS)), _otava),
    _Format("OpenMetrics", lambda text: text.startswith(f"# TYPE {METRIC}"), _openmetrics),
    _Format("test-backend-ops' SQL", lambda text: bool(_BACKEND_OPS.search(text)), _backend_ops),
)
