"""How often and how soon `--rwkv-compare=auto` decides, and how often it errs: live runs, each a whole pytest run.

One baseline of one session is saved by a run of its own. Then runs of these scenarios take turns, each written down as
soon as it is done, until each has --runs of them; what is recorded already is kept:

* harmless: the new engine differs from the stored one in a variable that does nothing; a REGRESSION is a false alarm;
* slower: every call of the new engine takes 5 % or 10 % longer (.ci/slowed_backend.py).

    python benchmarks/gate/steps.py --runs 10
    python benchmarks/gate/steps.py --runs 0        # the table from what is recorded
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scipy.stats import binomtest

HERE = Path(__file__).resolve().parent
CI = HERE.parents[1] / ".ci"
sys.path.insert(0, str(CI))

from self_gate import offer_backend  # type: ignore[import-not-found]  # noqa: E402 - the folder is no package

from pytest_rwkvperf.machine import fingerprint  # noqa: E402 - after the path

RECORDED = HERE / "steps.json"


@dataclass(frozen=True, slots=True)
class Scenario:
    """What is measured, how much longer the new engine's calls take, and the verdict that is right."""

    name: str
    options: tuple[str, ...]
    factor: str
    right: str


NANO = ("--rwkv-model=synthetic:nano", "--rwkv-threads=1", "--rwkv-quant=f16,q8_0", "--rwkv-workload=pp512,tg128")
SMALL = ("--rwkv-model=synthetic:0.1b", "--rwkv-threads=1", "--rwkv-quant=q8_0", "--rwkv-workload=pp128,tg32")
SCENARIOS = (
    Scenario("harmless, 4 workloads of nano at 5 %", NANO, "1.000000001", "PASS"),
    Scenario("harmless, 2 workloads of 0.1b at 5 %", SMALL, "1.000000001", "PASS"),
    Scenario("5 % slower, 2 workloads of 0.1b at 1 %", (*SMALL, "--rwkv-tolerance=1%"), "1.05", "REGRESSION"),
    Scenario("10 % slower, 2 workloads of 0.1b at 5 %", SMALL, "1.1", "REGRESSION"),
)


def run(folder: Path, factor: str, *options: str) -> dict[str, Any]:
    """One pytest run: exit code, seconds, and what its record says of each workload."""
    report, started = folder / "run.json", time.monotonic()
    command = [sys.executable, "-m", "pytest", "--rootdir", str(folder), "--rwkv-backend=slowed", "-q", *options]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(CI)]), "GATE_SLOWDOWN": factor}
    ended = subprocess.run(
        [*command, f"--rwkv-report={report}"], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    seconds = round(time.monotonic() - started, 1)
    record = json.loads(report.read_text(encoding="utf-8"))
    return {
        "exit": ended.returncode,
        "seconds": seconds,
        "items": [each for case in record["cases"] for each in _items(case)],
    }


def _items(case: dict[str, Any]) -> list[dict[str, Any]]:
    settled = case["settled"]
    measured = settled["new"] if settled else case["measured"]
    return [
        {
            "item": f"{case['case']['quant']} {item['workload']}",
            "verdict": item["verdict"],
            "step": item["step"],
            "ratio": item["comparison"] and round(item["comparison"]["ratio"], 4),
            "detectable": item["comparison"] and item["comparison"]["detectable"],
            "processes": len(measured["runs"]),
            "pairs_seconds": round(settled["new"]["seconds"], 1) if settled else None,
            "foreign": measured["conditions"]["foreign"],
        }
        for item in case["items"]
    ]


def main() -> None:
    """Run what is missing, print and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--minutes", type=float, default=1e9, help="begin no run after so many")
    options = parser.parse_args()
    began = time.monotonic()
    facts = json.loads(RECORDED.read_text(encoding="utf-8")) if RECORDED.exists() else {}
    machine = fingerprint.read().id
    runs: dict[str, list[Any]] = facts.setdefault(machine, {})
    with tempfile.TemporaryDirectory(prefix="rwkvperf-steps-") as name:
        folder = Path(name)
        offer_backend(folder)
        if options.runs:
            for case in (NANO, SMALL):
                run(folder, "1", *case, "--rwkv-save-baseline", "--rwkv-budget=40")
        for index in range(options.runs):
            for scenario in SCENARIOS:
                done = runs.setdefault(scenario.name, [])
                if len(done) > index or time.monotonic() - began > 60 * options.minutes:
                    continue
                done.append(run(folder, scenario.factor, *scenario.options))
                print(scenario.name, done[-1], flush=True)
                RECORDED.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    text = table(facts)
    (HERE / "steps.md").write_text(text, encoding="utf-8")
    print(text)


def table(facts: dict[str, Any]) -> str:
    """The recorded result as markdown."""
    lines = [
        "# What the gate decides",
        "",
        "llama.cpp behind `.ci/slowed_backend.py`, one thread, one stored session of 40 s, otherwise default",
        "options but for what the row names.",
        "*Right*: workloads with the right verdict. *False alarms*: runs of harmless changes with a REGRESSION, with",
        "the upper bound of Clopper and Pearson at 95 %. *Seconds*: of a whole run with pytest's start, median and",
        "95 % quantile.",
        "",
    ]
    for machine, runs in facts.items():
        lines += [
            f"## {machine}",
            "",
            "| scenario | runs | right | wrong | open | false alarms | seconds |",
            "|---|--:|--:|--:|--:|--:|--:|",
            *(_row(scenario, runs[scenario.name]) for scenario in SCENARIOS if runs.get(scenario.name)),
            "",
        ]
    return "\n".join(lines)


def _row(scenario: Scenario, runs: list[Any]) -> str:
    items = [item for each in runs for item in each["items"]]
    right = sum(item["verdict"] == scenario.right for item in items)
    open_ = sum(item["verdict"] in ("INCONCLUSIVE", "NO-BASELINE", None) for item in items)
    seconds = sorted(each["seconds"] for each in runs)
    late = seconds[min(len(seconds) - 1, int(0.95 * len(seconds)))]
    alarms = "-"
    if scenario.right == "PASS":
        count = sum(any(item["verdict"] == "REGRESSION" for item in each["items"]) for each in runs)
        high = binomtest(count, len(runs), alternative="less").proportion_ci(0.95).high
        alarms = f"{count} of {len(runs)} (at most {high:.0%})"
    cells = [
        scenario.name,
        len(runs),
        f"{right} of {len(items)} ({right / len(items):.0%})",
        len(items) - right - open_,
        open_,
        alarms,
        f"{statistics.median(seconds):.0f}, {late:.0f}",
    ]
    return f"| {' | '.join(map(str, cells))} |"


if __name__ == "__main__":
    main()
