"""A/B and A/A from pytest's command line, with an engine whose speed differs by interpreter."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from pytest_rwkvperf.machine import fingerprint
from pytest_rwkvperf.stats.paired import MIN_PAIRS
from pytest_rwkvperf.store import files
from pytest_rwkvperf.store.baseline import loads
from tests.printed import verdict_rows
from tests.unit.worker.conftest import gone

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import Runs

    OtherPython = Callable[..., str]

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the other interpreter is a shell script")


@pytest.fixture
def other_python(tmp_path: Path) -> OtherPython:
    """Makes an interpreter that is this one with other variables: another environment's engine."""

    def make(**script: str) -> str:
        path = tmp_path / f"python {len([*tmp_path.iterdir()])}"
        words = " ".join(f"SCRIPTED_{name.upper()}='{value}'" for name, value in script.items())
        path.write_text(f'#!/bin/sh\nexec env {words} "{sys.executable}" "$@"\n', encoding="utf-8")
        path.chmod(0o755)
        return str(path)

    return make


def rows(result: pytest.RunResult) -> list[list[str]]:
    """The table's rows, from the column of new tokens per second on."""
    return [line.split()[4:] for line in verdict_rows(result.outlines)]


def only(result: pytest.RunResult) -> tuple[str, str]:
    """The ratio and the verdict of the table's only row."""
    (row,) = rows(result)
    return row[3], row[-1]


# From the command line


def test_unchanged_code_passes(runs: Runs) -> None:
    result = runs.measuring("--rwkv-aa", "--rwkv-tolerance=1%")
    assert (result.ret, only(result)) == (0, ("1.000", "PASS"))
    result.stdout.re_match_lines_random(
        [
            r"Smallest slowdown that such a run detects 19 times in 20: scripted-fp16-cpu pp16 1\.0%\.",
            rf"rwkvperf: .*at least {MIN_PAIRS} pairs of processes.*in alternation with {re.escape(sys.executable)}",
            rf"scripted-fp16-cpu: pp16 50\.0 t/s ± [12]\.\d%; {MIN_PAIRS} processes, ended by verdict",
        ]
    )


@pytest.mark.parametrize(
    ("old", "ratio", "verdict", "code"),
    [
        ("0.5", "0.500", "REGRESSION", 1),
        ("0.99", "0.990", "PASS", 0),
        ("2", "2.000", "IMPROVEMENT", 0),
    ],
)
def test_another_interpreter_is_the_old_side(
    runs: Runs, other_python: OtherPython, tmp_path: Path, old: str, ratio: str, verdict: str, code: int
) -> None:
    """Its engine takes `old` times as long, so that the ratio of speeds, new over old, is the same number."""
    result = runs.measuring(f"--rwkv-ab={other_python(factor=old)}", "--rwkv-tolerance=5%")
    assert (result.ret, only(result)) == (code, (ratio, verdict))
    assert (f"Something is slower here than with {tmp_path}" in result.stdout.str()) == (verdict == "REGRESSION")
    assert "save-baseline" not in result.stdout.str()
    ((new, _, before, *_),) = rows(result)
    assert float(new) == 50
    assert float(before) == pytest.approx(50 / float(old), abs=0.01)


def test_a_regression_says_what_was_compared(runs: Runs, other_python: OtherPython) -> None:
    result = runs.measuring(f"--rwkv-ab={other_python(factor='0.5', version='0.9')}", "--rwkv-tolerance=5%")
    result.stdout.re_match_lines_random(
        [
            rf".*the ratio lies wholly below 0\.952; {MIN_PAIRS} pairs, scripted 0\.9 → 1\.0",
            r" *new +50\.00 tokens/s.*",
            r" *old +100\.00 tokens/s.*",
            r" *ratio +0\.500 \(new / old, of the fast repetitions\).*smallest slowdown found 19 times in 20: 5\.0%",
        ]
    )


def test_every_pair_has_two_new_processes(runs: Runs, other_python: OtherPython, tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    runs.measuring(f"--rwkv-ab={other_python(trace=str(old))}", trace=str(new))
    opened = [line.split()[0] for path in (old, new) for line in path.read_text(encoding="utf-8").splitlines()]
    assert len(opened) == len(set(opened)) == 2 * MIN_PAIRS


def test_a_case_is_measured_once_for_all_its_workloads(runs: Runs, tmp_path: Path) -> None:
    result = runs.measuring("--rwkv-aa", "--rwkv-workload=pp16,tg4", trace=str(tmp_path / "trace"))
    assert [row[-1] for row in rows(result)] == ["PASS", "PASS"]
    assert len((tmp_path / "trace").read_text(encoding="utf-8").splitlines()) == 2 * MIN_PAIRS


def test_each_test_has_its_own_tolerance(runs: Runs, other_python: OtherPython) -> None:
    runs.pytester.makepyfile(
        """
        import pytest

        @pytest.mark.rwkv(tolerance="50%")
        def test_lenient(rwkv_perf):
            assert rwkv_perf.check().verdict == "PASS"

        @pytest.mark.rwkv(tolerance="1%")
        def test_strict(rwkv_perf):
            rwkv_perf.check()
        """
    )
    result = runs.measuring(f"--rwkv-ab={other_python(factor='0.9')}")
    result.assert_outcomes(passed=1, failed=1)


def test_measure_returns_the_new_side(runs: Runs, other_python: OtherPython) -> None:
    runs.pytester.makepyfile(
        """
        def test_it(rwkv_perf):
            result = rwkv_perf.measure()
            assert round(result.tokens_per_second.median) == 50
            assert rwkv_perf.check().verdict == "IMPROVEMENT"
        """
    )
    runs.measuring(f"--rwkv-ab={other_python(factor='3')}").assert_outcomes(passed=1)


def test_ab_neither_needs_nor_reads_a_baseline(runs: Runs, other_python: OtherPython) -> None:
    damaged = files.path_for(runs.pytester.path / "baselines", fingerprint.read())
    damaged.parent.mkdir()
    damaged.write_text("{", encoding="utf-8")
    result = runs.measuring(f"--rwkv-ab={other_python()}", "--rwkv-strict")
    assert (result.ret, only(result)) == (0, ("1.000", "PASS"))
    assert "is not valid JSON" in usage_error(runs.measuring("--rwkv-aa"))  # which would write there


def test_an_a_a_run_stores_the_machines_noise(runs: Runs) -> None:
    result = runs.measuring("--rwkv-aa", "--rwkv-workload=pp16,tg4")
    result.stdout.re_match_lines(
        [r"Processes of the same code differ here by generation 0\.1%, prefill 0\.1%; kept in "]
    )
    (path,) = (runs.pytester.path / "baselines").glob("*-*.json")
    stored = loads(path.read_text(encoding="utf-8"), path)
    assert stored.cases == {}
    assert {kind: (one.spread, one.freedom) for kind, one in stored.noise.items()} == {
        "prefill": (0.001, MIN_PAIRS - 1),
        "generation": (0.001, MIN_PAIRS - 1),
    }


def test_under_xdist_each_case_is_measured_once(runs: Runs, other_python: OtherPython, tmp_path: Path) -> None:
    pytest.importorskip("xdist")
    other = other_python(factor="0.5", trace=str(tmp_path / "old"))
    runs.environment.setenv("PYTHONWARNINGS", "ignore")
    result = runs.measuring(f"--rwkv-ab={other}", "--rwkv-workload=pp16,tg4", "-n2", "-pxdist", apart=True)
    assert result.ret == 1, result.stdout.str()
    assert [(row[3], row[-1]) for row in rows(result)] == [("0.500", "REGRESSION")] * 2
    assert len((tmp_path / "old").read_text(encoding="utf-8").splitlines()) == MIN_PAIRS


# What the other environment lacks


def usage_error(result: pytest.RunResult) -> str:
    assert result.ret == pytest.ExitCode.USAGE_ERROR, result.stdout.str()
    text = result.stderr.str()
    assert "Traceback" not in text + result.stdout.str()
    return " ".join(text.split())


def test_a_missing_engine_is_a_usage_error_that_names_the_interpreter(runs: Runs, other_python: OtherPython) -> None:
    other = other_python(fault="missing@versions")
    message = usage_error(runs.measuring(f"--rwkv-ab={other}"))
    assert f"--rwkv-ab={other}: scripted is not installed for " in message
    assert "pip install scripted-native" in message


def test_a_program_other_than_python_is_a_usage_error(runs: Runs) -> None:
    assert "during its first message" in usage_error(runs.measuring("--rwkv-ab=/bin/true"))


def test_a_missing_device_is_named(runs: Runs, other_python: OtherPython) -> None:
    other = other_python(fault="spare-only@")
    result = runs.measuring(f"--rwkv-ab={other}")
    assert result.ret == 1
    result.stdout.re_match_lines_random(
        [rf".*DeviceError: {re.escape(other)}: scripted lists no cpu of kind cpu, only spare:0; .*"]
    )


def test_a_wrong_answer_of_the_old_side_is_invalid(runs: Runs, other_python: OtherPython) -> None:
    other = other_python(fault="wrong@")
    result = runs.measuring(f"--rwkv-ab={other}")
    assert result.ret == 1
    assert "INVALID" in result.stdout.str()
    result.stdout.re_match_lines_random([rf".*{re.escape(other)}: .*gives a wrong answer.*"])


def test_an_interrupt_and_a_sigterm_after_it_leave_neither_worker(
    runs: Runs, other_python: OtherPython, tmp_path: Path
) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    other = other_python(trace=str(old))
    runs.environment.setenv("SCRIPTED_TRACE", str(new))
    runs.environment.setenv("SCRIPTED_CLOCK", "real")
    runs.environment.setenv("SCRIPTED_FACTOR", "0.05")
    own = ["--rwkv-backend=scripted", "--rwkv-quant=fp16", "--rwkv-workload=pp16", f"--rwkv-ab={other}"]
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest", *own],
        cwd=runs.pytester.path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        limit = time.monotonic() + 300
        while not all(path.exists() and path.read_text("utf-8").endswith("\n") for path in (old, new)):
            assert time.monotonic() < limit
            time.sleep(0.1)
        workers = [int(path.read_text(encoding="utf-8").split()[0]) for path in (old, new)]
        os.kill(process.pid, signal.SIGINT)
        time.sleep(0.1)  # while the first one's tidying goes on
        os.kill(process.pid, signal.SIGTERM)
        text, _ = process.communicate(timeout=120)
        assert process.returncode == pytest.ExitCode.INTERRUPTED, text
        assert "Traceback" not in text
        assert "KeyboardInterrupt" in text
        assert all(gone(worker) for worker in workers)
    finally:
        process.kill()
        process.wait()
