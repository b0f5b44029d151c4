"""What a run says while it works, in a log: no terminal, so a line now and then."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from pytest_rwkvperf.core import folders, locks
from pytest_rwkvperf.run import progress

if TYPE_CHECKING:
    from tests.conftest import Runs


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "SILENT_SECONDS", 0.01)


def test_lines_say_which_case_is_measured_what_is_done_since_when_and_until_when(runs: Runs) -> None:
    result = runs.measuring("--rwkv-quant=fp16,int8", "--rwkv-budget=60", "--rwkv-precision=50%")
    assert result.ret == 0
    told = [line for line in result.outlines if line.startswith("case ")]
    assert told[0].startswith("case 1 of 2, scripted-fp16-cpu: process 1: ")
    assert any(line.startswith("case 2 of 2, scripted-int8-cpu: process ") for line in told)
    assert any(": timing pp16 (" in line for line in told)
    assert all(re.search(r" \(\d+ s so far, about (\d+ s|1 min) left\)$", line) for line in told)
    # Each measured case's dot follows the name of its file, which is repeated after the lines.
    assert [line for line in result.outlines if line.startswith("rwkvperf .")] != []


HOLDER = """
import sys
from pathlib import Path
from pytest_rwkvperf.core import locks

with locks.hold(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""
"""A process that holds a lock until its stdin is closed."""


def test_a_wait_for_another_run_is_told_with_its_length_at_the_end(runs: Runs) -> None:
    lease = folders.in_cache("leases") / "cpu.lock"
    command = [sys.executable, "-c", HOLDER, str(lease)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        release, wait = threading.Timer(0.6, holder.stdin.close), locks._wait

        def waiting(*arguments: Any) -> None:  # noqa: ANN401 - the function's own
            if lease in arguments:  # and not the folder of another run that is going on
                release.start()
            wait(*arguments)

        runs.environment.setattr(locks, "_wait", waiting)
        result = runs.measuring()
        release.join()
    assert result.ret == 0
    result.stdout.re_match_lines(
        [
            rf"waiting for cpu: another session measures on it \(process {holder.pid} on .* since 20.*\)",
            rf"waiting for cpu, on which process {holder.pid} on .* since 20.* measures \(\d+ s so far\)",
            r"Of the run's time, \S+ s went into waiting for other runs that measured on the same device\.",
        ]
    )
    assert "went into waiting" not in runs.measuring().stdout.str()


OFTEN = """
from pytest_rwkvperf.run import progress, relay

progress.SILENT_SECONDS = relay.LOOK_SECONDS = 0.05
"""
"""A conftest.py, for the processes of pytest-xdist."""


@pytest.mark.parametrize("quants", ["fp16", "fp16,int8"])
def test_under_xdist_the_controller_shows_what_its_workers_do(runs: Runs, quants: str) -> None:
    """Of two workers one waits while the other has the device, which is no wait for another run."""
    runs.pytester.makeconftest(OFTEN)
    options = ("-n", "2", f"--rwkv-quant={quants}", "--rwkv-workload=pp16,tg4")
    result = runs.measuring(*options, apart=True, clock="real", factor="0.2")
    assert result.ret == 0
    told = [line for line in result.outlines if line.startswith("case 1 of ")]
    assert any(re.search(r": process \d+: timing \w+ \(\d+ s so far, about .* left\)$", line) for line in told)
    assert any(line.startswith("scripted-fp16-cpu: pp16 ") for line in result.outlines), "the line of a measured case"
    text = result.stdout.str()
    assert "another session" not in text
    assert "went into waiting" not in text
    assert "case " not in runs.measuring("-q", *options, apart=True).stdout.str()
