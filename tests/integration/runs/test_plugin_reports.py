"""`--rwkv-report` in whole pytest runs: what is written, when, and what stops a run before it begins."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest

from pytest_rwkvperf.store import record as records

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_rwkvperf.store.record import Record
    from tests.conftest import Runs

COMPARE = """
    import json
    from pathlib import Path

    def test_it(rwkv_perf):
        taken = rwkv_perf.measure()
        times = [[sample.nanoseconds for sample in row] for row in taken.samples]
        Path(f"{rwkv_perf.item.workload}.txt").write_text(json.dumps(times))
        if rwkv_perf.item.workload.kind == "prefill":
            rwkv_perf.check()
"""


def left_by(runs: Runs, name: str = "run.json") -> Record:
    return records.read(runs.pytester.path / name)


def test_a_record_has_what_the_tests_measured(runs: Runs) -> None:
    runs.pytester.makepyfile(COMPARE)
    result = runs.measuring("--rwkv-report=new/run.json", "--rwkv-workload=pp16,tg4")
    assert result.ret == 0
    result.stdout.fnmatch_lines([f"Wrote {runs.pytester.path / 'new' / 'run.json'}"])
    record = left_by(runs, "new/run.json")
    (case,) = record.cases
    assert case.measured is not None
    assert case.figures is not None
    judged, measured_only = case.items
    for item, tokens in ((judged, 16), (measured_only, 4)):
        times = [list(row) for row in case.times(item.workload)]
        assert str(times) == (runs.pytester.path / f"{item.workload}.txt").read_text()
        assert item.rate is not None
        assert item.rate.median == pytest.approx(tokens / times[0][0] * 1e9, rel=0.01)
    assert (judged.verdict, judged.fails, measured_only.verdict) == ("NO-BASELINE", False, None)
    assert "no baseline is stored yet" in judged.reason
    assert judged.first_token_seconds == pytest.approx(16 * 0.02)
    assert measured_only.inter_token_seconds is not None
    assert measured_only.inter_token_seconds.p50 == pytest.approx(0.1)
    assert (case.measured.versions, case.measured.model.file_name[-3:]) == ({"scripted": "1.0"}, ".st")
    assert (record.exit_status, record.options["workload"], record.skipped) == (0, "pp16,tg4", ())
    assert "--rwkv-report=new/run.json" in record.command


def test_under_xdist_the_controller_writes_one_report(runs: Runs) -> None:
    reports = ("--rwkv-report=run.json", "--rwkv-report=json:copy")
    result = runs("-n2", *runs.options, "--rwkv-backend=all", *reports, apart=True, fault="abort@decode@int8")
    assert result.ret == 1
    record = left_by(runs)
    assert left_by(runs, "copy") == record
    right, died = record.cases
    assert (right.case.quant, right.failure) == ("fp16", "")
    assert (right.items[0].verdict, died.items[0].verdict) == ("NO-BASELINE", None)
    assert died.measured is None
    assert "SIGABRT" in died.failure
    assert died.items[0].fails
    assert {one.name for one in record.skipped} == {"rwkv", "llama-cpp", "web-rwkv"}
    assert all("pip install" in one.reason for one in record.skipped)


def test_a_record_has_both_sides_of_ab(runs: Runs) -> None:
    assert runs.measuring("--rwkv-aa", "--rwkv-report=run.json").ret == 0
    (case,) = left_by(runs).cases
    assert case.measured is not None
    assert case.old is not None
    assert len(case.measured.runs) == len(case.old.runs) == 4
    assert case.items[0].verdict == "PASS"
    assert case.items[0].baseline is not None


def test_an_interrupted_run_writes_its_finished_cases(runs: Runs, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--rwkv-backend=scripted", *runs.options]
    note = tmp_path / "trace"
    environment = {**os.environ, "SCRIPTED_FAULT": "sleep@decode@int8", "SCRIPTED_TRACE": str(note)}
    run = subprocess.Popen([*command, "--rwkv-report=run.json"], env=environment, stdout=subprocess.DEVNULL)
    end = time.monotonic() + 300
    while not note.exists() or "int8" not in note.read_text():
        assert run.poll() is None
        assert time.monotonic() < end
        time.sleep(0.05)
    run.send_signal(signal.SIGINT)
    assert run.wait(120) == 2
    record = left_by(runs)
    assert record.exit_status == 2
    measured, cut_off = record.cases
    assert measured.items[0].verdict == "NO-BASELINE"
    assert (cut_off.measured, cut_off.items[0].reason) == (None, "the run ended before it")


@pytest.mark.parametrize(
    ("name", "said"),
    [("taken", "is a folder"), ("file/run.json", "cannot be written"), ("run.docx", "no such format")],
)
def test_an_unwritable_report_stops_the_run_before_measuring(runs: Runs, name: str, said: str) -> None:
    (runs.pytester.path / "taken").mkdir()
    (runs.pytester.path / "file").touch()
    trace = runs.pytester.path / "trace"
    report = name if "." in name else f"json:{name}"
    result = runs.measuring(f"--rwkv-report={report}", trace=str(trace))
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: *{name}*{said}*"])
    assert not trace.exists()


def test_an_error_in_another_option_keeps_an_older_report(runs: Runs) -> None:
    (runs.pytester.path / "run.json").write_text("old")
    assert runs.measuring("--rwkv-report=run.json", "--rwkv-quant=q9").ret == pytest.ExitCode.USAGE_ERROR
    assert (runs.pytester.path / "run.json").read_text() == "old"


def test_a_disk_error_at_the_end_fails_the_run(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    runs.pytester.makeconftest("""
        import pytest
        from pytest_rwkvperf.reports import report_files

        def full(path, data):
            raise OSError(28, "No space left on device")

        def pytest_collection_finish():
            report_files.write_atomically = full
    """)
    monkeypatch.setattr("pytest_rwkvperf.reports.report_files.write_atomically", None)
    result = runs.measuring("--rwkv-report=run.json")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["report *run.json cannot be written: *No space left*"])


def test_github_gets_a_summary_and_annotations_and_junit_figures(
    runs: Runs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary"))
    assert runs.measuring("--rwkv-save-baseline", factor="1").ret == 0
    assert (tmp_path / "summary").read_text().count("NO-BASELINE") == 2
    result = runs.measuring("-q", "--junitxml=junit.xml", "--rwkv-tolerance=5%", factor="4")
    assert result.ret == 1
    (line,) = [line for line in result.outlines if line.startswith("::error ")]
    assert line.startswith("::error title=REGRESSION scripted-fp16-cpu pp16::")
    assert "❌ REGRESSION" in (tmp_path / "summary").read_text()
    (case,) = ET.parse(runs.pytester.path / "junit.xml").getroot().iter("testcase")  # noqa: S314 - pytest wrote it
    properties = {one.get("name"): one.get("value") for one in case.iter("property")}
    assert properties["rwkv_verdict"] == "REGRESSION"
    assert float(properties["rwkv_tokens_per_second"] or 0) == pytest.approx(16 / (16 * 0.02 * 4))
    assert float(properties["rwkv_ratio"] or 0) == pytest.approx(0.25)


def test_without_github_no_annotations_are_printed(runs: Runs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary"))
    result = runs.measuring(fault="abort@decode")
    assert result.ret == 1
    assert "::error" not in result.stdout.str()
    assert not (tmp_path / "summary").exists()


# Terminals


@pytest.mark.skipif(sys.platform == "win32", reason="a pseudo-terminal is Unix's")
def test_a_terminal_without_colours_has_a_live_line(runs: Runs) -> None:
    import pty

    runs.pytester.makeconftest("from pytest_rwkvperf.run import progress\nprogress.LIVE_SECONDS = 0.001")
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--rwkv-backend=scripted", "--rwkv-quant=fp16"]
    run = subprocess.Popen(
        [*command, *runs.options], env={**os.environ, "NO_COLOR": "1", "TERM": "xterm"}, stdout=theirs
    )
    os.close(theirs)
    told = b""
    with suppress(OSError):  # Linux's way to say that the other end is closed
        while block := os.read(ours, 65536):
            told += block
    os.close(ours)
    assert run.wait() == 0
    assert b"\rcase 1 of 1, scripted-fp16-cpu: process 1: loading the model (1 s so far" in told
    assert b"\x1b[" not in told
    assert b"NO-BASELINE" in told


@pytest.mark.parametrize("options", [["-p", "no:terminal"], ["-qq"]])
def test_the_record_does_not_depend_on_the_output(runs: Runs, options: list[str]) -> None:
    result = runs.measuring(*options, "--rwkv-report=run.json")
    assert result.ret == 0
    assert left_by(runs).cases[0].items[0].verdict == "NO-BASELINE"


def test_forced_colours_give_a_log_no_live_line(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PY_COLORS", "1")
    text = runs.measuring().stdout.str()
    assert "\x1b[" in text
    assert "\r" not in text
