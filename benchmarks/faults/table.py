"""Every fault of docs/reliability.md, what was observed and how long it took to notice; under 15 minutes.

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

from tests.faults.catalog import (  # noqa: E402 - the line above finds it
    FAULTS,
    Fault,
    broken_fault_promises,
    broken_promises,
    run_with_faults,
)
from tests.faults.sandbox import RUN_SECONDS, SandboxFactory  # noqa: E402 - likewise

RESULTS, TABLE = Path(__file__).with_suffix(".json"), Path(__file__).with_suffix(".md")
ROWS = {
    "a worker killed during a sample": 1,
    "one engine that dies": 1,
    "two gigabytes on stdout": 6,
    "an unusable baseline is a usage error[truncated]": 7,
    "an unusable baseline is a usage error[newer]": 8,
    "another machines baseline": 10,
    "four processes give": 11,
    "a killed xdist worker": 11,
    "a save that is killed at any step": 12,
    "a full disk leaves the old file": 12,
    "a baseline on a full disk": 12,
    "ctrl c while a save waits": 12,
    "sixteen savers at once": 13,
    "two sessions that save at once": 13,
    "the holder of the lock is named": 13,
    "a malformed model file": 14,
    "a truncated gguf": 14,
    "an engine refuses a truncated file": 14,
    "a missing engine": 15,
    "a missing cuda device": 15,
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


def alone(new_sandbox: SandboxFactory, fault: Fault) -> Line:
    """Cause one fault in a run of its own."""
    promised = f"{fault.seconds:.1f} s"
    if fault.missing:
        return Line(str(fault.row), fault.name, "", promised, "", "", f"not played: {fault.missing}")
    result, (quant, *_) = run_with_faults(new_sandbox(), [fault])
    problems = [*broken_promises(result), *broken_fault_promises(fault, quant, result)]
    noticed = result.noticed(quant)
    tests = result.of(quant)
    said = without_places(re.sub(r"\s+", " ", tests[0].text))[:160] if tests else ""
    shown = "" if noticed is None else f"{noticed:.2f} s"
    return Line(str(fault.row), fault.name, shown, promised, str(result.code), said, "; ".join(problems) or "kept")


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
        lines.append(Line(row_of(name), name, noticed, f"{RUN_SECONDS:.1f} s", "", "whole runs: see the test", result))
    return lines


def main() -> int:
    """Play everything, print and record it."""
    os.environ["RWKVPERF_PROVE"] = "1"  # each promise to the second, and every test in full
    started = time.monotonic()
    print(HEAD)
    lines = []
    with tempfile.TemporaryDirectory(prefix="rwkvperf-faults-") as folder:
        new_sandbox = SandboxFactory(Path(folder) / "sandboxes")
        for fault in FAULTS:
            lines.append(alone(new_sandbox, fault))
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
