"""Does --rwkv-protocol=native measure what the tools themselves print? Both on the same file, in turn, on one machine.

llama-bench is built from the sdist of the installed llama-cpp-python (as in llama_bench.py), web-rwkv's `bench` from
the crate of the version inside the installed binding. Each pair is one worker process that measures natively and one
invocation of the program, in alternating order; the ratio's interval is Student's t over the pairs.

    python benchmarks/fidelity/own_tools.py --pairs 6 --workloads pp64,tg16
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from llama_bench import HERE, interval, llama_bench

from pytest_rwkvperf import places
from pytest_rwkvperf.backends import registry
from pytest_rwkvperf.backends.discovery import Found, discover
from pytest_rwkvperf.cases import Case, Workload
from pytest_rwkvperf.launcher import lease
from pytest_rwkvperf.machine import fingerprint
from pytest_rwkvperf.measure import native
from pytest_rwkvperf.measure.record import taken_from
from pytest_rwkvperf.models.resolve import file_for, resolve
from pytest_rwkvperf.worker.parent import SAMPLE_SECONDS, Worker
from pytest_rwkvperf.worker.tools import WorkerTools

PAIRS = (("llama-cpp", "llama-bench", "f16"), ("web-rwkv", "web-rwkv-bench", "fp16"))


def web_rwkv_bench(release: str) -> Path:
    """The crate's example, built once per version into the user's cache."""
    build = places.cache() / "build" / f"web-rwkv-bench-{release}" / "bin"
    found = build / ("bench.exe" if sys.platform == "win32" else "bench")
    if not found.exists():
        print(f"building web-rwkv's bench {release}: 3 to 10 minutes", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            what = ["web-rwkv", "--version", release, "--example", "bench", "--locked"]
            subprocess.run(["cargo", "install", *what, "--root", folder], check=True)
            build.mkdir(parents=True, exist_ok=True)
            shutil.move(Path(folder) / "bin" / found.name, found)
    return found


def speeds(engine: Found, path: Path, case: Case, workloads: list[str]) -> dict[str, float]:
    """Tokens per second of one invocation, as the tool counts."""
    with Worker(environment=engine.backend.environment(case.device)) as worker:
        worker.open(engine.location, path, case)
        taken = taken_from(worker.request("native", SAMPLE_SECONDS, workloads=workloads))
    times = {name: [one.nanoseconds for one in samples] for name, samples in taken.samples.items()}
    return {name: Workload.parse(name).tokens / native.figure(case.backend, row) * 1e9 for name, row in times.items()}


def found_as(text: str) -> Found:
    """One engine or program that is here."""
    chosen, by_hand = registry.choose(text)
    (answer,) = discover(chosen, by_hand=by_hand)
    if not isinstance(answer, Found):
        raise SystemExit(answer.reason)
    return answer


def compare(engine_name: str, program: Found, quant: str, workloads: list[str], pairs: int) -> list[dict[str, object]]:
    """All pairs of one engine."""
    tools = WorkerTools(lambda _sentence, _fraction: None)
    model = resolve("synthetic:nano", tools=tools, progress=lambda _sentence, _fraction: None)
    engine = found_as(engine_name)
    backend = engine.backend
    file = file_for(
        model, backend.format, backend.file_quant(quant), tools=tools, progress=lambda _sentence, _fraction: None
    )
    device = engine.devices[0]
    threads = fingerprint.physical_cores()
    case = Case(engine_name, model.name, quant, device.id, threads, backend.standard_chunk, "native")
    own = replace(case, backend=program.backend.name)
    ratios: dict[str, list[float]] = {name: [] for name in workloads}
    seen: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in workloads}
    with lease(device, print):
        for index in range(pairs):
            order = [(engine, case), (program, own)][:: 1 if index % 2 else -1]
            told = {one.backend: speeds(found, file.path, one, workloads) for found, one in order}
            for name in workloads:
                mine, theirs = told[case.backend][name], told[own.backend][name]
                ratios[name].append(mine / theirs)
                seen[name][0].append(mine)
                seen[name][1].append(theirs)
            print(f"{engine_name}: pair {index + 1} of {pairs}", flush=True)
    rows = []
    for name in workloads:
        centre, low, high = interval(ratios[name])
        mine, theirs = seen[name]
        rows.append({
            "engine": engine_name, "quant": quant, "workload": name, "native": mine, "program": theirs,
            "ratio": centre, "low": low, "high": high,
        })  # fmt: skip
    return rows


def table(facts: dict[str, object], rows: list[dict[str, object]]) -> str:
    """The recorded result for people."""
    what = f"Native over program tokens/s, geometric mean of {facts['pairs']} pairs with its 95 % interval."
    lines = [
        "# Native protocol against the tools themselves",
        "",
        f"{facts['machine']}, {facts['programs']}. {what}",
        "",
        "| engine | quant | workload | native ÷ program | 95 % interval |",
        "|---|---|---|--:|---|",
    ]
    lines += [
        f"| {row['engine']} | {row['quant']} | {row['workload']} | {row['ratio']:.3f} "
        f"| {row['low']:.3f} to {row['high']:.3f} |"
        for row in rows
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=6)
    parser.add_argument("--workloads", default="pp64,tg16")
    options = parser.parse_args()
    workloads = options.workloads.split(",")
    inside = found_as("web-rwkv").versions["web-rwkv"]
    programs = {
        "llama-bench": found_as(f"llama-bench:{llama_bench()}"),
        "web-rwkv-bench": found_as(f"web-rwkv-bench:{web_rwkv_bench(inside)}"),
    }
    rows: list[dict[str, object]] = []
    for engine, program, quant in PAIRS:
        rows += compare(engine, programs[program], quant, workloads, options.pairs)
    facts: dict[str, object] = {
        "machine": fingerprint.read().id,
        "python": platform.python_version(),
        "programs": "; ".join(f"{name} {one.versions[name]}" for name, one in programs.items()),
        "pairs": options.pairs,
        "rows": rows,
    }
    (HERE / "own_tools.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    (HERE / "own_tools.md").write_text(table(facts, rows), encoding="utf-8")
    print(table(facts, rows))


if __name__ == "__main__":
    main()
