"""Reports are read by the programs that they are for: compare-llama-bench.py, Prometheus' own parser, Apache Otava."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import tarfile
import venv
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest

from pytest_rwkvperf.reports import exchange, llama_bench, llama_bench_rows
from pytest_rwkvperf.store import speeds
from tests.unit.building import CASE, record_of, recorded, report_record, slower

pytestmark = pytest.mark.prove

SCRIPT = "/scripts/compare-llama-bench.py"
WRITERS = {
    "json": llama_bench.as_json,
    "jsonl": llama_bench.as_jsonl,
    "csv": llama_bench.as_csv,
    "sql": llama_bench.as_sql,
}


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The script of the installed llama-cpp-python's source distribution, with a Python that has what it imports."""
    folder = tmp_path_factory.mktemp("llama")
    pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:", "-d", str(folder)]
    subprocess.run([*pip, f"llama-cpp-python=={version('llama-cpp-python')}"], check=True)
    (sdist,) = folder.glob("llama_cpp_python-*.tar.gz")
    with tarfile.open(sdist) as archive:
        member = next(member for member in archive if member.name.endswith(SCRIPT))
        archive.extract(member, folder, filter="data")
    return [with_packages(folder, "GitPython>=3.1", "tabulate>=0.9"), str(folder / member.name)]


def with_packages(folder: Path, *packages: str) -> str:
    """A Python of its own that has what a consumer needs."""
    venv.create(folder / "venv", with_pip=True)
    python = str(folder / "venv" / "bin" / "python")
    subprocess.run([python, "-m", "pip", "install", "-q", *packages], check=True)
    return python


@pytest.mark.parametrize("notation", WRITERS)
def test_compare_llama_bench_joins_two_reports(notation: str, script: list[str], tmp_path: Path) -> None:
    old, new = (
        report_record(recorded(replace(record_of([[nanoseconds] * 3] * 3), versions={"llama.cpp": engine})))
        for nanoseconds, engine in ((2 * 10**9, "b1000"), (10**9, "b2000"))
    )
    texts = [WRITERS[notation](llama_bench_rows.rows(record)) for record in (old, new)]
    if notation == "sql":
        path = tmp_path / "runs.sqlite"
        with sqlite3.connect(path) as database:
            for text in texts:
                database.executescript(text)
        inputs = [path]
    elif notation == "jsonl":  # the script takes one file of these
        inputs = [tmp_path / "both.jsonl"]
        inputs[0].write_text("".join(texts), encoding="utf-8")
    else:
        inputs = [tmp_path / f"{name}.{notation}" for name in ("old", "new")]
        for path, text in zip(inputs, texts, strict=True):
            path.write_text(text, encoding="utf-8")
    given = [part for path in inputs for part in ("-i", str(path))]
    (before, after) = (llama_bench_rows.rows(record)[0].build_commit for record in (old, new))
    shown = subprocess.run(
        [*script, "-t", "llama-bench", *given, "-b", before, "-c", after], capture_output=True, text=True, check=False
    )
    assert shown.returncode == 0, shown.stderr
    assert "2.00" in shown.stdout, shown.stdout


PARSE = """
import json, sys
from prometheus_client.openmetrics.parser import text_string_to_metric_families
families = text_string_to_metric_families(sys.stdin.read())
print(json.dumps([[one.name, one.type, [[s.name, s.labels, s.value] for s in one.samples]] for one in families]))
"""


def test_prometheus_parser_reads_every_speed(tmp_path: Path) -> None:
    evil = replace(CASE, model='a "model" \\n # EOF', device="c\\d")
    record = report_record(*(recorded(record_of([[10**9], [11 * 10**8]], case=case)) for case in (CASE, evil)))
    read = subprocess.run(
        [with_packages(tmp_path, "prometheus-client>=0.20"), "-c", PARSE],
        input=exchange.OPENMETRICS.render(record, "en")[""],
        capture_output=True,
        text=True,
        check=True,
    )
    families = {name: (kind, samples) for name, kind, samples in json.loads(read.stdout)}
    assert {name: kind for name, (kind, _) in families.items()} == {
        "rwkvperf_tokens_per_second": "gauge",
        "rwkvperf_tokens_per_second_low": "gauge",
        "rwkvperf_tokens_per_second_high": "gauge",
        "rwkvperf_run_started_timestamp_seconds": "gauge",
        "rwkvperf_run": "info",
    }
    _, samples = families["rwkvperf_tokens_per_second"]
    for (_, labels, value), speed in zip(samples, speeds.of_record(record), strict=True):
        assert labels["convention"] == speed.convention.id
        assert value == pytest.approx(speed.value, rel=1e-6)
    assert [labels["device"] for _, labels, _ in samples] == ["cpu", "c\\d"]


def test_otava_finds_the_day_of_a_slowdown(tmp_path: Path) -> None:
    measured = record_of([[10**9, 10**9 + 1000]] * 3)
    factors = {day: (1 + day % 3 / 1000) * (1 if day < 15 else 1.2) for day in range(1, 29)}
    records = [
        report_record(recorded(slower(measured, factor)), started=f"2026-10-{day:02}T00:00:00Z")
        for day, factor in factors.items()
    ]
    texts = [exchange.OTAVA.render(record, "en")[""].splitlines() for record in records]
    (name,) = (speed.name for speed in speeds.of_record(records[0]))
    lines = [texts[0][0], *(row for _, row in texts)]
    (tmp_path / "history.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    test = {"type": "csv", "file": str(tmp_path / "history.csv"), "metrics": [name], "attributes": ["record"]}
    (tmp_path / "otava.yaml").write_text(json.dumps({"tests": {"speed": test}}), encoding="utf-8")
    python = Path(with_packages(tmp_path, "apache-otava>=0.8"))
    found = subprocess.run(
        [python.with_name("otava"), "analyze", "speed"],
        env={**os.environ, "OTAVA_CONFIG": str(tmp_path / "otava.yaml")},  # 0.8.0 takes no notice of --config-file
        capture_output=True,
        text=True,
        check=True,
    )
    days = [line[8:10] for line in found.stdout.splitlines() if line.startswith("2026-10-")]
    change = next(line for line in found.stdout.splitlines() if "%" in line)
    before = [line for line in found.stdout.partition(change)[0].splitlines() if line.startswith("2026-10-")]
    assert days == [f"{day:02}" for day in range(1, 29)]
    assert (before[-1][8:10], change.strip()) == ("14", "-16.7%")
