"""llama.cpp's own compare-llama-bench.py reads the llama-bench formats that reports write."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import tarfile
import venv
from dataclasses import replace
from importlib.metadata import version
from typing import TYPE_CHECKING

import pytest

from pytest_rwkvperf.reports import llama_bench, llama_bench_rows
from tests.unit.building import record_of, recorded, report_record

if TYPE_CHECKING:
    from pathlib import Path

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
    venv.create(folder / "venv", with_pip=True)
    python = str(folder / "venv" / "bin" / "python")
    subprocess.run([python, "-m", "pip", "install", "-q", "GitPython>=3.1", "tabulate>=0.9"], check=True)
    return [python, str(folder / member.name)]


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
