"""Five hundred cases in one run: whether the parent's memory or descriptors grow, and how long reports take.

    python benchmarks/faults/soak.py [--cases 500]

The scripted engine of tests/scripted on synthetic:nano, one process a case. A plugin notes resident memory,
open descriptors and the time after each case, and memory once more when pytest ends, tables and reports made. Reports
are every format that is registered, each made by `rwkvperf report` of the run's record. Beside it stand as many tests
that do nothing, of pytest alone and of pytest-benchmark with three rounds each: what those two keep of a test, no
plugin on them can give back. Prints and writes `soak.json` and `soak.md`. Exit 1 when memory after a tenth of the cases
and at the end differ by more than 5 %, when descriptors differ at all, or when a report takes 10 s.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.faults.scene import Scene, Stage  # noqa: E402 - the line above finds it

RESULTS, TABLE = Path(__file__).with_suffix(".json"), Path(__file__).with_suffix(".md")
MEMORY_SHARE, REPORT_SECONDS = 0.05, 10.0
NOTING = """
import json, os, time
import psutil

me = psutil.Process()

def note():
    with open(os.environ["SOAK_NOTES"], "a") as file:
        told = {"rss": me.memory_info().rss, "descriptors": me.num_fds(), "threads": me.num_threads()}
        file.write(json.dumps({**told, "time": time.time()}) + "\\n")

def pytest_runtest_logfinish(nodeid):
    note()

def pytest_unconfigure():
    note()
"""
ONE_PROCESS = """
from pytest_rwkvperf.measure import plan

plan.MIN_PROCESSES = 1
"""
IDLE = {
    "pytest alone": "number",
    "with pytest-benchmark": "number, benchmark",
}
"""Tests that do nothing, by what they ask for."""
IDLE_TESTS = """
import pytest

@pytest.mark.parametrize("number", range({cases}))
def test_nothing({asked}):
    if {with_benchmark}:
        benchmark.pedantic(int, rounds=3)
"""


@dataclass(frozen=True, slots=True)
class Growth:
    """Resident bytes after a tenth of the tests and after the last one."""

    early: int
    late: int
    tests: int

    @property
    def share(self) -> float:
        """What came to it, as a share of what was there."""
        return self.late / self.early - 1

    @property
    def bytes_a_test(self) -> float:
        """What each test between the two has left."""
        return (self.late - self.early) / (self.tests - self.tests // 10 - 1)


def formats() -> list[str]:
    """Every report that can be made of a record."""
    from pytest_rwkvperf.reports import formats

    return list(formats.FORMATS)


def timed(scene: Scene, name: str) -> float:
    """Seconds to make one report of the run's record."""
    command = [sys.executable, "-m", "pytest_rwkvperf.cli", "report", "record.json", "--format", name]
    started = time.monotonic()
    subprocess.run(command, cwd=scene.folder, env=scene.variables({}), check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - started


def noted(path: Path) -> list[dict[str, Any]]:
    """What the plugin has noted: a line for each test, and one at the end."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def growth(told: Sequence[dict[str, Any]]) -> Growth:
    """Of the notes of tests, without the one at the end."""
    return Growth(told[len(told) // 10]["rss"], told[-1]["rss"], len(told))


def idle(folder: Path, asked: str, cases: int) -> Growth:
    """The same number of tests that do nothing."""
    folder.mkdir()
    (folder / "soak_plugin.py").write_text(NOTING, encoding="utf-8")
    text = IDLE_TESTS.format(cases=cases, asked=asked, with_benchmark="benchmark" in asked)
    (folder / "test_idle.py").write_text(text, encoding="utf-8")
    environment = {**os.environ, "SOAK_NOTES": str(folder / "notes"), "PYTHONPATH": str(folder)}
    options = ("-q", "-p", "soak_plugin", "-p", "no:cacheprovider", "-p", "no:hypothesispytest", "-p", "no:randomly")
    command = [sys.executable, "-m", "pytest", *options, "test_idle.py"]
    subprocess.run(command, cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)
    return growth(noted(folder / "notes")[:-1])


def soak(folder: Path, cases: int) -> dict[str, Any]:
    """Run it; what was noted."""
    scene = Stage(folder / "stage")()
    notes = folder / "notes"
    (scene.backstage / "soak_plugin.py").write_text(NOTING + ONE_PROCESS, encoding="utf-8")
    scene.extra = {"SOAK_NOTES": str(notes)}
    quants = ",".join(f"int8@{number}" for number in range(cases))
    arguments = (
        "-p",
        "soak_plugin",
        "-q",
        f"--rwkv-quant={quants}",
        "--rwkv-workload=pp16",
        "--rwkv-report=record.json",
    )
    seen = scene.play(*arguments, timeout=7200)
    ended = time.time()
    if seen.code != 0 or seen.orphans or seen.left:
        raise SystemExit(f"the run failed: {seen.code}, {seen.orphans}, {seen.left}\n{seen.text[-4000:]}")
    *told, last = noted(notes)
    early, late = told[len(told) // 10], told[-1]
    tenth = max(1, len(told) // 10)
    grown = growth(told)
    plain = {name: idle(folder / f"idle-{len(asked)}", asked, cases) for name, asked in IDLE.items()}
    return {
        "cases": len(told),
        "seconds": round(seen.seconds),
        "rss_mib_after_a_tenth": round(grown.early / 2**20, 1),
        "rss_mib_at_the_end": round(grown.late / 2**20, 1),
        "growth": round(grown.share, 4),
        "kib_a_case": round(grown.bytes_a_test / 1024, 1),
        **{f"kib_a_test_that_does_nothing, {name}": round(one.bytes_a_test / 1024, 1) for name, one in plain.items()},
        "rss_mib_after_the_reports": round(last["rss"] / 2**20, 1),
        "descriptors_after_a_tenth": early["descriptors"],
        "descriptors_at_the_end": late["descriptors"],
        "threads": [early["threads"], late["threads"]],
        "seconds_per_case_first_tenth": round((told[tenth]["time"] - told[0]["time"]) / tenth, 3),
        "seconds_per_case_last_tenth": round((told[-1]["time"] - told[-1 - tenth]["time"]) / tenth, 3),
        "seconds_to_finish": round(ended - late["time"], 2),
        "record_bytes": (scene.folder / "record.json").stat().st_size,
        "report_seconds": {name: round(timed(scene, name), 2) for name in formats()},
    }


def main() -> int:
    """Run, print and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=500)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rwkvperf-soak-") as folder:
        found = soak(Path(folder), options.cases)
    about = {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "system": platform.platform(),
        "python": platform.python_version(),
    }
    print(json.dumps(found, indent=1))
    RESULTS.write_text(json.dumps({"conditions": about, "soak": found}, indent=1) + "\n", encoding="utf-8")
    rows = [f"| {name.replace('_', ' ')} | {value} |" for name, value in found.items()]
    head = f"# {found['cases']} cases in one run\n\nMade by `soak.py` on {about['date']}, {about['system']}.\n"
    TABLE.write_text("\n".join([head, "| | |", "|---|--:|", *rows]) + "\n", encoding="utf-8")
    steady = abs(found["growth"]) <= MEMORY_SHARE
    level = found["descriptors_after_a_tenth"] == found["descriptors_at_the_end"]
    quick = max([found["seconds_to_finish"], *found["report_seconds"].values()]) < REPORT_SECONDS
    return 0 if steady and level and quick else 1


if __name__ == "__main__":
    sys.exit(main())
