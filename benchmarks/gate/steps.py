"""How often and how soon `--rwkv-compare=auto` decides, and how often it errs: live runs, each a whole pytest run.

A run of its own saves a baseline of one session. Then runs of these scenarios take turns, each written down as soon as
it is done, until each has --runs of them; what is recorded already is kept:

* harmless: the new engine differs from the stored one in a variable that does nothing; a REGRESSION is a false alarm;
* slower: every call of the new engine takes 5 % or 10 % longer (pytest_rwkvperf/certify/planted.py).

    python benchmarks/gate/steps.py --runs 10
    python benchmarks/gate/steps.py --runs 60 --only 'harmless, 2 workloads of nano' --lanes 7
    python benchmarks/gate/steps.py --runs 0        # the table from what is recorded

With --lanes several runs are measured at once, each on two processors of its own with a baseline and a cache of its
own. They share the machine's memory and clock, so their spread is larger than that of a run alone.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scipy.stats import binomtest

from pytest_rwkvperf.backends import registry
from pytest_rwkvperf.certify import planted
from pytest_rwkvperf.certify.trials import UNCHANGED_FACTOR
from pytest_rwkvperf.machine.fingerprint import Fingerprint

HERE = Path(__file__).resolve().parent
RECORDED = HERE / "steps.json"


@dataclass(frozen=True, slots=True)
class Scenario:
    """What is measured, how much longer the new engine's calls take, and the verdict that is right."""

    name: str
    case: tuple[str, ...]
    factor: float
    right: str
    options: tuple[str, ...] = ()


NANO = ("--rwkv-model=synthetic:nano", "--rwkv-threads=1", "--rwkv-quant=f16,q8_0", "--rwkv-workload=pp512,tg128")
NANO_ALONE = ("--rwkv-model=synthetic:nano", "--rwkv-threads=1", "--rwkv-quant=f16", "--rwkv-workload=pp512,tg128")
SMALL = ("--rwkv-model=synthetic:0.1b", "--rwkv-threads=1", "--rwkv-quant=q8_0", "--rwkv-workload=pp128,tg32")
SCENARIOS = (
    Scenario("harmless, 4 workloads of nano at 5 %", NANO, UNCHANGED_FACTOR, "PASS"),
    Scenario("harmless, 2 workloads of nano at 5 %", NANO_ALONE, UNCHANGED_FACTOR, "PASS"),
    Scenario("harmless, 2 workloads of 0.1b at 5 %", SMALL, UNCHANGED_FACTOR, "PASS"),
    Scenario("5 % slower, 2 workloads of 0.1b at 1 %", SMALL, 1.05, "REGRESSION", ("--rwkv-tolerance=1%",)),
    Scenario("10 % slower, 2 workloads of 0.1b at 5 %", SMALL, 1.1, "REGRESSION"),
)


@dataclass(frozen=True, slots=True)
class Lane:
    """Where runs are measured one after the other: a folder with a baseline, and the processors; None for all."""

    folder: Path
    processors: tuple[int, ...] | None

    def run(self, factor: float, *options: str) -> dict[str, Any]:
        """One pytest run: machine, exit code, seconds, and what its record says of each workload."""
        report, started = self.folder / "run.json", time.monotonic()
        command = [
            sys.executable,
            "-m",
            "pytest",
            "--rootdir",
            str(self.folder),
            f"--rwkv-backend={planted.NAME}",
            "-q",
        ]
        environment = {
            **planted.variables(self.folder, registry.BUILT_IN["llama-cpp"], factor),
            **({"XDG_CACHE_HOME": str(self.folder / "cache")} if self.processors else {}),
        }
        ended = subprocess.run(
            [*self._pinned, *command, *options, f"--rwkv-report={report}"],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        seconds = round(time.monotonic() - started, 1)
        if not report.exists():
            raise SystemExit(f"no record after exit {ended.returncode}:\n{ended.stdout}\n{ended.stderr}")
        record = json.loads(report.read_text(encoding="utf-8"))
        return {
            "machine": Fingerprint(**{**record["fingerprint"], "gpus": tuple(record["fingerprint"]["gpus"])}).id,
            "exit": ended.returncode,
            "seconds": seconds,
            "items": [each for case in record["cases"] for each in _items(case)],
        }

    @property
    def _pinned(self) -> list[str]:
        return ["taskset", "-c", ",".join(map(str, self.processors))] if self.processors else []


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


class Runs:
    """The recorded runs by machine and scenario, and what is left to do; shared by the lanes."""

    def __init__(self, wanted: int, scenarios: tuple[Scenario, ...], minutes: float) -> None:
        self.facts: dict[str, dict[str, list[Any]]] = (
            json.loads(RECORDED.read_text(encoding="utf-8")) if RECORDED.exists() else {}
        )
        self._wanted, self._scenarios = wanted, scenarios
        self._end = time.monotonic() + 60 * minutes
        self._begun: dict[tuple[str, str], int] = {}
        self._lock = threading.Lock()

    def measure(self, lane: Lane) -> None:
        """Save baselines in a lane, then run there what is missing until nothing is."""
        machine = ""
        planted.offer(lane.folder)
        for case in dict.fromkeys(scenario.case for scenario in self._scenarios):
            machine = lane.run(1, *case, "--rwkv-save-baseline", "--rwkv-budget=40")["machine"]
        while (scenario := self._next(machine)) is not None:
            done = lane.run(scenario.factor, *scenario.case, *scenario.options)
            with self._lock:
                print(scenario.name, done, flush=True)
                self.facts.setdefault(done.pop("machine"), {}).setdefault(scenario.name, []).append(done)
                RECORDED.write_text(json.dumps(self.facts, indent=1) + "\n", encoding="utf-8")

    def _next(self, machine: str) -> Scenario | None:
        """The scenario with the fewest runs that are done or under way; None when all are done or time is up."""
        with self._lock:
            for scenario in self._scenarios:
                recorded = len(self.facts.get(machine, {}).get(scenario.name, ()))
                self._begun.setdefault((machine, scenario.name), recorded)
            scenario = min(self._scenarios, key=lambda each: self._begun[machine, each.name])
            if self._begun[machine, scenario.name] >= self._wanted or time.monotonic() > self._end:
                return None
            self._begun[machine, scenario.name] += 1
            return scenario


def main() -> None:
    """Run what is missing, print and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--minutes", type=float, default=1e9, help="begin no run after so many")
    parser.add_argument("--only", default="", help="scenarios whose name contains this")
    parser.add_argument("--lanes", type=int, default=1, help="runs at once, each on two processors")
    options = parser.parse_args()
    scenarios = tuple(scenario for scenario in SCENARIOS if options.only in scenario.name)
    runs = Runs(options.runs, scenarios, options.minutes)
    with tempfile.TemporaryDirectory(prefix="rwkvperf-steps-") as name, ThreadPoolExecutor(options.lanes) as pool:
        lanes = [Lane(Path(name, str(index)), (2 * index, 2 * index + 1)) for index in range(options.lanes)]
        for lane in lanes:
            lane.folder.mkdir()
        if options.runs:
            list(pool.map(runs.measure, lanes if options.lanes > 1 else [Lane(lanes[0].folder, None)]))
    text = table(runs.facts)
    (HERE / "steps.md").write_text(text, encoding="utf-8")
    print(text)


def table(facts: dict[str, Any]) -> str:
    """The recorded result as markdown."""
    lines = [
        "# What the gate decides",
        "",
        "llama.cpp slowed by `certify/planted.py`, one thread, one stored session of 40 s, otherwise default",
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
