"""llama-bench's formats against what llama-bench printed (in `llama_bench/`, llama-cpp-python 0.3.36)."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import sqlite3
import subprocess
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from pytest_rwkvperf.core.cases import Case
from pytest_rwkvperf.core.engine import Device
from pytest_rwkvperf.core.errors import ReportError
from pytest_rwkvperf.measure.record import CaseRecord, ModelFacts
from pytest_rwkvperf.reports import llama_bench, llama_bench_rows
from pytest_rwkvperf.reports.llama_bench_rows import FIELDS
from tests.unit.building import CPU, make_record, make_run, recorded, report_record

THEIRS = Path(__file__).with_name("llama_bench")
MODEL = ModelFacts("synthetic:nano", "a" * 64, 37310464, 76330784, "rwkv7-4x256-f16.gguf", 4, 256, 74956800, 37326848)
TIMES = {"pp64": (22891683, 14041524, 21887114), "tg16": (233114930, 77037684, 75978324)}
"""What llama-bench measured in `theirs.json`."""

F16 = Case("llama-cpp", "synthetic:nano", "f16", "cpu", 2, 512)
WEB = Case("web-rwkv", "synthetic:nano", "int8@31", "vulkan:0", 2, 128)
GPU = Device("vulkan:0", 'Hostile \' ; DROP | "GPU"\n', "gpu")


def case(case: Case = F16, device: Device = CPU, version: str = "1") -> CaseRecord:
    measured = replace(
        make_record(make_run(pp64=TIMES["pp64"], tg16=TIMES["tg16"]), case=case, device=device), model=MODEL
    )
    return replace(measured, versions={case.backend: version})


ALIKE = report_record(recorded(case()))
BOTH = report_record(recorded(case()), recorded(case(WEB, GPU)))


def theirs(suffix: str) -> str:
    return (THEIRS / f"theirs.{suffix}").read_text(encoding="utf-8")


def ours(report: llama_bench.LlamaBench) -> str:
    return report.render(ALIKE, "en")[""]


# Fields that differ between llama-bench and an engine in this environment, or from run to run.
OWN = {"build_commit", "build_number", "cpu_info", "n_batch", "devices", "test_time"}


def test_json_has_llama_benchs_fields_order_types_and_figures() -> None:
    mine, real = json.loads(ours(llama_bench.JSON)), json.loads(theirs("json"))
    assert len(mine) == len(real) == 2
    for row, reference in zip(mine, real, strict=True):
        assert list(row) == list(reference)
        assert {name: type(value) for name, value in row.items()} == {n: type(v) for n, v in reference.items()}
        same = set(row) - OWN - {"avg_ns", "stddev_ns"}
        assert {name: row[name] for name in same} == {name: reference[name] for name in same}
        assert row["avg_ns"] == pytest.approx(reference["avg_ns"], abs=1)
        assert row["stddev_ns"] == pytest.approx(reference["stddev_ns"], rel=1e-6)


def test_jsonl_csv_and_sql_are_laid_out_as_llama_benchs() -> None:
    for mine, real in zip(ours(llama_bench.JSONL).splitlines(), theirs("jsonl").splitlines(), strict=True):
        assert list(json.loads(mine)) == list(json.loads(real))
    assert ours(llama_bench.CSV).splitlines()[0] == theirs("csv").splitlines()[0]
    assert [len(row) for row in csv.reader(io.StringIO(ours(llama_bench.CSV)))] == [len(FIELDS)] * 3
    create, insert = ours(llama_bench.SQL).split(";\n\n")
    real_create, real_insert = theirs("sql").split(";\n\n")
    assert create == real_create
    assert insert[: insert.index("VALUES")] == real_insert[: real_insert.index("VALUES")]


def test_markdown_is_laid_out_as_llama_benchs() -> None:
    mine, real = ours(llama_bench.MARKDOWN).splitlines(), theirs("md").splitlines()
    assert mine[:2] == real[:2]
    blank = [re.sub(r"[\d.]+ ± [\d.]+", "", line).replace(" ", "") for line in (*mine[2:4], *real[2:4])]
    assert blank[:2] == blank[2:]
    assert mine[2].endswith(" |     3425.93 ± 982.42 |")


def test_gpu_has_layers_and_other_engines_their_name() -> None:
    table = llama_bench.MARKDOWN.render(BOTH, "en")[""].splitlines()[:6]
    assert table[0].split("|")[4:8] == [" backend    ", " ngl ", " threads ", "            test "]
    assert [line.split("|")[1].strip() for line in table[2::2]] == ["rwkv7 ?B F16", "rwkv7 ?B INT8@31"]
    assert [line.split("|")[4].strip() for line in table[2::2]] == ["CPU", "web-rwkv Vulkan"]


def test_own_settings_of_llama_cpp_are_in_its_fields_and_columns() -> None:
    values = (("cpu-mask", "0x3"), ("flash-attn", "off"), ("mmap", "off"), ("poll", "0"), ("repack", "off"))
    swept = [replace(F16, settings=(*values, ("ubatch", size))) for size in ("8", "64")]
    record = report_record(*(recorded(case(each)) for each in swept))
    small, _, large, _ = json.loads(llama_bench.JSON.render(record, "en")[""])
    names = ("n_batch", "n_ubatch", "cpu_mask", "flash_attn", "load_mode", "poll", "repack")
    assert [small[name] for name in names] == [512, 8, "0x3", 0, "none", 0, False]
    assert large["n_ubatch"] == 64
    header, _, first, *_ = llama_bench.MARKDOWN.render(record, "en")[""].splitlines()
    columns = [cell.strip() for cell in header.split("|")]
    assert columns[5:-3] == ["threads", "cpu_mask", "poll", "n_ubatch", "fa", "lm", "rpk"]
    assert [cell.strip() for cell in first.split("|")][5:-3] == ["2", "0x3", "0", "8", "0", "none", "0"]


# The program llama-bench as a backend

TOLD = {"llama-bench": "unknown", "build": "0c1e570 (1)", "backends": "CPU", "cpu_info": "AMD EPYC"}
H200 = Device("cuda:1", "NVIDIA H200", "gpu")


def program(device: Device = CPU, **told: str) -> CaseRecord:
    chosen = replace(F16, backend="llama-bench", device=device.id, protocol="native")
    return replace(case(chosen, device), versions=TOLD | told)


def test_rows_of_the_program_repeat_what_it_printed() -> None:
    rows = llama_bench_rows.rows(report_record(recorded(program())))
    for row, reference in zip(rows, json.loads(theirs("json")), strict=True):
        fields = {name: value for name, value in asdict(row).items() if name != "build"}
        assert fields | {"samples_ns": [*row.samples_ns], "samples_ts": [*row.samples_ts]} == {
            **reference,
            "devices": "none",  # it was given no -dev then
            "test_time": row.test_time,
            "avg_ns": row.avg_ns,
            "stddev_ns": row.stddev_ns,
        }


def test_program_on_a_gpu_keeps_its_own_names() -> None:
    told = {"backends": "CUDA", "cpu_info": "AMD EPYC 9555", "gpu_info": "NVIDIA H200, NVIDIA H200"}
    row = llama_bench_rows.rows(report_record(recorded(program(H200, **told))))[0]
    assert {name: getattr(row, name) for name in told} == told
    assert (row.devices, row.n_gpu_layers) == ("CUDA1", 99)
    table = llama_bench.as_markdown([row]).splitlines()[2]
    assert table.split("|")[4].strip() == "CUDA"


def test_device_replaces_what_the_program_did_not_print() -> None:
    measured = replace(program(H200), versions={"llama-bench": "unknown"})
    row = llama_bench_rows.rows(report_record(recorded(measured)))[0]
    assert (row.backends, row.gpu_info, row.cpu_info) == ("CUDA", "NVIDIA H200", "Model of processor")
    assert re.fullmatch("[0-9a-f]{7}", row.build_commit)


def test_two_builds_of_one_commit_stay_apart() -> None:
    pair = recorded(program(executable="b" * 12), old=program(executable="a" * 12))
    assert len({row.build_commit for row in llama_bench_rows.rows(report_record(pair))}) == 2
    other = recorded(program(), old=program(build="1234567 (2)"))
    assert [(row.build_commit, row.build_number) for row in llama_bench_rows.rows(report_record(other))[::2]] == [
        ("1234567", 2),
        ("0c1e570", 1),
    ]


@pytest.mark.parametrize(
    ("layers", "width", "quant", "kind"),
    [
        (32, 2560, "f16", "rwkv7 2.9B F16"),
        (12, 768, "q4_k_m", "rwkv7 190M Q4_K - Medium"),
        (1, 64, "f32", "rwkv7 ?B all F32"),
    ],
)
def test_model_type_is_llama_cpps(layers: int, width: int, quant: str, kind: str) -> None:
    measured = replace(case(replace(F16, quant=quant)), model=replace(MODEL, layers=layers, width=width))
    assert llama_bench_rows.rows(report_record(recorded(measured)))[0].model_type == kind


def test_csv_text_is_no_spreadsheet_formula() -> None:
    named = replace(MODEL, file_name='=HYPERLINK("x")', name="@x")
    (row, _) = llama_bench_rows.rows(report_record(recorded(replace(case(), model=named))))
    text = llama_bench.as_csv([replace(row, cpu_info="+1", devices="-1", main_gpu=-1)])
    (cells,) = csv.DictReader(io.StringIO(text))
    formulas = {name for name, value in cells.items() if value.startswith(("=", "+", "-", "@"))}
    assert formulas == {"flash_attn", "main_gpu"}, "numbers stay as they are"
    assert (cells["model_filename"], cells["devices"]) == ('\'=HYPERLINK("x")', "'-1")


# SQL's own consumer


def test_sqlite_reads_the_same_figures_with_hostile_names(tmp_path: Path) -> None:
    text = llama_bench.SQL.render(BOTH, "en")[""]
    rows = llama_bench_rows.rows(BOTH)
    connection = sqlite3.connect(":memory:")
    connection.executescript(text)
    found = connection.execute(f"SELECT {', '.join(FIELDS)} FROM llama_bench").fetchall()  # noqa: S608
    expected = [tuple(value for name, value in asdict(row).items() if name in FIELDS) for row in rows]
    assert found == expected
    if shell := shutil.which("sqlite3"):
        (tmp_path / "rows.sql").write_text(text, encoding="utf-8")
        query = "SELECT count(*), min(gpu_info LIKE 'Hostile%') FROM llama_bench WHERE gpu_info <> '';"
        told = subprocess.run(
            [shell, "-init", tmp_path / "rows.sql", ":memory:", query], capture_output=True, text=True, check=True
        )
        assert told.stdout.strip() == "2|1", told.stderr


# A/B


def test_two_versions_are_two_builds() -> None:
    pair = recorded(case(version="2"), old=case(version="1"))
    old, _, new, _ = llama_bench_rows.rows(report_record(pair))
    assert re.fullmatch("[0-9a-f]{7}", old.build_commit)
    assert old.build_commit != new.build_commit
    assert len(llama_bench_rows.rows(report_record(recorded(case(), old=case())))) == 2


def test_nothing_to_show_is_an_error() -> None:
    with pytest.raises(ReportError, match="nothing was timed"):
        llama_bench.JSON.render(report_record(), "en")
