"""Does the gate stay quiet on unchanged code and speak on a doubled time? One baseline, ten reruns, one slowed run.

The slowdown is real and comes in through the entry point that third parties use (`pytest_rwkvperf/certify/planted.py`).

    python benchmarks/gate/reruns.py
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import Any

from pytest_rwkvperf.backends import registry
from pytest_rwkvperf.certify.trials import Trials, trials
from pytest_rwkvperf.core.cases import Workload
from pytest_rwkvperf.machine import fingerprint

HERE = Path(__file__).resolve().parent

CASE = ("--rwkv-quant=f16", "--rwkv-workload=pp512,tg128")


def run(runs: Trials, factor: float, *options: str) -> dict[str, Any]:
    """One pytest run: exit code, seconds, and each item's judgement."""
    done, seconds = runs.run(factor, *CASE, *options)
    items = [
        {
            "item": f"{case.case.quant} {Workload.parse(item.workload).kind}",
            "verdict": item.verdict,
            "new": item.rate.median if item.rate else None,
            "ratio": item.comparison.ratio if item.comparison else None,
        }
        for case, item in done.items()
    ]
    return {"exit": done.exit_status, "seconds": seconds, "items": items}


def main() -> None:
    """Run them all, print and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reruns", type=int, default=10)
    parser.add_argument("--budget", type=int, default=20, help="seconds a run")
    options = parser.parse_args()
    budget = f"--rwkv-budget={options.budget}"
    with trials(registry.BUILT_IN["llama-cpp"]) as live:
        first = run(live, 1, budget, "--rwkv-save-baseline")
        unchanged = []
        for index in range(options.reruns):
            unchanged.append(run(live, 1, budget))
            print(index + 1, unchanged[-1], flush=True)
        slowed = run(live, 2, budget)
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
        "llama-cpp slowed by `certify/planted.py`, synthetic:nano, f16, pp512 and tg128, tolerance 5 %.",
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
