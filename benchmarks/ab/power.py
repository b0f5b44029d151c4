"""How often A/B calls identical code slower, what real slowdown it finds, and how long that takes.

Live runs with llama.cpp through `certify/planted.py`: identical code on both sides (A/A), and a new side whose every
call takes 5 % or 10 % longer. The scenarios take turns, each run is written down as soon as it is done, and runs that
stand in the file already are kept, so that more can be added on another day. Rates that so few runs cannot show come
from a resampling: RESAMPLED runs whose pairs are drawn from those of identical code, their times multiplied by the
slowdown, looked at and ended as live ones are, each pair at the seconds that a pair took:

    python benchmarks/ab/power.py --runs 20        # until each scenario has 20 runs
    python benchmarks/ab/power.py --runs 20 --at-most 1   # the next one of them, and no more today
    python benchmarks/ab/power.py --runs 0         # the table from what is recorded

A scenario with two tolerances is measured until both have their verdicts; for each of them the table shows the look at
which a run of its own would have ended, with the time that had passed by then.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import sys
from collections import Counter
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import binomtest

from pytest_rwkvperf.backends import registry
from pytest_rwkvperf.backends.llama_cpp import BACKEND
from pytest_rwkvperf.certify import planted
from pytest_rwkvperf.core.cases import Case, Workload
from pytest_rwkvperf.core.engine import Device
from pytest_rwkvperf.machine import fingerprint
from pytest_rwkvperf.measure.pairs import measure_pairs
from pytest_rwkvperf.measure.process import Target
from pytest_rwkvperf.measure.record import ModelFacts
from pytest_rwkvperf.measure.telling import Silence
from pytest_rwkvperf.models.model_store import ModelStore
from pytest_rwkvperf.oracle.expected import logits_files
from pytest_rwkvperf.run.lease import lease
from pytest_rwkvperf.stats.paired import LOOKS, PairRatio, compare_pairs
from pytest_rwkvperf.worker.parent import IMPORT_SECONDS, Worker
from pytest_rwkvperf.worker.tools import WorkerTools

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy.typing as npt

    from pytest_rwkvperf.measure.record import Pairing

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True, slots=True)
class Scenario:
    """How much longer the new side takes, and the tolerances that are judged."""

    name: str
    factor: float
    tolerances: tuple[float, ...]


RESAMPLED = 1000
SLOWDOWNS = (0.0, 0.05, 0.1, 0.2)

SCENARIOS = (
    Scenario("identical", 1.0, (0.01, 0.05)),
    Scenario("5 % slower", 1.05, (0.01,)),
    Scenario("10 % slower", 1.10, (0.05,)),
)


def environment(factor: float) -> dict[str, str]:
    """What a worker of a side that takes so many times as long starts with."""
    own = planted.worker_variables(registry.BUILT_IN["llama-cpp"], factor)
    return {**own, "PYTHONPATH": os.environ.get("PYTHONPATH", "")}


def silent(_sentence: str, _fraction: float) -> None:
    """Progress nobody needs."""


def make_target(options: argparse.Namespace) -> Target:
    """The case on a side that is not slowed."""
    tools = WorkerTools(silent)
    models = ModelStore(tools, silent)
    model = models.resolve(options.model)
    file = models.file_for(model, "gguf", options.quant)
    with Worker(environment=environment(1.0)) as worker:
        answer = worker.request("describe", IMPORT_SECONDS, location=planted.LOCATION)
    return Target(
        case=Case("slowed", model.name, options.quant, "cpu", options.threads, BACKEND.standard_chunk),
        location=planted.LOCATION,
        environment=environment(1.0),
        python=sys.executable,
        model=ModelFacts(model.name, model.content_hash, model.shape.parameters, file.size_bytes),
        path=file.path,
        device=next(Device(**one) for one in answer["devices"] if one["id"] == "cpu"),
        expected=tuple(logits_files(file, "", deep=True, solver=tools)),
        known_deep=None,
    )


def measured(
    target: Target, scenario: Scenario, workloads: list[Workload], budget: float
) -> tuple[dict[str, Any], Target]:
    """One run, and the target with what its deep check found."""
    looks: list[tuple[int, float]] = []

    def decided(pairing: Pairing) -> bool:
        looks.append((len(pairing.new.runs), pairing.new.seconds))
        ratios = {one: pairing.log_ratios(one) for one in workloads}
        return all(
            compare_pairs(ratios[one], tolerance, len(workloads)).verdict != "INCONCLUSIVE"
            for one in workloads
            for tolerance in scenario.tolerances
        )

    new = replace(target, environment=environment(scenario.factor))
    pairing = measure_pairs(new, target, workloads, budget_seconds=budget, decided=decided, progress=Silence())
    sides = {"new": pairing.new, "old": pairing.old}
    found = {
        "scenario": scenario.name,
        "started": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "load_before": pairing.new.conditions.load_before,
        "steal": pairing.new.conditions.steal,
        "looks": looks,
        "log_ratios": {str(one): [[pair.fast, pair.mean] for pair in pairing.log_ratios(one)] for one in workloads},
        "nanoseconds": {
            str(one): {name: [list(row) for row in side.times(one)] for name, side in sides.items()}
            for one in workloads
        },
    }
    return found, replace(target, known_deep=target.known_deep or pairing.old.deep)


def ending(run: dict[str, Any], tolerance: float) -> tuple[dict[str, str], int, float]:
    """Verdicts by workload, pairs and seconds at the look where a run with this tolerance alone would have ended."""
    items, verdicts, pairs, seconds = len(run["log_ratios"]), {"": "INCONCLUSIVE"}, 0, 0.0
    for pairs, seconds in run["looks"]:  # noqa: B007 - what the last look leaves is the answer
        verdicts = {
            name: str(compare_pairs([PairRatio(*one) for one in ratios[:pairs]], tolerance, items).verdict)
            for name, ratios in run["log_ratios"].items()
        }
        if "INCONCLUSIVE" not in verdicts.values():
            break
    return verdicts, pairs, seconds


def rows(facts: dict[str, Any]) -> Iterator[list[str]]:
    """The table's rows: each workload, and for identical code the run as a whole."""
    for scenario in SCENARIOS:
        runs = [run for run in facts["runs"] if run["scenario"] == scenario.name]
        for tolerance in scenario.tolerances if runs else ():
            endings = [ending(run, tolerance) for run in runs]
            for name in facts["workloads"]:
                said = [verdicts[name] for verdicts, _, _ in endings]
                ratio = statistics.median(
                    math.exp(statistics.fmean(one[0] for one in run["log_ratios"][name][:count]))
                    for run, (_, count, _) in zip(runs, endings, strict=True)
                )
                yield [scenario.name, f"{tolerance:.0%}", name, f"{ratio:.3f}", *counted(said), *times(endings)]
            if len(facts["workloads"]) > 1:
                whole = ["REGRESSION" if "REGRESSION" in one.values() else "none" for one, _, _ in endings]
                share = of(whole.count("REGRESSION"), len(whole))
                yield [scenario.name, f"{tolerance:.0%}", "any of them", "", share, "", "", "", *times(endings)]


def counted(said: list[str]) -> list[str]:
    """How many runs had each verdict; of REGRESSION with its 95 % interval."""
    counts = Counter(said)
    others = [str(counts[verdict]) for verdict in ("PASS", "IMPROVEMENT", "INCONCLUSIVE")]
    return [of(counts["REGRESSION"], len(said)), *others]


def of(count: int, total: int) -> str:
    """A share with its exact interval (Clopper and Pearson, Biometrika 26, 1934)."""
    low, high = binomtest(count, total).proportion_ci(0.95, method="exact")
    return f"{count} of {total} ({low:.0%} to {high:.0%})"


def times(endings: list[tuple[dict[str, str], int, float]]) -> list[str]:
    """Pairs and seconds until the end, median and 95 % quantile."""
    counts, seconds = [count for _, count, _ in endings], [seconds for _, _, seconds in endings]
    late = sorted(seconds)[math.ceil(0.95 * len(seconds)) - 1]
    return [f"{statistics.median(counts):.0f}", f"{statistics.median(seconds):.0f} s / {late:.0f} s"]


def table(facts: dict[str, Any]) -> str:
    """The report."""
    head = [
        "new side",
        "tolerance",
        "workload",
        "ratio",
        "REGRESSION",
        "PASS",
        "IMPROVEMENT",
        "INCONCLUSIVE",
        "pairs",
        "time",
    ]
    intro = (
        f"Made by `power.py`: {facts['model']} {facts['quant']}, llama-cpp-python {facts['llama-cpp-python']}, "
        f"{facts['threads']} threads, at most {facts['budget']:.0f} s a run, on {facts['machine']}. Every run and "
        "sample is in `power.json`. REGRESSION with the exact 95 % interval of its rate; ratio: median over the runs "
        "of new over old; pairs: median; time: median / 95 % of the runs, until every workload had its verdict or the "
        "budget was spent."
    )
    lines = [
        "# A/B: false alarms, power, time to decision",
        "",
        intro,
        "",
        f"| {' | '.join(head)} |",
        f"|{'---|' * 3}{'--:|' * 7}",
        *(f"| {' | '.join(row)} |" for row in rows(facts)),
    ]
    return "\n".join(lines) + "\n" + resampled(facts)


def resampled(facts: dict[str, Any]) -> str:
    """Rates and times from the recorded pairs of identical code, each workload judged beside as many as were live."""
    runs = [run for run in facts["runs"] if run["scenario"] == SCENARIOS[0].name]
    seconds = [run["looks"][-1][1] / run["looks"][-1][0] for run in runs]
    if not runs:
        return ""
    count = sum(run["looks"][-1][0] for run in runs)
    said_of = (
        f"Resampled, {RESAMPLED} runs a row, from {count} pairs of identical code, {statistics.median(seconds):.1f} s "
        "each; pairs of the same order lie apart by their standard deviation of most / of all of them. A few pairs "
        "drawn more than once look quieter than they are, so these are upper estimates of power and no error rates: "
        "those are simulated in `tests/unit/stats/test_paired.py`."
    )
    lines = [
        "",
        said_of,
        "",
        "| workload | pairs apart | slowdown | tolerance | REGRESSION | PASS | INCONCLUSIVE | time, median / 95 % |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for name in facts["workloads"]:
        pairs = np.concatenate([np.array(run["log_ratios"][name]) for run in runs])
        orders = np.stack([pairs[first::2] for first in (0, 1)])
        apart = " / ".join(f"{one:.1%}" for one in (orders - orders.mean(axis=1, keepdims=True)).std(axis=(0, 1)))
        for tolerance in (0.01, 0.05):
            for slowdown in (one for one in SLOWDOWNS if not 0 < one <= tolerance):
                said, ends = drawn(pairs - pairs.mean(axis=0), slowdown, tolerance, len(facts["workloads"]))
                took = [statistics.median(seconds) * one for one in (statistics.median(ends), np.quantile(ends, 0.95))]
                shares = " | ".join(f"{said[one] / RESAMPLED:.1%}" for one in ("REGRESSION", "PASS", "INCONCLUSIVE"))
                cells = (
                    name,
                    apart,
                    f"{slowdown:.0%}",
                    f"{tolerance:.0%}",
                    shares,
                    f"{took[0]:.0f} s / {took[1]:.0f} s",
                )
                lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def drawn(
    pairs: npt.NDArray[np.float64], slowdown: float, tolerance: float, items: int
) -> tuple[Counter[str], list[int]]:
    """The verdicts of resampled runs of one workload, and after how many pairs each fell."""
    random, said, ends = np.random.default_rng(1), Counter[str](), []
    for _ in range(RESAMPLED):
        # The sides take turns in being opened first, which has an effect: draw from the pairs of the same order.
        turns = [random.choice(pairs[first::2], LOOKS[-1] // 2) for first in (0, 1)]
        chosen = np.stack(turns, axis=1).reshape(-1, 2) - math.log1p(slowdown)
        ratios = [PairRatio(*one) for one in chosen]
        verdict, look = "INCONCLUSIVE", 0
        for look in LOOKS:
            verdict = compare_pairs(ratios[:look], tolerance, items).verdict
            if verdict != "INCONCLUSIVE":
                break
        said[verdict] += 1
        ends.append(look)
    return said, ends


def main() -> None:
    """Measure, print and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="synthetic:0.1b")
    parser.add_argument("--quant", default="f16")
    parser.add_argument("--workloads", default="pp128,tg32")
    parser.add_argument("--threads", type=int, default=fingerprint.physical_cores())
    parser.add_argument("--runs", type=int, default=20, help="of each scenario, with those recorded already")
    parser.add_argument("--at-most", type=int, default=sys.maxsize, help="how many to measure in this call")
    parser.add_argument("--budget", type=float, default=600.0, help="seconds for one run")
    parser.add_argument("--folder", type=Path, default=HERE, help="where power.json and power.md are")
    options = parser.parse_args()
    record = options.folder / "power.json"
    setting = {
        "machine": fingerprint.read().id,
        "llama-cpp-python": version("llama-cpp-python"),
        "model": options.model,
        "quant": options.quant,
        "workloads": options.workloads.split(","),
        "threads": options.threads,
        "budget": options.budget,
        "planned_looks": list(LOOKS),
    }
    facts = {**setting, "runs": []}
    if record.exists():
        facts = json.loads(record.read_text(encoding="utf-8"))
        other = [name for name, value in setting.items() if facts[name] != value and options.runs]
        if other:
            sys.exit(f"{record} was measured with another {', '.join(other)}; move it away first")
    if options.runs:
        add_runs(facts, options, lambda: write(facts, options.folder))
    write(facts, options.folder)
    print(table(facts))


def add_runs(facts: dict[str, Any], options: argparse.Namespace, keep: Callable[[], None]) -> None:
    """Measure, scenario after scenario, until each has its runs."""
    target, workloads = make_target(options), [Workload.parse(text) for text in facts["workloads"]]
    enough = len(facts["runs"]) + options.at_most
    for number in range(options.runs):
        for scenario in SCENARIOS:
            if sum(run["scenario"] == scenario.name for run in facts["runs"]) > number or len(facts["runs"]) >= enough:
                continue
            with lease(target.device, print):
                run, target = measured(target, scenario, workloads, options.budget)
            facts["runs"].append(run)
            keep()
            ends = {tolerance: ending(run, tolerance) for tolerance in scenario.tolerances}
            said = "; ".join(f"{tolerance:.0%}: {ended[0]} after {ended[2]:.0f} s" for tolerance, ended in ends.items())
            print(f"{number + 1} of {options.runs}, {scenario.name}: {said}", flush=True)


def write(facts: dict[str, Any], folder: Path) -> None:
    """Every run on a line of its own, so that the file can be read and stays small."""
    folder.mkdir(parents=True, exist_ok=True)
    head = json.dumps({name: value for name, value in facts.items() if name != "runs"}, indent=1)[:-2]
    runs = ",\n".join(json.dumps(run, separators=(",", ":")) for run in facts["runs"])
    (folder / "power.json").write_text(f'{head},\n "runs": [\n{runs}\n]}}\n', encoding="utf-8")
    (folder / "power.md").write_text(table(facts), encoding="utf-8")


if __name__ == "__main__":
    main()
