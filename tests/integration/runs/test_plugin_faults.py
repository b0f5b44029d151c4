"""An engine that crashes or lies, from the command line: what is stored and shown then. More is in tests/faults."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import psutil
import pytest

from pytest_rwkvperf.core import folders

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conftest import Runs

TWO_CASES = ("--rwkv-quant=int8,fp16", "--rwkv-workload=pp16,tg4")


def traced(path: Path) -> list[str]:
    """The quant of each process that has opened a model."""
    return [line.split()[1] for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("abort@decode", ["SIGABRT", "GGML_ASSERT(scripted) failed"]),
        ("raise@open", ["the engine raised EngineFailedError: the script says so"]),
        ("other-device@open", ["was asked for spare:0 and took cpu"]),
        ("wrong@logits", ["gives a wrong answer, so its speed counts for nothing"]),
    ],
)
def test_a_failing_engine_fails_its_own_tests_with_a_reason(runs: Runs, fault: str, told: list[str]) -> None:
    trace = runs.pytester.path / "trace"
    device = "--rwkv-device=spare:0" if "device" in fault else "--rwkv-device=cpu"
    result = runs.measuring(*TWO_CASES, "--rwkv-save-baseline", device, "-v", fault=f"{fault}@int8", trace=str(trace))
    text = result.stdout.str()
    result.assert_outcomes(passed=2, failed=2)
    assert result.ret == 1
    assert [word for word in told if text.count(word) < 2] == [], "each of its tests says it"
    assert "Traceback" not in text
    assert "During handling" not in text
    assert "parent.py" not in text, "a person is told what happened, not where in this project it was noticed"
    assert traced(trace).count("int8") <= 1, "a case that failed is not tried again for its next workload"
    (saved,) = (runs.pytester.path / "baselines").glob("*-*.json")
    cases = json.loads(saved.read_text(encoding="utf-8"))["cases"].values()
    assert [case["case"]["quant"] for case in cases] == ["fp16"]


class TestXdist:
    """Mistakes that an xdist worker finds are the run's; what it measures is tried in tests/faults."""

    def test_a_wrong_marker_is_a_usage_error(self, runs: Runs) -> None:
        runs.pytester.makepyfile("import pytest\n@pytest.mark.rwkv(wrong=1)\ndef test_mine(rwkv_perf): pass")
        result = runs.measuring("-n", "2", apart=True)
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        result.stderr.fnmatch_lines(["ERROR: *::test_mine: the rwkv marker knows no argument wrong*"])
        assert "INTERNALERROR" not in result.stdout.str()

    def test_nothing_measured_is_exit_5(self, runs: Runs) -> None:
        result = runs.measuring("-n", "2", "--rwkv-backend=all", fault="missing@versions", apart=True)
        result.assert_outcomes(skipped=4)
        assert result.ret == pytest.ExitCode.NO_TESTS_COLLECTED


def run_folders() -> list[Path]:
    folder = folders.cache() / "runs"
    return [path for path in folder.iterdir() if path.is_dir()] if folder.exists() else []


@pytest.fixture
def measuring_run(runs: Runs) -> Iterator[subprocess.Popen[str]]:
    """A run of pytest that is in the middle of a measurement."""
    trace = runs.pytester.path / "trace"
    runs.environment.setenv("SCRIPTED_CLOCK", "real")
    runs.environment.setenv("SCRIPTED_TRACE", str(trace))
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--rwkv-backend=scripted", "--rwkv-quant=fp16"]
    with subprocess.Popen(
        [*command, *runs.options, "--rwkv-save-baseline"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        limit = time.monotonic() + 300
        while not (trace.exists() and trace.read_text(encoding="utf-8").endswith("\n")) and time.monotonic() < limit:
            time.sleep(0.02)
        yield process
        process.kill()


def worker_of(process: subprocess.Popen[str], trace: Path) -> psutil.Process:
    worker = psutil.Process(int(trace.read_text(encoding="utf-8").split()[0]))
    assert worker.parent() == psutil.Process(process.pid)
    return worker


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL")
def test_a_killed_run_leaves_no_process_and_the_next_removes_its_folder(
    runs: Runs, measuring_run: subprocess.Popen[str]
) -> None:
    worker = worker_of(measuring_run, runs.pytester.path / "trace")
    measuring_run.kill()
    measuring_run.wait()
    worker.wait(60)
    (left,) = run_folders()
    two_days_ago = time.time() - 2 * 86400
    os.utime(left, (two_days_ago, two_days_ago))
    runs.environment.delenv("SCRIPTED_CLOCK")
    assert runs.measuring().ret == 0, "the lease of the killed run is free"
    assert run_folders() == []
