"""llama-bench's five output formats, written from a record, and its JSON, JSONL and CSV read back.

Fields, their order and their notation are those of tools/llama-bench/llama-bench.cpp of llama.cpp (`test::get_fields`,
the printers), as is what a figure means: the mean over all repetitions and the standard deviation with n - 1. What
llama-bench cannot know of another engine is told in its words: `backends` names the engine and its device. Rows of the
program llama-bench itself repeat what it printed of its build and of the machine.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
import statistics
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Literal, get_type_hints

import msgspec

from pytest_rwkvperf.backends.executables import LLAMA_BENCH_BATCH, LLAMA_BENCH_LAYERS
from pytest_rwkvperf.core.cases import Workload
from pytest_rwkvperf.core.errors import ReportError
from pytest_rwkvperf.core.text import csv_cell, from_csv_cell
from pytest_rwkvperf.reports.markdown import escape

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from pytest_rwkvperf.core.engine import Device
    from pytest_rwkvperf.measure.record import CaseRecord
    from pytest_rwkvperf.reports.report import Style
    from pytest_rwkvperf.store.record import Record, RecordedCase

# `type` in src/models/rwkv7.cpp, by layers and width
_SIZES = {
    (12, 768): "190M",
    (24, 1024): "450M",
    (24, 2048): "1.5B",
    (28, 1536): "1.5B",
    (28, 3584): "7B",
    (32, 2560): "2.9B",
    (32, 4096): "7B",
    (61, 4096): "14B",
}
# llama_model_ftype_name in src/llama-model-loader.cpp, where it is not the quant in capitals
_FILE_TYPES = {
    "f32": "all F32",
    "q4_k_s": "Q4_K - Small",
    "q4_k_m": "Q4_K - Medium",
    "q5_k_s": "Q5_K - Small",
    "q5_k_m": "Q5_K - Medium",
}
# ggml_backend_reg_name, where it is not the device's family in capitals
_REGISTRIES = {"vulkan": "Vulkan", "sycl": "SYCL", "metal": "MTL", "mtl": "MTL"}

_GIB = 1 << 30
_BILLION = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Row:
    """One line of llama-bench: a workload of a case. Sizes in bytes, times in nanoseconds, speeds in tokens/s.

    `build_commit` is of the engine: the program llama-bench's own, else seven hexadecimal digits as llama.cpp's, made
    of the engine's versions, since llama-cpp-python does not tell the commit.
    """

    build_commit: str
    build_number: int
    cpu_info: str
    gpu_info: str
    backends: str
    model_filename: str
    model_type: str
    model_size: int
    model_n_params: int
    n_batch: int
    n_ubatch: int
    n_threads: int
    cpu_mask: str
    cpu_strict: bool
    poll: int
    type_k: str
    type_v: str
    n_gpu_layers: int
    n_cpu_moe: int
    split_mode: str
    main_gpu: int
    no_kv_offload: bool
    flash_attn: int
    devices: str
    tensor_split: str
    tensor_buft_overrides: str
    load_mode: str
    lazy_mode: str
    embeddings: bool
    no_op_offload: int
    no_host: bool
    repack: bool
    fit_target: int
    fit_min_ctx: int
    n_prompt: int
    n_gen: int
    n_depth: int
    test_time: str
    avg_ns: int
    stddev_ns: int
    avg_ts: float
    stddev_ts: float
    samples_ns: tuple[int, ...] = field(default=())
    samples_ts: tuple[float, ...] = field(default=())

    @property
    def test(self) -> str:
        """As its table names it: `pp512`, `tg128 @ d4096`."""
        name = f"pp{self.n_prompt}" if self.n_prompt else f"tg{self.n_gen}"
        return f"{name} @ d{self.n_depth}" if self.n_depth else name


FIELDS = tuple(one.name for one in fields(Row))[:-2]
"""In its order; the samples are in JSON only."""

_TYPES: dict[str, type] = get_type_hints(Row)


def rows(record: Record) -> list[Row]:
    """Every workload that was timed. In A/B the old side too, where its versions differ and tell it apart.

    Of a case that was timed as llama-bench does as well as in this project's way, only the former: a row cannot tell.
    """
    cases = record.cases
    return rows_of(record, [case for case in cases if not _timed_natively(case, cases)])


def _timed_natively(case: RecordedCase, cases: Sequence[RecordedCase]) -> bool:
    """Whether a case of this project's protocol has a native twin."""
    if case.case.protocol == "native":
        return False
    twin = replace(case.case, protocol="native", chunk=0)
    return any(replace(one.case, chunk=0) == twin and one.measured for one in cases)


def rows_of(record: Record, cases: Sequence[RecordedCase]) -> list[Row]:
    """The same of some of a record's cases."""
    return [row for case in cases for row in _rows_of(record, case)]


def _rows_of(record: Record, case: RecordedCase) -> Iterator[Row]:
    sides = [case.measured] if case.measured else []
    if case.old and case.measured and case.old.versions != case.measured.versions:
        sides.insert(0, case.old)
    for side in sides:
        for item in case.items:
            times = [one.nanoseconds for run in side.runs for one in run.samples.get(item.workload, ())]
            if times:
                yield _timed(_described(record, side, sides), Workload.parse(item.workload), times)


def _described(record: Record, side: CaseRecord, sides: Sequence[CaseRecord]) -> Row:
    row = _of_engine(record, side)
    return _as_told(row, side, sides) if side.case.backend == "llama-bench" else row


def _as_told(row: Row, side: CaseRecord, sides: Sequence[CaseRecord]) -> Row:
    """Of the program llama-bench: what it was given, and what it printed of itself."""
    told, on_gpu = side.versions, side.device.kind != "cpu"
    family, _, number = side.device.id.partition(":")
    build = re.fullmatch(r"(\w+) \((\d+)\)", told.get("build", ""))
    # Two builds of one commit, side by side: made of the versions they stay apart.
    alone = sum(one.versions.get("build") == told.get("build") for one in sides) == 1
    return replace(
        row,
        build_commit=build[1] if build and alone else row.build_commit,
        build_number=int(build[2]) if build and alone else row.build_number,
        cpu_info=told.get("cpu_info", row.cpu_info),
        gpu_info=told.get("gpu_info", row.gpu_info),
        backends=told.get("backends", _registry(family)),
        n_batch=max(LLAMA_BENCH_BATCH, side.case.chunk),
        n_gpu_layers=LLAMA_BENCH_LAYERS if on_gpu else 0,
        devices=f"{_registry(family)}{number}" if on_gpu else "none",
    )


def _of_engine(record: Record, side: CaseRecord) -> Row:
    """What a case's rows have in common.

    The script compares rows that agree in what was asked of llama-bench, so what was not asked has its default there.
    """
    case, device, model = side.case, side.device, side.model
    on_cpu = device.kind == "cpu"
    return Row(
        build_commit=build_of(side.versions),
        build_number=0,
        cpu_info=device.name if on_cpu and case.backend == "llama-cpp" else record.fingerprint.cpu,
        gpu_info="" if on_cpu else device.name,
        backends=_backends(case.backend, device),
        model_filename=model.file_name or model.name,
        model_type=f"rwkv7 {_SIZES.get((model.layers, model.width), '?B')} {_file_type(case.quant)}",
        model_size=model.tensor_bytes or model.file_bytes,
        model_n_params=model.tensor_elements or model.parameters,
        n_batch=case.chunk,
        n_ubatch=case.chunk,
        n_threads=case.threads,
        cpu_mask="0x0",
        cpu_strict=False,
        poll=50,
        type_k="f16",
        type_v="f16",
        n_gpu_layers=0 if on_cpu else -1,
        n_cpu_moe=0,
        split_mode="layer",
        main_gpu=0,
        no_kv_offload=False,
        flash_attn=-1,
        devices="none" if on_cpu else device.id,
        tensor_split="0.00",
        tensor_buft_overrides="none",
        load_mode="auto",
        lazy_mode="auto",
        embeddings=False,
        no_op_offload=0,
        no_host=False,
        repack=True,
        fit_target=0,
        fit_min_ctx=0,
        n_prompt=0,
        n_gen=0,
        n_depth=0,
        test_time=datetime.fromtimestamp(side.runs[0].started, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        avg_ns=0,
        stddev_ns=0,
        avg_ts=0.0,
        stddev_ts=0.0,
    )


def _timed(row: Row, workload: Workload, times: Sequence[int]) -> Row:
    speeds = [workload.tokens / time * 1e9 for time in times]
    prefill = workload.kind == "prefill"
    return replace(
        row,
        n_prompt=workload.tokens if prefill else 0,
        n_gen=0 if prefill else workload.tokens,
        n_depth=workload.depth,
        avg_ns=round(statistics.fmean(times)),
        stddev_ns=round(_deviation(times)),
        avg_ts=round(statistics.fmean(speeds), 6),
        stddev_ts=round(_deviation(speeds), 6),
        samples_ns=tuple(times),
        samples_ts=tuple(float(f"{speed:.6g}") for speed in speeds),
    )


def _deviation(values: Sequence[float]) -> float:
    """llama-bench gives 0 for a single repetition."""
    return statistics.stdev(values) if len(values) > 1 else 0.0


def build_of(versions: Mapping[str, str]) -> str:
    """Seven digits that are the same for the same versions of an engine."""
    return hashlib.sha256(json.dumps(versions, sort_keys=True).encode()).hexdigest()[:7]


def _backends(backend: str, device: Device) -> str:
    """`CUDA` for llama.cpp, as there; `rwkv CUDA` for another engine."""
    name = _registry(device.id.partition(":")[0])
    return name if backend == "llama-cpp" else f"{backend} {name}"


def _registry(family: str) -> str:
    return _REGISTRIES.get(family, family.upper())


def _file_type(quant: str) -> str:
    return _FILE_TYPES.get(quant, quant.upper())


# Writing


def as_json(chosen: Sequence[Row]) -> str:
    """`-o json`."""
    entries = (",\n".join(f"    {pair}" for pair in _pairs(row)) for row in chosen)
    return "[\n" + ",\n".join(f"  {{\n{entry}\n  }}" for entry in entries) + "\n]\n"


def as_jsonl(chosen: Sequence[Row]) -> str:
    """`-o jsonl`."""
    return "".join("{" + ", ".join(_pairs(row)) + "}\n" for row in chosen)


def _pairs(row: Row) -> Iterator[str]:
    for name, value in asdict(row).items():
        if isinstance(value, tuple):
            yield f'"{name}": [ {", ".join(map(repr, value))} ]'
        else:
            text = f"{value:.6f}" if isinstance(value, float) else json.dumps(value, ensure_ascii=False)
            yield f'"{name}": {text}'


def as_csv(chosen: Sequence[Row]) -> str:
    """`-o csv`: every value quoted, the header not. Unlike llama-bench's, no text of it is a formula."""
    out = io.StringIO()
    writer = csv.writer(out, quoting=csv.QUOTE_ALL, lineterminator="\n")
    for row in chosen:
        writer.writerow(
            csv_cell(text) if _TYPES[name] is str else text for name, text in zip(FIELDS, _texts(row), strict=True)
        )
    return ",".join(FIELDS) + "\n" + out.getvalue()


def as_sql(chosen: Sequence[Row]) -> str:
    """`-o sql`: a table and its rows; `sqlite3 FILE` reads it. Unlike llama-bench's, values are escaped."""
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
        f"{one:.6f}" if isinstance(one, float) else str(int(one) if isinstance(one, bool) else one) for one in values
    ]


@dataclass(frozen=True, slots=True)
class _Column:
    """One of its table: heading, width (negative: to the left) and the cell's text."""

    name: str
    width: int
    text: Callable[[Row], str]

    def line(self, text: str) -> str:
        return text.ljust(-self.width) if self.width < 0 else text.rjust(self.width)

    @property
    def rule(self) -> str:
        return "-" * (abs(self.width) - 1) + ("-" if self.width < 0 else ":")


def as_markdown(chosen: Sequence[Row]) -> str:
    """`-o md`: its table, with threads where a row is of a CPU and layers where one is of a GPU."""
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
    columns += [
        _Column("test", 15, lambda row: row.test),
        _Column("t/s", 20, lambda row: f"{row.avg_ts:.2f} ± {row.stddev_ts:.2f}"),
    ]
    lines = [[column.line(column.name) for column in columns], [column.rule for column in columns]]
    lines += [[column.line(escape(column.text(row))) for column in columns] for row in chosen]
    built = ", ".join(dict.fromkeys(f"{row.build_commit} ({row.build_number})" for row in chosen))
    return "".join("| " + " | ".join(line) + " |\n" for line in lines) + f"\nbuild: {built}\n"


def _size(count: int) -> str:
    return f"{count / (1 << 20):.2f} MiB" if count < _GIB else f"{count / _GIB:.2f} GiB"


def _count(count: int) -> str:
    return f"{count / 1e6:.2f} M" if count < _BILLION else f"{count / 1e9:.2f} B"


# Reading


def read(text: str, notation: Literal["json", "jsonl", "csv"]) -> list[Row]:
    """What llama-bench, or this module, wrote. Fields that are unknown here are left out.

    Raises:
        ReportError: it is something else, or lacks a field.
    """
    try:
        raw: list[dict[str, Any]]
        if notation == "csv":
            raw = [_from_cells(row) for row in csv.DictReader(io.StringIO(text))]
        elif notation == "json":
            raw = msgspec.json.decode(text, type=list[dict[str, Any]])
        else:
            raw = [msgspec.json.decode(line, type=dict[str, Any]) for line in text.splitlines() if line.strip()]
        return msgspec.convert([_known(one) for one in raw], type=list[Row], strict=notation != "csv")
    except (msgspec.MsgspecError, csv.Error, TypeError, AttributeError, RecursionError) as error:
        raise ReportError(f"this is not llama-bench's {notation} output: {error}") from error


def _from_cells(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: from_csv_cell(one) if isinstance(one, str) else one for name, one in row.items()}


def _known(raw: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in raw.items() if name in _TYPES}


# The formats


@dataclass(frozen=True, slots=True)
class LlamaBench:
    """One of its formats as a report."""

    suffix: str
    text: Callable[[Sequence[Row]], str]

    def render(self, record: Record, style: Style) -> Mapping[str, str]:  # noqa: ARG002 - the Protocol's signature
        """All engines in one file.

        Raises:
            ReportError: nothing was timed.
        """
        chosen = rows(record)
        if not chosen:
            raise ReportError("nothing was timed, so there is nothing to tell in llama-bench's words")
        return {"": self.text(chosen)}


JSON = LlamaBench(".json", as_json)
JSONL = LlamaBench(".jsonl", as_jsonl)
CSV = LlamaBench(".csv", as_csv)
SQL = LlamaBench(".sql", as_sql)
MARKDOWN = LlamaBench(".md", as_markdown)
