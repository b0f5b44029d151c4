"""Does the gate stay quiet on unchanged code and speak on a doubled time? One baseline, ten reruns, one slowed run.

The slowdown is real and comes in through the entry point that third parties use (.ci/slowed_backend.py).

    python benchmarks/gate/reruns.py
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections import Counter
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
CI = HERE.parents[1] / ".ci"
sys.path.insert(0, str(CI))

from self_gate import offer_backend  # type: ignore[import-not-found]  # noqa: E402 - the folder is no package

from pytest_rwkvperf.machine import fingerprint  # noqa: E402 - after the path

CASE = ("--rwkv-backend=slowed", "--rwkv-quant=f16", "--rwkv-workload=pp512,tg128")


def run(folder: Path, slowdown: str, *options: str) -> dict[str, Any]:
    """One pytest run: exit code, seconds, and each item's judgement from the JUnit file."""
    junit = folder / "junit.xml"
    started = time.monotonic()
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "--rootdir", str(folder), *CASE, *options, f"--junitxml={junit}", "-q"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(CI)]), "GATE_SLOWDOWN": slowdown},
        stdout=subprocess.DEVNULL,
        check=False,
    )
    properties = ET.parse(junit).iter("property")  # noqa: S314 - written by the run above
    judged = [json.loads(one.attrib["value"]) for one in properties if one.attrib["name"] == "rwkvperf"]
    items = [
        {
            "item": f"{one['item']['case']['quant']} {one['item']['workload']['kind']}",
            "verdict": one["verdict"],
            "new": one["new"]["median"],
            "ratio": one["comparison"]["ratio"] if one["comparison"] else None,
        }
        for one in judged
    ]
    return {"exit": ended.returncode, "seconds": round(time.monotonic() - started, 1), "items": items}


def main() -> None:
    """Run them all, print and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reruns", type=int, default=10)
    parser.add_argument("--budget", type=int, default=20, help="seconds a run")
    options = parser.parse_args()
    budget = f"--rwkv-budget={options.budget}"
    with tempfile.TemporaryDirectory(prefix="rwkvperf-gate-") as name:
        folder = Path(name)
        offer_backend(folder)
        first = run(folder, "1", budget, "--rwkv-save-baseline")
        unchanged = []
        for index in range(options.reruns):
            unchanged.append(run(folder, "1", budget))
            print(index + 1, unchanged[-1], flush=True)
        slowed = run(folder, "2", budget)
        print(slowed, flush=True)
    facts = {"machine": fingerprint.read().id, "baseline": first, "unchanged": unchanged, "slowed": slowed}
    (HERE / "reruns.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    (HERE / "reruns.md").write_text(table(facts), encoding="utf-8")
    print(table(facts))


def table(facts: dict[str, Any]) -> str:
    """The recorded result as markdown."""
    lines = [
        f"# The gate on {facts['machine']}",
        "",
        "llama-cpp behind `.ci/slowed_backend.py`, synthetic:nano, f16, pp512 and tg128, tolerance 5 %.",
        "",
        "| run | exit code | seconds | verdicts | ratios to the baseline |",
        "|---|--:|--:|---|---|",
        *(_row(f"unchanged {index + 1}", one) for index, one in enumerate(facts["unchanged"])),
        _row("every call takes twice as long", facts["slowed"]),
    ]
    return "\n".join(lines) + "\n"


def _row(name: str, one: dict[str, Any]) -> str:
    verdicts = ", ".join(f"{count} {verdict}" for verdict, count in Counter(i["verdict"] for i in one["items"]).items())
    ratios = ", ".join("-" if item["ratio"] is None else f"{item['ratio']:.2f}" for item in one["items"])
    return f"| {name} | {one['exit']} | {one['seconds']} | {verdicts} | {ratios} |"


if __name__ == "__main__":
    main()
