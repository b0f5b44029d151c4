"""Does this project measure what llama-bench measures, on a GPU? Both in turn on the same file, from one llama.cpp.

Each side's first two repetitions are left out: CUDA's libraries are loaded in the first, llama.cpp records its CUDA
graph in the second. llama-bench warms up by one run alone, so that the second repetition stands in its mean.

    python benchmarks/gpu/versus_llama_bench.py --llama-bench build/bin/llama-bench --out versus.json
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_rwkvperf.backends.registry import BUILT_IN
from pytest_rwkvperf.core.cases import Case
from pytest_rwkvperf.core.engine import Device
from pytest_rwkvperf.machine import fingerprint
from pytest_rwkvperf.models.model_store import file_for, resolve
from pytest_rwkvperf.run.launcher import lease
from pytest_rwkvperf.worker.parent import IMPORT_SECONDS, SAMPLE_SECONDS, Worker
from pytest_rwkvperf.worker.tools import WorkerTools

if TYPE_CHECKING:
    from collections.abc import Sequence

LOCATION = BUILT_IN["llama-cpp"]
COLD = 2
WORKLOADS = {"pp512": 512, "tg128": 128}


def theirs(executable: Path, model: Path, repetitions: int) -> dict[str, list[float]]:
    """Tokens per second of every repetition, by workload."""
    options = ["-p", "512", "-n", "128", "-r", str(repetitions), "-ngl", "99", "-o", "jsonl"]
    out = subprocess.run([executable, "-m", model, *options], check=True, capture_output=True, text=True).stdout
    rows = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
    return {f"pp{row['n_prompt']}" if row["n_prompt"] else f"tg{row['n_gen']}": row["samples_ts"] for row in rows}


def ours(path: Path, device: Device, repetitions: int) -> dict[str, list[float]]:
    """The same from one worker, by the protocol that every case is measured with."""
    case = Case("llama-cpp", "versus", "f16", device.id, fingerprint.physical_cores(), 512)
    found: dict[str, list[float]] = {}
    with Worker() as worker:
        worker.open(LOCATION, path, case)
        for name, tokens in WORKLOADS.items():
            samples = [worker.request("sample", SAMPLE_SECONDS, workload=name) for _ in range(repetitions + 1)]
            found[name] = [tokens / one["nanoseconds"] * 1e9 for one in samples[1:]]  # as llama-bench's warm-up
    return found


def row(quant: str, name: str, mine: Sequence[Sequence[float]], other: Sequence[Sequence[float]]) -> dict[str, Any]:
    """One line of the result."""
    steady = [[value for taken in side for value in taken[COLD - 1 :]] for side in (mine, other)]
    medians = [statistics.median(side) for side in steady]
    spreads = [statistics.stdev(side) / statistics.mean(side) for side in steady]
    whole = [statistics.stdev(taken) / statistics.mean(taken) for taken in other]
    return {
        "quant": quant,
        "workload": name,
        "repetitions": [len(side) for side in steady],
        "ours": medians[0],
        "ours_spread": spreads[0],
        "llama_bench": medians[1],
        "llama_bench_spread": spreads[1],
        "llama_bench_spread_with_its_first": max(whole),
        "ratio": medians[0] / medians[1],
        "raw": {"ours": [list(one) for one in mine], "llama_bench": [list(one) for one in other]},
    }


def main(arguments: list[str] | None = None) -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--llama-bench", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default="synthetic:2.9b")
    parser.add_argument("--quants", default="f16")
    parser.add_argument("--pairs", type=int, default=2)
    parser.add_argument("--repetitions", type=int, default=12)
    options = parser.parse_args(arguments)
    tools, quiet = WorkerTools(lambda _sentence, _fraction: None), lambda _sentence, _fraction: None
    model = resolve(options.model, tools=tools, progress=quiet)
    with Worker() as worker:
        listed = worker.request("describe", IMPORT_SECONDS, location=LOCATION)["devices"]
    device = Device(**listed[0])
    rows = []
    for quant in options.quants.split(","):
        path = file_for(model, "gguf", quant, tools=tools, progress=quiet).path
        taken: dict[str, list[dict[str, list[float]]]] = {"ours": [], "theirs": []}
        with lease(device, print):
            for index in range(options.pairs):
                for side in ("ours", "theirs") if index % 2 else ("theirs", "ours"):
                    measured = (
                        ours(path, device, options.repetitions)
                        if side == "ours"
                        else theirs(options.llama_bench, path, options.repetitions)
                    )
                    taken[side].append(measured)
        for name in WORKLOADS:
            rows.append(row(quant, name, [one[name] for one in taken["ours"]], [one[name] for one in taken["theirs"]]))
            print({key: value for key, value in rows[-1].items() if key != "raw"}, flush=True)
    facts = {"device": device.name, "machine": fingerprint.read().id, "model": options.model, "rows": rows}
    options.out.write_text(json.dumps(facts) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
