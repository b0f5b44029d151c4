"""The whole suite three ways: one test after the other, on four processes of pytest-xdist, and in an order of chance.

    python benchmarks/faults/suite.py [serial] [parallel] [random] [--seed N]

Without a name all three, 10 minutes each on 2 cores; a way that is not named keeps its row. Each runs the tests of
tests/ as `make test` does and counts what their JUnit file says. Prints and writes `suite.json` and `suite.md`. Exit 1
when a test failed in any way that ran, or when the ways did not all run the same tests.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import secrets
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections import Counter
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RESULTS, TABLE = Path(__file__).with_suffix(".json"), Path(__file__).with_suffix(".md")
WAYS = {
    "serial": (),
    "parallel": ("-n", "4"),
    "random": ("-p", "randomly", "--randomly-seed={seed}"),
}
HEAD = "| way | options | passed | failed | skipped | min | exit | date |\n|---|---|--:|--:|--:|--:|--:|---|"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of the tests in one way; `skips` are reasons and numbers, `rooms` folders and their minutes."""

    way: str
    options: str
    passed: int
    failed: tuple[str, ...]
    skips: dict[str, int]
    rooms: dict[str, float]
    minutes: float
    code: int
    date: str

    @property
    def tests(self) -> int:
        """How many there were."""
        return self.passed + len(self.failed) + sum(self.skips.values())

    def __str__(self) -> str:
        skipped = sum(self.skips.values())
        cells = (self.way, f"`{self.options}`", self.passed, len(self.failed), skipped, self.minutes, self.code)
        return "| " + " | ".join(map(str, (*cells, self.date))) + " |"


def count(way: str, options: str, report: Path, seconds: float, code: int) -> Outcome:
    """Read the JUnit file that pytest has written."""
    passed, failed, skips, rooms = 0, [], Counter[str](), Counter[str]()
    for case in ET.parse(report).getroot().iter("testcase"):  # noqa: S314 - pytest has just written it
        skipped = case.find("skipped")
        rooms["/".join(case.get("classname", "").split(".")[:2])] += float(case.get("time", 0)) / 60
        if case.find("failure") is not None or case.find("error") is not None:
            failed.append(f"{case.get('classname')}.{case.get('name')}")
        elif skipped is not None:
            skips[skipped.get("message", "")] += 1
        else:
            passed += 1
    date = datetime.now(timezone.utc).isoformat(timespec="minutes")
    spent = {room: round(minutes, 1) for room, minutes in sorted(rooms.items())}
    whole = round(seconds / 60, 1)
    return Outcome(way, options, passed, tuple(sorted(failed)), dict(skips), spent, whole, code, date)


def run(way: str, seed: int) -> Outcome:
    """Run the suite one way, its output in view."""
    options = [part.format(seed=seed) for part in WAYS[way]]
    with tempfile.TemporaryDirectory(prefix="rwkvperf-suite-") as folder:
        report = Path(folder, "junit.xml")
        command = [sys.executable, "-m", "pytest", "-q", f"--junitxml={report}", *options]
        started = time.monotonic()
        code = subprocess.run(command, cwd=ROOT, check=False).returncode
        shown = " ".join(["pytest", *options])
        return count(way, shown, report, time.monotonic() - started, code)


def shares(rooms: dict[str, float]) -> str:
    """Minutes by room, as a sentence."""
    return ", ".join(f"{room} {minutes}" for room, minutes in rooms.items())


def before() -> dict[str, Outcome]:
    """The rows that are recorded."""
    told = json.loads(RESULTS.read_text(encoding="utf-8"))["ways"] if RESULTS.exists() else []
    rows = [Outcome(**{**row, "failed": tuple(row["failed"])}) for row in told]
    return {row.way: row for row in rows}


def record(rows: list[Outcome]) -> None:
    """Write the table and its data."""
    about = {"system": platform.platform(), "python": platform.python_version(), "cores": os.cpu_count()}
    told = json.dumps({"conditions": about, "ways": [asdict(row) for row in rows]}, indent=1)
    RESULTS.write_text(told + "\n", encoding="utf-8")
    reasons = {reason: number for row in rows for reason, number in row.skips.items()}
    lines = [
        "# The whole suite, three ways",
        "",
        f"Made by `suite.py` on {about['system']}, {about['cores']} cores, Python {about['python']}.",
        "",
        HEAD,
        *map(str, rows),
        "",
        *(f"* failed, {row.way}: `{name}`" for row in rows for name in row.failed),
        *(f"* {row.way}, minutes of each room's tests: {shares(row.rooms)}" for row in rows),
        *(f"* skipped, {number}: {reason}" for reason, number in sorted(reasons.items())),
    ]
    TABLE.write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")


def main() -> int:
    """Run, print and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ways", nargs="*", metavar="WAY", help=f"of {', '.join(WAYS)}; default all")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6), help="of the order; default any")
    options = parser.parse_args()
    if unknown := set(options.ways) - set(WAYS):
        parser.error(f"no way is called {', '.join(sorted(unknown))}; there are {', '.join(WAYS)}")
    known, rows = before(), []
    ran = [way for way in WAYS if way in (options.ways or WAYS)]
    for way in ran:
        known[way] = run(way, options.seed)
        rows = [known[name] for name in WAYS if name in known]
        record(rows)
        print(known[way], flush=True)
    alike = len({row.tests for row in rows}) == 1
    return 0 if alike and not any(known[way].code for way in ran) else 1


if __name__ == "__main__":
    sys.exit(main())
