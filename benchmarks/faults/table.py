"""Every fault of docs/reliability.md, what was seen of it and how long it took to notice; under 15 minutes.

    python benchmarks/faults/table.py

Each fault of a worker is played in a run of its own (tests/faults/catalog.py); then tests/faults' other tests run.
Prints a table and writes it to `table.md` and `table.json` beside this script. Exit 1 when a promise is not kept.
"""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.faults.catalog import FAULTS, Fault, play, shortcomings, unkept  # noqa: E402 - the line above finds it
from tests.faults.scene import WHOLE, Stage  # noqa: E402 - likewise

RESULTS, TABLE = Path(__file__).with_suffix(".json"), Path(__file__).with_suffix(".md")
ROWS = {
    "a worker killed in the middle of a sample": 1,
    "when one engine dies": 1,
    "two gigabytes on stdout": 6,
    "a baseline that cannot be used is a usage error that names it[truncated]": 7,
    "a baseline that cannot be used is a usage error that names it[newer]": 8,
    "another machines baseline is none": 10,
    "four processes judge store and tell": 11,
    "a killed xdist worker": 11,
    "a save that is killed at any step": 12,
    "a full disk leaves the old file": 12,
    "a baseline on a full disk": 12,
    "ctrl c while a save waits": 12,
    "sixteen savers at once": 13,
    "two sessions that save at once": 13,
    "whoever holds the lock is named": 13,
    "a model file that lies": 14,
    "a truncated gguf": 14,
    "an engine handed a truncated file": 14,
    "an engine that is not there": 15,
    "cuda asked where there is none": 15,
}
"""The row of the list that a test of tests/faults plays, by how its name begins; the others are further ones."""

HEAD = "| row | fault | noticed after | promised | exit | what was said | result |\n|--:|---|--:|--:|--:|---|---|"


@dataclass(frozen=True)
class Line:
    """One row of the table."""

    row: str
    fault: str
    noticed: str
    promised: str
    code: str
    said: str
    result: str

    def __str__(self) -> str:
        cells = (self.row, self.fault, self.noticed, self.promised, self.code, self.said, self.result)
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def alone(stage: Stage, fault: Fault) -> Line:
    """Play one fault in a run of its own."""
    promised = f"{fault.seconds:.1f} s"
    if fault.missing:
        return Line(str(fault.row), fault.name, "", promised, "", "", f"not played: {fault.missing}")
    seen, (quant, *_) = play(stage(), [fault])
    problems = [*shortcomings(seen), *unkept(fault, quant, seen)]
    noticed = seen.noticed(quant)
    tests = seen.of(quant)
    said = without_places(re.sub(r"\s+", " ", tests[0].text))[:160] if tests else ""
    shown = "" if noticed is None else f"{noticed:.2f} s"
    return Line(str(fault.row), fault.name, shown, promised, str(seen.code), said, "; ".join(problems) or "kept")


def without_places(text: str) -> str:
    """A sentence without the folders that something happened to lie in on the machine that made the record."""
    return re.sub(r"(?<![\w./])(?:/[\w.+-]+)+/", ".../", text)


def row_of(name: str) -> str:
    """The row of the list that a test plays; nothing for one of the further faults."""
    return next((str(row) for start, row in ROWS.items() if name.startswith(start)), "")


def others(folder: Path) -> list[Line]:
    """The other tests of tests/faults: each is a fault of its own, noticed in less than the whole test takes."""
    report = folder / "faults.xml"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", "tests/faults"]
    subprocess.run([*command, "--deselect=tests/faults/test_catalog.py"], cwd=ROOT, check=False)
    lines = []
    for case in ET.parse(report).getroot().iter("testcase"):  # noqa: S314 - pytest has just written it
        name = case.get("name", "").removeprefix("test_").replace("_", " ")
        skipped, failed = case.find("skipped"), case.find("failure") is not None or case.find("error") is not None
        result = f"not played: {skipped.get('message', '')}" if skipped is not None else "failed" if failed else "kept"
        noticed = f"< {float(case.get('time', 0)):.1f} s"
        lines.append(Line(row_of(name), name, noticed, f"{WHOLE:.1f} s", "", "whole runs: see the test", result))
    return lines


def main() -> int:
    """Play everything, print and record it."""
    os.environ["RWKVPERF_PROVE"] = "1"  # each promise to the second, and every test in full
    started = time.monotonic()
    print(HEAD)
    lines = []
    with tempfile.TemporaryDirectory(prefix="rwkvperf-faults-") as folder:
        stage = Stage(Path(folder) / "stage")
        for fault in FAULTS:
            lines.append(alone(stage, fault))
            print(lines[-1], flush=True)
        lines += others(Path(folder))
    broken = [line for line in lines if line.result != "kept" and not line.result.startswith("not played")]
    about = {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "system": platform.platform(),
        "python": platform.python_version(),
        "minutes": round((time.monotonic() - started) / 60, 1),
        "broken": len(broken),
    }
    told = [{name: getattr(line, name) for name in Line.__dataclass_fields__} for line in lines]
    RESULTS.write_text(json.dumps({"conditions": about, "faults": told}, indent=1) + "\n", encoding="utf-8")
    head = f"# Faults\n\nMade by `table.py` on {about['date']}, {about['system']}, in {about['minutes']} min.\n"
    text = "\n".join([head, HEAD, *map(str, lines)])
    TABLE.write_text(text + "\n", encoding="utf-8")
    print("\n".join(map(str, lines[len(FAULTS) :])))
    print(f"{len(lines)} faults, {len(broken)} promises broken, {about['minutes']} min")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
