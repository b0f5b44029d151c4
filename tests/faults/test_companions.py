"""Beside pytest-xdist, -randomly, -rerunfailures, -timeout and -cov no verdict changes and nothing is lost."""

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

from tests.faults.scene import TIMEOUT

if TYPE_CHECKING:
    import subprocess

    from tests.faults.scene import Scene, Seen, Stage

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are found by /proc")

TWO_CASES = "--rwkv-quant=int8,fp16"


def needs(*modules: str) -> pytest.MarkDecorator:
    missing = [name for name in modules if find_spec(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"{missing} not installed; `make setup` installs them")


def rows(seen: Seen) -> list[str]:
    """The table's rows, without what differs by chance."""
    return sorted(" ".join(line.split()) for line in seen.text.splitlines() if line.startswith("scripted  "))


def outcomes(seen: Seen) -> dict[str, str]:
    return {test.id.rpartition("[")[2]: test.outcome for test in seen.tests}


def opened(scene: Scene) -> list[str]:
    """The quant of each process that has opened a model."""
    return [line.split()[1] for line in (scene.backstage / "trace").read_text("utf-8").splitlines()]


def save_and_see(stage: Stage, *arguments: str) -> tuple[Seen, list[str], int]:
    """A run in which one case is wrong and one is right; its openings, and the sessions stored of the right one."""
    scene = stage()
    trace = str(scene.backstage / "trace")
    seen = scene.run(TWO_CASES, "--rwkv-save-baseline", *arguments, fault="wrong@logits@int8", trace=trace, saves=True)
    cases = json.loads(scene.path.read_text("utf-8"))["cases"].values()
    (stored,) = (case for case in cases if case["case"]["device"] == "cpu")
    return seen, sorted(opened(scene)), len(stored["sessions"])


def sessions(scene: Scene) -> dict[str, list[object]]:
    """What is stored of each case that was measured on the processor."""
    cases = json.loads(scene.path.read_text("utf-8"))["cases"].items()
    return {name: case["sessions"] for name, case in cases if case["case"]["device"] == "cpu"}


DISTRIBUTIONS = (("-n", "4", "--dist=loadgroup"), *([("-n", "4")] if "RWKVPERF_PROVE" in os.environ else []))
"""One of them is enough for every day; `make prove ARGS=faults` tries both."""


@needs("xdist")
def test_four_processes_judge_store_and_tell_what_one_does(stage: Stage) -> None:
    serial, opened_serially, stored = save_and_see(stage)
    assert (serial.code, stored) == (1, 2)
    assert outcomes(serial) == {
        "scripted-int8-cpu-pp16]": "failed",
        "scripted-int8-cpu-tg4]": "failed",
        "scripted-fp16-cpu-pp16]": "passed",
        "scripted-fp16-cpu-tg4]": "passed",
    }
    for distribution in DISTRIBUTIONS:
        seen, opened_now, stored = save_and_see(stage, *distribution)
        assert (seen.code, stored) == (1, 2), seen.text
        assert outcomes(seen) == outcomes(serial)
        assert rows(seen) == rows(serial)
        assert opened_now == opened_serially, "each case was measured once"
        assert seen.text.count("RWKV-7 throughput") == 1
        assert len(re.findall(r"^Saved \d+ workloads", seen.text, re.MULTILINE)) == 1


@needs("xdist")
def test_a_killed_xdist_worker_costs_one_test(stage: Stage) -> None:
    scene = stage()
    trace = scene.backstage / "trace"

    def kill_the_measuring_one(process: subprocess.Popen[str]) -> None:
        limit = time.monotonic() + TIMEOUT
        mark = scene.backstage / "mark-fp16"
        while not (mark.exists() and mark.read_text("ascii")):
            assert time.monotonic() < limit
            time.sleep(0.02)
        (worker,) = (line.split()[0] for line in trace.read_text("utf-8").splitlines() if " fp16 " in line)
        parent = psutil.Process(int(worker)).parent()
        assert parent is not None
        assert parent.pid != process.pid
        (scene.backstage / "calm").touch()
        parent.kill()

    scene.extra = {"SCRIPTED_CALM": str(scene.backstage / "calm")}
    before = sessions(scene)
    seen = scene.run(
        TWO_CASES, "-n", "2", "--rwkv-save-baseline", saves=True, killed=True,
        fault="sleep@open@fp16", trace=str(trace), meanwhile=kill_the_measuring_one,
    )  # fmt: skip
    assert seen.code == 1, seen.text
    assert "crashed while running" in seen.text
    assert sorted(outcomes(seen).values()) == ["failed", "passed", "passed", "passed"], seen.text
    left = [Path(one).name for one in seen.left]
    assert all(one.startswith("rwkvperf-worker-") for one in left), "what a killed process leaves, a later run removes"
    stored = sessions(scene)
    assert len(stored) == 2, "the other case was saved"
    assert all(one in stored[name] for name, old in before.items() for one in old)


@needs("pytest_randomly", "pytest_rerunfailures", "pytest_timeout", "pytest_cov")
def test_a_rerun_judges_the_same_figures_again_and_stays_red(stage: Stage) -> None:
    scene = stage()
    trace = str(scene.backstage / "trace")
    options = ["-p", "randomly", "--reruns=2", "--timeout=100", "--no-cov"]
    seen = scene.run(TWO_CASES.replace("int8,", ""), *options, factor="3", trace=trace)
    assert seen.code == 1
    assert seen.text.count("REGRESSION") >= 2
    assert re.search(r"2 failed, 4 rerun", seen.text), seen.text
    assert len(opened(scene)) == 3, "three processes measured it once; no rerun measured it again"


@needs("pytest_cov")
def test_under_coverage_nothing_passes_and_nothing_is_stored(stage: Stage) -> None:
    scene = stage()
    seen = scene.run("--cov=.", "--cov-report=")
    assert seen.code == 0
    assert "rwkvperf: under coverage, so no verdict will count" in seen.text
    assert [row.split()[-1] for row in rows(seen)] == ["INCONCLUSIVE"] * 2
    again = stage()
    refused = again.run("--cov=.", "--cov-report=", "--rwkv-save-baseline")
    assert refused.code == pytest.ExitCode.USAGE_ERROR
    assert "this process runs under coverage" in refused.sentence
    same = stage().run("--cov=.", "--cov-report=", "--rwkv-aa")
    assert (same.code, len(rows(same))) == (0, 2), "measured, and nothing of it kept: the scene compares the files"
    assert "for later verdicts" not in same.text
