"""Reading what llama.cpp's tools print, and refusing what only looks like it."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from pytest_rwkvperf.core.errors import RecordError
from pytest_rwkvperf.store import exchanged

FILES = Path(__file__).with_name("exchanged")
BATCHED, OPERATIONS = (
    (FILES / name).read_text(encoding="utf-8") for name in ("batched_bench.jsonl", "backend_ops.sql")
)
SETTINGS = "is_pp_shared=0 n_batch=2048 n_gpu_layers=-1 n_threads=2 n_threads_batch=2 flash_attn=-1"


def test_batched_bench_has_a_prefill_and_a_generation_for_each_number_of_sequences() -> None:
    found = exchanged.parse(BATCHED, Path("file"))
    assert found is not None
    assert [(speed.series, speed.value) for speed in found] == [
        (f"pp128 {SETTINGS}", 2000),
        (f"tg32@d128 {SETTINGS}", 200),
        (f"pp128@b4 {SETTINGS}", 2000),
        (f"tg32@d128@b4 {SETTINGS}", 400),
    ]
    assert {speed.convention.id for speed in found} == {"llama-batched-bench:native:v1:once:c512"}


def test_batched_bench_of_older_builds_has_fewer_settings() -> None:
    line = (
        '{"n_kv_max": 2048, "n_batch": 2048, "n_ubatch": 256, "flash_attn": 0, "pp": 128, "tg": 0, "pl": 2, '
        '"n_kv": 256, "t_pp": 0.1, "speed_pp": 2560.0, "t_tg": 0.0, "speed_tg": 0.0, "t": 0.1, "speed": 2560.0}\n'
    )
    found = exchanged.parse(line, Path("file"))
    assert found is not None
    assert [(speed.series, speed.value) for speed in found] == [("pp128@b2 n_batch=2048 flash_attn=0", 2560)]


def test_batched_bench_of_no_prompts_has_a_generation_alone() -> None:
    line = (
        '{"n_batch": 2048, "n_ubatch": 256, "pp": 0, "tg": 32, "pl": 2, "n_kv": 64, "t_pp": 0.0, "speed_pp": -nan, '
        '"t_tg": 0.1, "speed_tg": 640.0, "t": 0.1, "speed": 640.0}\n'
    )
    found = exchanged.parse(line, Path("file"))
    assert found is not None
    assert [(speed.series, speed.value) for speed in found] == [("tg32@b2 n_batch=2048", 640)]


def test_backend_ops_are_runs_per_second_of_what_is_supported() -> None:
    found = exchanged.parse(OPERATIONS, Path("file"))
    assert found is not None
    assert [(speed.series, speed.value, speed.unit) for speed in found] == [
        ("CPU RWKV_WKV7(type=f32,head_count=32,head_size=64,n_seq_tokens=512,n_seqs=1)", 4000, "runs/s"),
        ("CPU L2_NORM(type=f32,ne=[64,64,320,1])", 10000, "runs/s"),
    ]
    assert {speed.convention.id for speed in found} == {"test-backend-ops:native:v1:once:c0"}


def test_same_operation_twice_is_the_median() -> None:
    again = OPERATIONS + OPERATIONS.replace("'250.000000'", "'150.000000'").partition(";\n\n")[2]
    found = exchanged.parse(again, Path("file"))
    assert found is not None
    assert found[0].value == 5000


@pytest.mark.parametrize(
    "statement",
    [
        "ATTACH DATABASE '{folder}/made.db' AS other;",
        "DROP TABLE test_backend_ops;",
        "PRAGMA writable_schema = 1;",
        "CREATE TABLE another (x);",
        "INSERT INTO test_backend_ops (time_us) SELECT 1;",
        "INSERT INTO test_backend_ops (time_us) VALUES (zeroblob(1000000000));",
        "WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i FROM n) INSERT INTO test_backend_ops SELECT i FROM n;",
        "VACUUM INTO '{folder}/made.db';",
    ],
)
def test_sql_can_do_nothing_but_fill_its_table(statement: str, tmp_path: Path) -> None:
    text = f"{OPERATIONS}\n{statement.format(folder=tmp_path)}\n"
    with pytest.raises(RecordError, match="cannot be read as test-backend-ops' SQL"):
        exchanged.parse(text, Path("file"))
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"speed_pp": 1}', "llama-batched-bench's JSONL (KeyError: 'pp')"),
        (BATCHED.replace("2000.000000", '"\\u001b[31m"'), "could not convert string to float"),
        (BATCHED.replace("2000.000000", "-5"), "-5 is no speed"),
        ('{"a": {"throughput": {"value": 1}}}', "'a' does not end in its convention"),
        ('{"a [x]": {"throughput": {"value": 1}}}', "'x' is no identifier of a convention"),
        ('[{"name": 5, "unit": "x", "value": 1}]', "github-action-benchmark's JSON"),
        ("time,commit,record\n", "Otava's CSV"),
        ("time,commit,record\n2026,a,b\n", "without a speed"),
        ("# TYPE rwkvperf_tokens_per_second gauge\n# EOF\n", "is OpenMetrics without a speed"),
        (OPERATIONS.replace("time_us REAL", "time REAL"), "test-backend-ops' SQL"),
        (OPERATIONS.replace("'perf'", "'test'"), "without a speed"),
    ],
)
def test_damaged_file_is_an_error(text: str, told: str) -> None:
    with pytest.raises(RecordError) as caught:
        exchanged.parse(text, Path("file"))
    assert told in str(caught.value)
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{}", "[]", "{", '{"cases": {}}', '{"cases": []}', "[1]", "null", "[" * 100_000])
def test_other_files_are_left_to_others(text: str) -> None:
    assert exchanged.parse(text, Path("file")) is None


def test_sample_is_what_sqlite_reads() -> None:
    connection = sqlite3.connect(":memory:")
    connection.executescript(OPERATIONS)
    assert connection.execute("SELECT count(*) FROM test_backend_ops").fetchone() == (3,)
    connection.close()
