"""Does --rwkv-protocol=native measure what the tools themselves print? Both on the same file, in turn, on one machine.

llama-bench is built from the sdist of the installed llama-cpp-python (as in llama_bench.py), web-rwkv's `bench` from
the crate of the version inside the installed binding; or they are given. A round is one worker process that measures
natively, one invocation of the program, and one worker by the uniform protocol, in alternating order; intervals are
Student's t over the rounds. What the first repetition of a tool costs is in `cold`: all of native's over its last four.

    python benchmarks/fidelity/own_tools.py --rounds 6 --workloads pp64,tg16
    python benchmarks/fidelity/own_tools.py --engines web-rwkv --web-rwkv-bench bench --model synthetic:2.9b --name h200
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from llama_bench import HERE, interval, llama_bench

from pytest_rwkvperf.backends import registry
from pytest_rwkvperf.core import folders
from pytest_rwkvperf.core.cases import Case, Workload
from pytest_rwkvperf.core.samples import REPETITIONS, ToolResult
from pytest_rwkvperf.machine import fingerprint
from pytest_rwkvperf.measure.process import typed
from pytest_rwkvperf.models.model_store import ModelStore
from pytest_rwkvperf.run.discovery import FoundEngine, discover
from pytest_rwkvperf.run.lease import lease
from pytest_rwkvperf.worker import native
from pytest_rwkvperf.worker.parent import SAMPLE_SECONDS, Worker
from pytest_rwkvperf.worker.tools import WorkerTools

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

PROGRAMS = {"llama-cpp": "llama-bench", "web-rwkv": "web-rwkv-bench"}
QUANTS = {"llama-cpp": "f16", "web-rwkv": "fp16"}
COLD = 2


def web_rwkv_bench(release: str) -> Path:
    """The crate's example, built once per version into the user's cache."""
    build = folders.cache() / "build" / f"web-rwkv-bench-{release}" / "bin"
    found = build / ("bench.exe" if sys.platform == "win32" else "bench")
    if not found.exists():
        print(f"building web-rwkv's bench {release}: 3 to 10 minutes", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            what = ["web-rwkv", "--version", release, "--example", "bench", "--locked"]
            subprocess.run(["cargo", "install", *what, "--root", folder], check=True)
            build.mkdir(parents=True, exist_ok=True)
            shutil.move(Path(folder) / "bin" / found.name, found)
    return found


def native_times(
    engine: FoundEngine, path: Path, case: Case, workloads: list[str], extra: Mapping[str, str] | None = None
) -> dict[str, list[int]]:
    """Nanoseconds of each repetition of one invocation; `extra` is more environment for it."""
    with Worker(environment={**engine.backend.environment(case.device), **(extra or {})}) as worker:
        worker.open(engine.location, path, case)
        taken = typed(worker.request("native", SAMPLE_SECONDS, workloads=workloads), ToolResult)
    return {name: [one.nanoseconds for one in samples] for name, samples in taken.samples.items()}


def uniform_times(engine: FoundEngine, path: Path, case: Case, workloads: list[str]) -> dict[str, list[int]]:
    """The same by the protocol that all engines share, after two that warm the engine."""
    with Worker(environment=engine.backend.environment(case.device)) as worker:
        worker.open(engine.location, path, case)
        return {
            name: [
                worker.request("sample", SAMPLE_SECONDS, workload=name)["nanoseconds"]
                for _ in range(COLD + REPETITIONS)
            ][COLD:]
            for name in workloads
        }


def speed(backend: str, workload: str, times: list[int]) -> float:
    """Tokens per second, as the tool counts."""
    return Workload.parse(workload).tokens / native.figure(backend, times) * 1e9


def found_as(text: str) -> FoundEngine:
    """One engine or program that is here."""
    chosen, named = registry.choose(text)
    (answer,) = discover(chosen, named=named)
    if not isinstance(answer, FoundEngine):
        raise SystemExit(answer.reason)
    return answer


def quiet(_sentence: str, _fraction: float) -> None:
    """Progress that is not shown."""


def compare(
    engine: FoundEngine, program: FoundEngine, quant: str, options: argparse.Namespace
) -> list[dict[str, object]]:
    """All rounds of one engine."""
    models = ModelStore(WorkerTools(quiet), quiet)
    model = models.resolve(options.model)
    backend, workloads = engine.backend, options.workloads.split(",")
    path = models.file_for(model, backend.format, backend.file_quant(quant)).path
    device, threads = engine.devices[0], fingerprint.physical_cores()
    case = Case(backend.name, model.name, quant, device.id, threads, backend.standard_chunk, "native")
    sides: dict[str, Callable[[], dict[str, list[int]]]] = {
        "native": lambda: native_times(engine, path, case, workloads),
        "program": lambda: native_times(program, path, replace(case, backend=program.backend.name), workloads),
        "uniform": lambda: uniform_times(engine, path, replace(case, protocol="uniform"), workloads),
    }
    if options.variant:
        sides["variant"] = lambda: native_times(engine, path, case, workloads, dict([options.variant.split("=", 1)]))
    for name in filter(None, options.without.split(",")):
        del sides[name]
    taken: dict[str, list[dict[str, list[int]]]] = {name: [] for name in sides}
    with lease(device, print):
        for index in range(options.rounds):
            for name in list(sides)[:: -1 if index % 2 else 1]:
                taken[name].append(sides[name]())
            figures = "; ".join(round_told(backend.name, name, taken) for name in workloads)
            print(f"{backend.name}: round {index + 1} of {options.rounds}: {figures}", flush=True)
    return [row(backend.name, quant, workload, taken) for workload in workloads]


def round_told(engine: str, workload: str, taken: dict[str, list[dict[str, list[int]]]]) -> str:
    """Each side's figure of the last round: what is left of rounds that something ends before the last."""
    sides = (f"{name} {speed(engine, workload, rounds[-1][workload]):,.1f}" for name, rounds in taken.items())
    return f"{workload} t/s: {', '.join(sides)}"


def row(engine: str, quant: str, workload: str, taken: dict[str, list[dict[str, list[int]]]]) -> dict[str, object]:
    """One line of the result, with every time it was made of."""
    times = {name: [one[workload] for one in rounds] for name, rounds in taken.items()}
    told = {name: [speed(engine, workload, one) for one in rounds] for name, rounds in times.items()}
    warm = [speed(engine, workload, one[1:]) for one in times["native"]]

    def ratio(above: list[float], below: list[float]) -> tuple[float, float, float]:
        return interval([one / other for one, other in zip(above, below, strict=True)])

    found: dict[str, object] = {
        "engine": engine, "quant": quant, "workload": workload, "nanoseconds": times, "tokens_per_second": told,
        "fidelity": ratio(told["native"], told["program"]),
        "cold": ratio(told["native"], warm),
    }  # fmt: skip
    if "uniform" in told:
        found["apart"] = ratio(warm, told["uniform"])
    if "variant" in told:
        found["variant"] = ratio(told["variant"], told["program"])
    return found


def table(facts: dict[str, object], rows: list[dict[str, object]]) -> str:
    """The recorded result for people."""
    what = (
        f"Geometric means over {facts['rounds']} rounds with their 95 % intervals. *Native / program* is the fidelity; "
        "*with / without the first* what a cold first repetition costs the tool's figure; *native / uniform* how far "
        "the two protocols lie apart once warm (native without its first repetition)."
    )
    lines = [
        "# Native protocol against the tools themselves",
        "",
        f"{facts['machine']}, {facts['device']}, {facts['model']}, {facts['programs']}. {what}",
        "",
        "| engine | quant | workload | program t/s | native / program | with / without the first | native / uniform |",
        "|---|---|---|--:|---|---|---|",
    ]
    for one in rows:
        ratios = " | ".join(
            "{:.3f} ({:.3f} to {:.3f})".format(*one[name]) if name in one else ""  # type: ignore[misc]
            for name in ("fidelity", "cold", "apart")
        )
        program = statistics.median(one["tokens_per_second"]["program"])  # type: ignore[index]
        lines.append(f"| {one['engine']} | {one['quant']} | {one['workload']} | {program:,.1f} | {ratios} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--workloads", default="pp64,tg16")
    parser.add_argument("--model", default="synthetic:nano")
    parser.add_argument("--engines", default="llama-cpp,web-rwkv")
    parser.add_argument("--llama-bench", type=Path, help="default: build it")
    parser.add_argument("--web-rwkv-bench", type=Path, help="default: build it")
    parser.add_argument("--variant", default="", help="NAME=VALUE: natively once more, with this variable set")
    parser.add_argument("--without", default="", help="sides to leave out: uniform")
    parser.add_argument("--folder", type=Path, default=HERE)
    parser.add_argument("--name", default="own_tools", help="of the two files that are written")
    options = parser.parse_args()
    rows: list[dict[str, object]] = []
    programs: list[str] = []
    devices: list[str] = []
    for name in options.engines.split(","):
        engine = found_as(name)
        program = found_as(f"{PROGRAMS[name]}:{executable(name, engine, options)}")
        programs.append(f"{program.backend.name} {program.versions[program.backend.name]}")
        devices.append(engine.devices[0].name)
        rows += compare(engine, program, QUANTS[name], options)
    facts: dict[str, object] = {
        "machine": fingerprint.read().id,
        "device": ", ".join(dict.fromkeys(devices)),
        "python": platform.python_version(),
        "programs": "; ".join(programs),
        "model": options.model,
        "rounds": options.rounds,
        "rows": rows,
    }
    (options.folder / f"{options.name}.json").write_text(json.dumps(facts) + "\n", encoding="utf-8")
    (options.folder / f"{options.name}.md").write_text(table(facts, rows), encoding="utf-8")
    print(table(facts, rows))


def executable(name: str, engine: FoundEngine, options: argparse.Namespace) -> Path:
    """The engine's own tool: the one given, or built."""
    if name == "llama-cpp":
        return (options.llama_bench or llama_bench()).absolute()
    return (options.web_rwkv_bench or web_rwkv_bench(engine.versions["web-rwkv"])).absolute()


if __name__ == "__main__":
    main()
