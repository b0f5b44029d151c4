"""Five hundred cases in one run: whether the parent's memory or descriptors grow, and how long reports take.

    python benchmarks/faults/soak.py [--cases 500]

The scripted engine of tests/unit/scripted on synthetic:nano, one process a case. A plugin notes resident memory,
open descriptors and the time after each case; pytest's own record of the tests is part of it. Reports are every
format that is registered, each made by `rwkvperf report` of the run's record. Prints and writes `soak.json` and
`soak.md`. Exit 1 when memory after a tenth of the cases and at the end differ by more than 5 %, when descriptors differ
at all, or when a report takes 10 s.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.faults.scene import Scene, Stage  # noqa: E402 - the line above finds it

RESULTS, TABLE = Path(__file__).with_suffix(".json"), Path(__file__).with_suffix(".md")
MEMORY_SHARE, REPORT_SECONDS = 0.05, 10.0
PLUGIN = """
import json, os, time
import psutil
from pytest_rwkvperf.measure import plan

plan.MIN_PROCESSES = 1
me = psutil.Process()

def pytest_runtest_logfinish(nodeid):
    with open(os.environ["SOAK_NOTES"], "a") as file:
        told = {"rss": me.memory_info().rss, "descriptors": me.num_fds(), "threads": me.num_threads()}
        file.write(json.dumps({**told, "time": time.time()}) + "\\n")
"""


def formats() -> list[str]:
    """Every report that can be made of a record."""
    from pytest_rwkvperf.reports import registry

    return list(registry.FORMATS)


def timed(scene: Scene, name: str) -> float:
    """Seconds to make one report of the run's record."""
    command = [sys.executable, "-m", "pytest_rwkvperf.cli", "report", "record.json", "--format", name]
    started = time.monotonic()
    subprocess.run(command, cwd=scene.folder, env=scene.variables({}), check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - started


def soak(folder: Path, cases: int) -> dict[str, Any]:
    """Run it; what was noted."""
    scene = Stage(folder / "stage")()
    notes = folder / "notes"
    (scene.backstage / "soak_plugin.py").write_text(PLUGIN, encoding="utf-8")
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
    seen = scene.run(*arguments, timeout=7200)
    ended = time.time()
    if seen.code != 0 or seen.orphans or seen.left:
        raise SystemExit(f"the run failed: {seen.code}, {seen.orphans}, {seen.left}\n{seen.text[-4000:]}")
    told = [json.loads(line) for line in notes.read_text(encoding="utf-8").splitlines()]
    early, late = told[len(told) // 10], told[-1]
    tenth = max(1, len(told) // 10)
    return {
        "cases": len(told),
        "seconds": round(seen.seconds),
        "rss_mib_after_a_tenth": round(early["rss"] / 2**20, 1),
        "rss_mib_at_the_end": round(late["rss"] / 2**20, 1),
        "growth": round(late["rss"] / early["rss"] - 1, 4),
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
