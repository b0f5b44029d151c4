"""Five hundred cases in one run: the parent's memory and descriptors stay level, and reports are made in seconds."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from pytest_rwkvperf.reports import formats

if TYPE_CHECKING:
    from tests.faults.sandbox import SandboxFactory

CASES, MEMORY_SHARE, REPORT_SECONDS = 500, 0.05, 10.0

NOTING = """
import json, os
import psutil
from pytest_rwkvperf.measure import plan

plan.MIN_PROCESSES = 1
me = psutil.Process()

def pytest_runtest_logfinish(nodeid):
    with open(os.environ["SOAK_NOTES"], "a") as file:
        file.write(json.dumps({"rss": me.memory_info().rss, "descriptors": me.num_fds()}) + "\\n")
"""
"""A plugin: one process a case, and the parent's resident memory and open descriptors noted after each test."""


@pytest.mark.prove
@pytest.mark.timeout(7200)
def test_memory_and_descriptors_stay_level_over_500_cases(new_sandbox: SandboxFactory) -> None:
    sandbox = new_sandbox()
    notes = sandbox.root / "notes"
    (sandbox.root / "soak_plugin.py").write_text(NOTING, encoding="utf-8")
    sandbox.extra = {"SOAK_NOTES": str(notes)}
    quants = ",".join(f"int8@{number}" for number in range(CASES))
    options = ("-p", "soak_plugin", "-q", f"--rwkv-quant={quants}", "--rwkv-workload=pp16")
    result = sandbox.observe(*options, "--rwkv-report=record.json", timeout=7200)
    assert (result.code, result.orphans, result.left) == (0, [], []), result.text[-4000:]
    noted = [json.loads(line) for line in notes.read_text(encoding="utf-8").splitlines()]
    early, late = noted[CASES // 10], noted[-1]
    assert late["rss"] / early["rss"] - 1 < MEMORY_SHARE
    assert late["descriptors"] == early["descriptors"]
    for name in formats.FORMATS:
        command = [sys.executable, "-m", "pytest_rwkvperf.cli", "report", "record.json", "--format", name]
        started = time.monotonic()
        subprocess.run(command, cwd=sandbox.folder, env=sandbox.variables({}), check=True, stdout=subprocess.DEVNULL)
        assert time.monotonic() - started < REPORT_SECONDS, name
