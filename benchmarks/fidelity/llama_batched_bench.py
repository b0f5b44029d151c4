"""Does this project measure batches as llama-batched-bench does? Both on the same file, in turn, on one machine.

llama-batched-bench is built from the llama.cpp source inside the sdist of the installed llama-cpp-python (as in
llama_bench.py), or given. A round is one worker process of this project and, for each length, one invocation of the
program, in alternating order. The program measures each number of sequences five times, of which the first is dropped;
this project takes as many after two that warm the engine. Medians count; the ratio's interval is Student's t over the
rounds.

    python benchmarks/fidelity/llama_batched_bench.py --rounds 8
    python benchmarks/fidelity/llama_batched_bench.py --threads 1 --name llama_batched_bench_one_thread
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from llama_bench import HERE, interval, llama_bench
from own_tools import found_as, native_times, quiet, uniform_times

from pytest_rwkvperf.core.cases import Case, Workload
from pytest_rwkvperf.machine import fingerprint
from pytest_rwkvperf.models.model_store import ModelStore
from pytest_rwkvperf.run.lease import lease
from pytest_rwkvperf.worker.tools import WorkerTools

if TYPE_CHECKING:
    from pytest_rwkvperf.run.discovery import FoundEngine

WORKLOADS = "tg32,tg32@b2,tg32@b4,tg32@b8,pp64,pp64@b2,pp64@b4,pp64@b8"


def speed(workload: str, times: list[int]) -> float:
    """Tokens per second over all sequences, by the median time."""
    return Workload.parse(workload).total_tokens / statistics.median(times) * 1e9


def compare(
    engine: FoundEngine, program: FoundEngine, quant: str, options: argparse.Namespace
) -> list[dict[str, object]]:
    """All rounds of one quant."""
    models = ModelStore(WorkerTools(quiet), quiet)
    model = models.resolve(options.model)
    path = models.file_for(model, "gguf", quant).path
    device = next(device for device in engine.devices if options.device in ("", device.id))
    names = options.workloads.split(",")
    case = Case("llama-cpp", model.name, quant, device.id, options.threads, engine.backend.standard_chunk)
    theirs = replace(case, backend="llama-batched-bench", protocol="native")
    sides = {
        "ours": lambda: uniform_times(engine, path, case, names),
        "program": lambda: {name: row[1:] for name, row in native_times(program, path, theirs, names).items()},
    }
    taken: dict[str, list[dict[str, float]]] = {name: [] for name in sides}
    with lease(device, print):
        for index in range(options.rounds):
            for side in list(sides)[:: -1 if index % 2 else 1]:
                taken[side].append({name: speed(name, times) for name, times in sides[side]().items()})
            told = (f"{name} {taken['ours'][-1][name]:,.1f} / {taken['program'][-1][name]:,.1f}" for name in names)
            print(f"{quant}: round {index + 1} of {options.rounds}: {', '.join(told)}", flush=True)
    return [summary(quant, name, *([one[name] for one in taken[side]] for side in sides)) for name in names]


def summary(quant: str, name: str, ours: list[float], program: list[float]) -> dict[str, object]:
    """One row: both medians, and the ratio with its interval."""
    ratio, low, high = interval([one / other for one, other in zip(ours, program, strict=True)])
    return {
        "quant": quant,
        "workload": name,
        "ours": ours,
        "program": program,
        "ratio": ratio,
        "low": low,
        "high": high,
    }


def table(facts: dict[str, object]) -> str:
    """The recorded result as markdown."""
    setting = f"llama-cpp-python {facts['llama-cpp-python']}, threads={facts['threads']}, {facts['machine']}"
    lines = [
        f"# Batches against llama-batched-bench: {facts['model']}, {setting}",
        "",
        f"Tokens/s over all sequences, medians of {facts['rounds']} rounds; ratios with 95 % intervals.",
        "",
        "| quant | workload | ours t/s | llama-batched-bench t/s | ratio | 95 % interval |",
        "|---|---|--:|--:|--:|--:|",
    ]
    rows = facts["rows"]
    assert isinstance(rows, list)  # noqa: S101 - made above
    lines += [
        f"| {row['quant']} | {row['workload']} | {statistics.median(row['ours']):,.1f} | "
        f"{statistics.median(row['program']):,.1f} | {row['ratio']:.3f} | {row['low']:.3f} to {row['high']:.3f} |"
        for row in rows
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="synthetic:0.1b")
    parser.add_argument("--quants", default="f16")
    parser.add_argument("--workloads", default=WORKLOADS)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--device", default="", help="as llama.cpp lists it; default: its best")
    parser.add_argument("--threads", type=int, default=fingerprint.physical_cores(), help="default: physical cores")
    parser.add_argument("--program", type=Path, help="llama-batched-bench; default: build it")
    parser.add_argument("--folder", type=Path, default=HERE)
    parser.add_argument("--name", default="llama_batched_bench", help="of the two files that are written")
    options = parser.parse_args()
    engine = found_as("llama-cpp")
    path = (options.program or llama_bench("llama-batched-bench")).absolute()
    program = found_as(f"llama-batched-bench:{path}")
    facts: dict[str, object] = {
        "machine": fingerprint.read().id,
        "python": platform.python_version(),
        "llama-cpp-python": version("llama-cpp-python"),
        "program": program.versions,
        "model": options.model,
        "threads": options.threads,
        "rounds": options.rounds,
        "rows": [row for quant in options.quants.split(",") for row in compare(engine, program, quant, options)],
    }
    (options.folder / f"{options.name}.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    (options.folder / f"{options.name}.md").write_text(table(facts), encoding="utf-8")
    print(table(facts))


if __name__ == "__main__":
    main()
