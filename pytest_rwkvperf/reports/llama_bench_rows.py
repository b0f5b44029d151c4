"""The rows of llama-bench's output, made from a record.

Fields, their order and their meaning are those of tools/llama-bench/llama-bench.cpp of llama.cpp (`test::get_fields`):
speeds are the mean over all repetitions and the standard deviation with n - 1. For another engine, `backends` names the
engine and its device. Rows of the program llama-bench itself repeat what it printed about its build and the machine.
"""

from __future__ import annotations

import hashlib
import json
import re
import statistics
from dataclasses import dataclass, fields, replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from pytest_rwkvperf.backends.executables import LLAMA_BENCH_BATCH, LLAMA_BENCH_LAYERS
from pytest_rwkvperf.core.cases import Workload

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pytest_rwkvperf.core.cases import Case
    from pytest_rwkvperf.measure.record import CaseRecord
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
_BUILD = re.compile(r"(\w+) \((\d+)\)")
"""A program's commit and number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row: a workload of a case. Sizes in bytes, times in nanoseconds, speeds in tokens/s.

    `build_commit` is the program llama-bench's own; of another engine seven hexadecimal digits as llama.cpp's, made
    from the engine's versions, because llama-cpp-python does not tell the commit. Fields with a default value are
    llama-bench's options that this project does not set: compare-llama-bench.py joins rows that agree in them.
    """

    build_commit: str
    build_number: int = 0
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
    cpu_mask: str = "0x0"
    cpu_strict: bool = False
    poll: int = 50
    type_k: str = "f16"
    type_v: str = "f16"
    n_gpu_layers: int
    n_cpu_moe: int = 0
    split_mode: str = "layer"
    main_gpu: int = 0
    no_kv_offload: bool = False
    flash_attn: int = -1
    devices: str
    tensor_split: str = "0.00"
    tensor_buft_overrides: str = "none"
    load_mode: str = "auto"
    lazy_mode: str = "auto"
    embeddings: bool = False
    no_op_offload: int = 0
    no_host: bool = False
    repack: bool = True
    fit_target: int = 0
    fit_min_ctx: int = 0
    n_prompt: int = 0
    n_gen: int = 0
    n_depth: int = 0
    test_time: str
    avg_ns: int = 0
    stddev_ns: int = 0
    avg_ts: float = 0.0
    stddev_ts: float = 0.0
    samples_ns: tuple[int, ...] = ()
    samples_ts: tuple[float, ...] = ()
    build: str = ""
    """The line below the Markdown table; in no other format. It has llama.cpp's commit only if a program printed it."""

    @property
    def test(self) -> str:
        """The workload as llama-bench's table names it: `pp512`, `tg128 @ d4096`."""
        name = f"pp{self.n_prompt}" if self.n_prompt else f"tg{self.n_gen}"
        return f"{name} @ d{self.n_depth}" if self.n_depth else name


SAMPLES = ("samples_ns", "samples_ts")
"""The fields that only JSON has."""

FIELDS = tuple(field.name for field in fields(Row) if field.name not in (*SAMPLES, "build"))
"""The columns of a table."""


def rows(record: Record) -> list[Row]:
    """Every workload of one sequence that was timed; of A/B also the old side, if its versions differ from the new's.

    Of a case timed both natively and uniformly only the native rows: llama-bench's fields cannot tell the two apart.
    """
    return rows_of(record, [case for case in record.cases if not _has_native_twin(case, record.cases)])


def _has_native_twin(case: RecordedCase, cases: Sequence[RecordedCase]) -> bool:
    if case.case.protocol == "native":
        return False
    twin = replace(case.case, protocol="native", chunk=0)
    return any(replace(other.case, chunk=0) == twin and other.measured for other in cases)


def rows_of(record: Record, cases: Sequence[RecordedCase]) -> list[Row]:
    """Every workload that was timed, of some of a record's cases."""
    return [row for case in cases for row in _rows_of(record, case)]


def _rows_of(record: Record, case: RecordedCase) -> Iterator[Row]:
    sides = [case.measured] if case.measured else []
    if case.old and case.measured and case.old.versions != case.measured.versions:
        sides.insert(0, case.old)
    for side in sides:
        template = _template(record, side, sides)
        for item in case.items:
            workload = Workload.parse(item.workload)
            if workload.batch > 1:  # llama-bench has no batches of sequences: its n_batch is the chunk
                continue
            times = [sample.nanoseconds for run in side.runs for sample in run.samples.get(item.workload, ())]
            if times:
                yield _timed(template, workload, times)


def _template(record: Record, side: CaseRecord, sides: Sequence[CaseRecord]) -> Row:
    """What all rows of one side of a case share."""
    row = _of_engine(record, side)
    row = _of_program(row, side, sides) if side.case.backend == "llama-bench" else row
    return _with_settings(row, side.case)


def _with_settings(row: Row, case: Case) -> Row:
    """The row with the case's own settings of llama.cpp, in the numbers and words of llama-bench."""
    given = dict(case.settings)
    return replace(
        row,
        n_batch=case.chunk if "ubatch" in given else row.n_batch,
        n_ubatch=int(given.get("ubatch", row.n_ubatch)),
        cpu_mask=given.get("cpu-mask", row.cpu_mask),
        poll=int(given.get("poll", row.poll)),
        n_gpu_layers=int(given.get("n-gpu-layers", row.n_gpu_layers)),
        flash_attn={"off": 0, "on": 1}.get(given.get("flash-attn", "auto"), row.flash_attn),
        load_mode={"off": "none", "on": "mmap"}.get(given.get("mmap", ""), row.load_mode),
        repack=given.get("repack") != "off",
    )


def _of_engine(record: Record, side: CaseRecord) -> Row:
    case, device, model = side.case, side.device, side.model
    on_cpu = device.kind == "cpu"
    backend = _registry(device.id.partition(":")[0])
    return Row(
        build_commit=build_of(side.versions),
        build=_build_told(side.versions),
        cpu_info=device.name if on_cpu and case.backend == "llama-cpp" else record.fingerprint.cpu,
        gpu_info="" if on_cpu else device.name,
        backends=backend if case.backend == "llama-cpp" else f"{case.backend} {backend}",
        model_filename=model.file_name or model.name,
        model_type=f"rwkv7 {_SIZES.get((model.layers, model.width), '?B')} {_file_type(case.quant)}",
        model_size=model.tensor_bytes or model.file_bytes,
        model_n_params=model.tensor_elements or model.parameters,
        n_batch=case.chunk,
        n_ubatch=case.chunk,
        n_threads=case.threads,
        n_gpu_layers=0 if on_cpu else -1,
        devices="none" if on_cpu else device.id,
        test_time=datetime.fromtimestamp(side.runs[0].started, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
    )


def _of_program(row: Row, side: CaseRecord, sides: Sequence[CaseRecord]) -> Row:
    """The row with the options given to the program llama-bench and with what it printed about itself."""
    printed, on_gpu = side.versions, side.device.kind != "cpu"
    family, _, number = side.device.id.partition(":")
    build = _BUILD.fullmatch(printed.get("build", ""))
    # Two builds of one commit side by side keep the digits made from their versions, which differ.
    unique = sum(other.versions.get("build") == printed.get("build") for other in sides) == 1
    return replace(
        row,
        build_commit=build[1] if build and unique else row.build_commit,
        build_number=int(build[2]) if build and unique else row.build_number,
        build=printed["build"] if build else row.build,
        cpu_info=printed.get("cpu_info", row.cpu_info),
        gpu_info=printed.get("gpu_info", row.gpu_info),
        backends=printed.get("backends", _registry(family)),
        n_batch=max(LLAMA_BENCH_BATCH, side.case.chunk),
        n_gpu_layers=LLAMA_BENCH_LAYERS if on_gpu else 0,
        devices=f"{_registry(family)}{number}" if on_gpu else "none",
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
    """The standard deviation; 0 for a single repetition, as in llama-bench."""
    return statistics.stdev(values) if len(values) > 1 else 0.0


def build_of(versions: Mapping[str, str]) -> str:
    """Seven hexadecimal digits, the same for the same versions of an engine."""
    return hashlib.sha256(json.dumps(versions, sort_keys=True).encode()).hexdigest()[:7]


def _build_told(versions: Mapping[str, str]) -> str:
    """The line for people where the commit is unknown: with the engine's own version, the first of them."""
    name, version = next(iter(versions.items()), ("", ""))
    return f"unknown ({name} {version})" if name else "unknown"


def _registry(family: str) -> str:
    return _REGISTRIES.get(family, family.upper())


def _file_type(quant: str) -> str:
    return _FILE_TYPES.get(quant, quant.upper())
