"""The records of 200 machines, joined, stored and reported: how long, how much memory.

    python benchmarks/fleet/merge.py [--machines 200]

A real record, of a run of the scripted engine with four cases, is given to as many machines, each with a fingerprint
and an id of its own; `rwkvperf merge` then does all that it can. Prints and writes `merge.json` and `merge.md`.
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
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from pytest_rwkvperf.store import record as records  # noqa: E402 - the line above finds it
from tests.faults.sandbox import SandboxFactory  # noqa: E402 - likewise

RESULTS, TABLE = Path(__file__).with_suffix(".json"), Path(__file__).with_suffix(".md")


def real_record(folder: Path) -> records.Record:
    """What a run leaves."""
    sandbox = SandboxFactory(folder / "sandboxes")()
    seen = sandbox.run("--rwkv-quant=fp16,int8,int8@1,int8@2", "--rwkv-report=record.json")
    if seen.code:
        raise SystemExit(seen.text)
    return records.read(sandbox.folder / "record.json")


def measured(command: list[str], folder: Path) -> tuple[float, float]:
    """Seconds, and the peak of the command's memory in MiB."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(folder / "cache")}
    started = time.monotonic()
    process = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{command} ended with {os.waitstatus_to_exitcode(status)}")
    return round(time.monotonic() - started, 2), round(used.ru_maxrss / 1024)


def main() -> None:
    """Make, merge, record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--machines", type=int, default=200)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rwkvperf-fleet-") as name:
        folder = Path(name)
        one = real_record(folder)
        given = folder / "artefacts"
        given.mkdir()
        for number in range(options.machines):
            machine = replace(one.fingerprint, cpu=f"{one.fingerprint.cpu} {number}")
            text = records.dumps(replace(one, id=f"{number:032x}", fingerprint=machine))
            (given / f"{number}.json").write_text(text, encoding="utf-8")
        size = sum(path.stat().st_size for path in given.iterdir())
        merge = [sys.executable, "-m", "pytest_rwkvperf.cli", "merge", "artefacts", f"--expect={options.machines}"]
        found: dict[str, Any] = {"machines": options.machines, "record_mib": round(size / 2**20, 1)}
        wanted = {
            "markdown": ["-ofleet.md"],
            "all formats": ["-ofleet.md", "-ofleet.csv", "-ofleet.json"],
            "all formats and baselines": ["-ofleet.md", "-ofleet.csv", "-ofleet.json", "--save-baseline"],
        }
        found["merged"] = {what: measured([*merge, *extra], folder) for what, extra in wanted.items()}
        found["baselines"] = len(list((folder / "baselines").iterdir()))
        found["report_kib"] = round((folder / "fleet.md").stat().st_size / 1024)
    about = {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "system": platform.platform(),
        "python": platform.python_version(),
    }
    print(json.dumps(found, indent=1))
    RESULTS.write_text(json.dumps({"conditions": about, "merge": found}, indent=1) + "\n", encoding="utf-8")
    lines = [
        f"# The records of {found['machines']} machines, joined",
        "",
        f"Made by `merge.py` on {about['date']}, {about['system']}.",
        f"Four cases of two workloads a machine, {found['record_mib']} MiB of records; {found['baselines']} baselines",
        f"and a report of {found['report_kib']} KiB came of it.",
        "",
        "| written | seconds | peak memory, MiB |",
        "|---|--:|--:|",
        *(f"| {what} | {seconds} | {peak} |" for what, (seconds, peak) in found["merged"].items()),
    ]
    TABLE.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
