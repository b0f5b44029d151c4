"""Other plugins (xdist, randomly, rerunfailures, timeout, cov) change no verdict and lose no results."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.faults.sandbox import TIMEOUT
from tests.printed import verdict_rows

if TYPE_CHECKING:
    import subprocess

    from tests.faults.sandbox import ObservedRun, Sandbox, SandboxFactory

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are found by /proc")

TWO_CASES = "--rwkv-quant=int8,fp16"


def needs(*modules: str) -> pytest.MarkDecorator:
    missing = [name for name in modules if find_spec(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"{missing} not installed; `make setup` installs them")


def rows(result: ObservedRun) -> list[str]:
    """The rows of the table, sorted, without alignment."""
    return sorted(" ".join(line.split()) for line in verdict_rows(result.text.splitlines()))


def outcomes(result: ObservedRun) -> dict[str, str]:
    return {test.id.rpartition("[")[2]: test.outcome for test in result.tests}


def opened(sandbox: Sandbox) -> list[str]:
    """The quant of each process that has opened a model."""
    return [line.split()[1] for line in (sandbox.root / "trace").read_text("utf-8").splitlines()]


def save_two_cases(new_sandbox: SandboxFactory, *arguments: str) -> tuple[ObservedRun, list[str], int]:
    """Save a case with wrong logits and a correct one; returns the run, the opened quants, the session count."""
    sandbox = new_sandbox()
    trace = str(sandbox.root / "trace")
    result = sandbox.run(
        TWO_CASES, "--rwkv-save-baseline", *arguments, fault="wrong@logits@int8", trace=trace, saves=True
    )
    cases = json.loads(sandbox.path.read_text("utf-8"))["cases"].values()
    (stored,) = (case for case in cases if case["case"]["device"] == "cpu")
    return result, sorted(opened(sandbox)), len(stored["sessions"])


def sessions(sandbox: Sandbox) -> dict[str, list[object]]:
    """The stored sessions of each case on the CPU."""
    cases = json.loads(sandbox.path.read_text("utf-8"))["cases"].items()
    return {name: case["sessions"] for name, case in cases if case["case"]["device"] == "cpu"}


DISTRIBUTIONS = (("-n", "4", "--dist=loadgroup"), *([("-n", "4")] if "RWKVPERF_PROVE" in os.environ else []))
"""`make prove ARGS=faults` tries both."""


@needs("xdist")
def test_four_processes_give_the_verdicts_and_baselines_of_one(new_sandbox: SandboxFactory) -> None:
    serial, opened_serially, stored = save_two_cases(new_sandbox)
    assert (serial.code, stored) == (1, 2)
    assert outcomes(serial) == {
        "scripted-int8-cpu-pp16]": "failed",
        "scripted-int8-cpu-tg4]": "failed",
        "scripted-fp16-cpu-pp16]": "passed",
        "scripted-fp16-cpu-tg4]": "passed",
    }
    for distribution in DISTRIBUTIONS:
        result, opened_now, stored = save_two_cases(new_sandbox, *distribution)
        assert (result.code, stored) == (1, 2), result.text
        assert outcomes(result) == outcomes(serial)
        assert rows(result) == rows(serial)
        assert opened_now == opened_serially, "each case was measured once"
        assert result.text.count("RWKV-7 throughput") == 1
        assert len(re.findall(r"^Saved \d+ workloads", result.text, re.MULTILINE)) == 1


@needs("xdist")
def test_a_killed_xdist_worker_fails_one_test(new_sandbox: SandboxFactory) -> None:
    sandbox = new_sandbox()
    trace = sandbox.root / "trace"

    def kill_measuring_worker(process: subprocess.Popen[str]) -> None:
        limit = time.monotonic() + TIMEOUT
        mark = sandbox.root / "mark-fp16"
        while not (mark.exists() and mark.read_text("ascii")):
            assert time.monotonic() < limit
            time.sleep(0.02)
        (worker,) = (line.split()[0] for line in trace.read_text("utf-8").splitlines() if " fp16 " in line)
        parent = psutil.Process(int(worker)).parent()
        assert parent is not None
        assert parent.pid != process.pid
        (sandbox.root / "calm").touch()
        parent.kill()

    sandbox.extra = {"SCRIPTED_CALM": str(sandbox.root / "calm")}
    before = sessions(sandbox)
    result = sandbox.run(
        TWO_CASES, "-n", "2", "--rwkv-save-baseline", saves=True, killed=True,
        fault="sleep@open@fp16", trace=str(trace), meanwhile=kill_measuring_worker,
    )  # fmt: skip
    assert result.code == 1, result.text
    assert "crashed while running" in result.text
    assert sorted(outcomes(result).values()) == ["failed", "passed", "passed", "passed"], result.text
    left = [Path(path).name for path in result.left]
    assert all(name.startswith("rwkvperf-worker-") for name in left), "a later run removes what a killed process left"
    stored = sessions(sandbox)
    assert len(stored) == 2, "the other case was saved"
    assert all(session in stored[name] for name, old in before.items() for session in old)


@needs("pytest_randomly", "pytest_rerunfailures", "pytest_timeout", "pytest_cov")
def test_a_rerun_judges_the_same_figures_again(new_sandbox: SandboxFactory) -> None:
    sandbox = new_sandbox()
    trace = str(sandbox.root / "trace")
    options = ["-p", "randomly", "--reruns=2", "--timeout=100", "--no-cov"]
    result = sandbox.run(TWO_CASES.replace("int8,", ""), *options, factor="3", trace=trace)
    assert result.code == 1
    assert result.text.count("REGRESSION") >= 2
    assert re.search(r"2 failed, 4 rerun", result.text), result.text
    assert len(opened(sandbox)) == 3, "one measurement of three processes; the reruns measured nothing"


@needs("pytest_cov")
def test_under_coverage_no_verdict_passes_and_nothing_is_stored(new_sandbox: SandboxFactory) -> None:
    sandbox = new_sandbox()
    result = sandbox.run("--cov=.", "--cov-report=")
    assert result.code == 0
    assert "rwkvperf: under coverage, so no verdict will count" in result.text
    assert [row.split()[-1] for row in rows(result)] == ["INCONCLUSIVE"] * 2
    again = new_sandbox()
    refused = again.run("--cov=.", "--cov-report=", "--rwkv-save-baseline")
    assert refused.code == pytest.ExitCode.USAGE_ERROR
    assert "this process runs under coverage" in refused.sentence
    same = new_sandbox().run("--cov=.", "--cov-report=", "--rwkv-aa")
    assert (same.code, len(rows(same))) == (0, 2), "measured, and nothing stored: `Sandbox.run` compares the files"
    assert "for later verdicts" not in same.text
