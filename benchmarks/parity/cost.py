"""The cost of the parity check: its share of the time that a default run gives a case.

    python benchmarks/parity/cost.py                                     # nano, and 0.1b for rwkv and llama-cpp
    python benchmarks/parity/cost.py --shape nano --backend llama-cpp

Worker processes run as in the default plan (pp512 and tg128, warm-up, samples), and every request is timed: the share
is that of the short check and of the timed answers' comparison in a whole process, with its start and end. The check of
new tokens runs once per run, the deep check and the oracle once per engine, file, quant and device; their seconds are
given separately. Run it on an idle machine. Results go to `cost.json`, and `cost.md` is rewritten.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections import defaultdict
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import bench

from pytest_rwkvperf.core.cases import Workload
from pytest_rwkvperf.measure import plan
from pytest_rwkvperf.measure.process import MeasuredCase, Target
from pytest_rwkvperf.measure.record import ModelFacts
from pytest_rwkvperf.oracle import expected
from pytest_rwkvperf.oracle.agreement import Agreement, Deep
from pytest_rwkvperf.worker.parent import Worker

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

RESULTS = Path(__file__).with_suffix(".json")
TABLE = Path(__file__).with_suffix(".md")
DEFAULT = (
    ("rwkv", "fp32", "nano"),
    ("rwkv", "bf16", "nano"),
    ("llama-cpp", "f16", "nano"),
    ("llama-cpp", "q8_0", "nano"),
    ("web-rwkv", "fp16", "nano"),
    ("web-rwkv", "int8", "nano"),
    ("rwkv", "fp32", "0.1b"),
    ("rwkv", "bf16", "0.1b"),
    ("llama-cpp", "f16", "0.1b"),
    ("llama-cpp", "q8_0", "0.1b"),
)
WORKLOADS = (Workload.parse("pp512"), Workload.parse("tg128"))
PROCESSES = 3
ANY = Deep(Agreement(finite=True, relative_l2=0.0, kl=0.0, top_matches=True), 0.0)
"""Stands for a deep check that is remembered."""


@contextmanager
def clocked() -> Iterator[dict[str, float]]:
    """Seconds by request of all workers in this block."""
    seconds: dict[str, float] = defaultdict(float)
    plain = Worker.request

    def request(self: Worker, do: str, *positional: Any, **arguments: Any) -> Any:  # noqa: ANN401 - passed on
        started = time.perf_counter()
        try:
            return plain(self, do, *positional, **arguments)
        finally:
            seconds[do] += time.perf_counter() - started

    Worker.request = request  # type: ignore[method-assign]
    try:
        yield seconds
    finally:
        Worker.request = plain  # type: ignore[method-assign]


def measure(name: str, quant: str, shape: str) -> dict[str, Any]:
    """A case's seconds by request, one list entry per process; the first process also runs the deep check."""
    engine, model = bench.engine(name), bench.model(shape, 0)
    file = bench.file_of(model, engine, quant)
    started = time.perf_counter()
    wanted = bench.right_answers(file, engine, quant, deep=True)
    known = expected.known_answers(file, engine.backend.emulation(quant), WORKLOADS, bench.TOOLS)
    oracle = time.perf_counter() - started
    facts = ModelFacts(model.name, model.content_hash, model.shape.parameters, file.size_bytes)
    environment = engine.backend.environment(engine.device.id)
    target = Target(
        bench.case(engine, quant), engine.location, environment, bench.PYTHON, facts, file.path, engine.device,
        tuple(wanted), None, known, longest=512,
    )  # fmt: skip
    measured = MeasuredCase(target)
    first, *rest = [one_process(measured) for _ in range(PROCESSES + 1)]
    remembered = one_process(MeasuredCase(replace(target, known_deep=ANY)))
    short = [process["parity"] for process in rest]
    checks = [process["parity"] + process["answer"] for process in rest]
    return {
        "backend": name,
        "quant": quant,
        "shape": shape,
        "oracle_seconds": round(oracle, 2),
        "deep_seconds": round(first["parity"] - remembered["parity"], 2),
        "fresh_seconds": round(remembered["parity"] - statistics.median(short), 2),
        "processes": [{do: round(value, 3) for do, value in process.items()} for process in rest],
        "share": round(sum(checks) / sum(process["whole"] for process in rest), 4),
        "conditions": bench.conditions(),
    }


def one_process(measured: MeasuredCase) -> dict[str, float]:
    """The seconds of one more process of a case, by request and as a whole."""
    with clocked() as seconds:
        started = time.perf_counter()
        plan.run_process(measured, WORKLOADS, lambda _sentence: None)
        return {"whole": time.perf_counter() - started, **seconds}


def record(entry: dict[str, Any]) -> None:
    """Add an entry and rewrite the table."""
    held = {(one["backend"], one["quant"], one["shape"]): one for one in recorded()}
    held[entry["backend"], entry["quant"], entry["shape"]] = entry
    everything = [held[key] for key in DEFAULT if key in held]
    RESULTS.write_text(json.dumps(everything, indent=1) + "\n", encoding="utf-8")
    TABLE.write_text(table(everything), encoding="utf-8")


def recorded() -> list[dict[str, Any]]:
    """Every entry."""
    held: list[dict[str, Any]] = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else []
    return held


def table(entries: Sequence[dict[str, Any]]) -> str:
    """In Markdown."""
    lines = [
        "# What the parity check costs",
        "",
        "Made by `cost.py`; every process's figures, and the load under which they were taken, are in `cost.json`.",
        "",
        "| engine | quant | shape | process | short | timed answers | share | a run: new tokens | deep once | oracle |",
        "|---|---|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for one in entries:
        whole, short, answers = (_median(one, do) for do in ("whole", "parity", "answer"))
        fresh = f"{one['fresh_seconds']:.1f} s" if "fresh_seconds" in one else "not measured"
        lines.append(
            f"| {one['backend']} | {one['quant']} | {one['shape']} | {whole} | {short} | {answers}"
            f" | {one['share']:.1%} | {fresh} | {one['deep_seconds']:.1f} s | {one['oracle_seconds']:.1f} s |"
        )
    return "\n".join(lines) + "\n"


def _median(entry: dict[str, Any], do: str) -> str:
    """Of a request's seconds in a process."""
    seconds = [process[do] for process in entry["processes"] if do in process]
    return f"{statistics.median(seconds):.2f} s" if seconds else "not measured"


def main() -> None:
    """Measure what the command line names and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="nano,0.1b")
    parser.add_argument("--backend", default=",".join(bench.REAL_BACKENDS))
    options = parser.parse_args()
    for name, quant, shape in DEFAULT:
        if shape in options.shape.split(",") and name in options.backend.split(","):
            with bench.temporary_cache():
                entry = measure(name, quant, shape)
            record(entry)
            print(name, quant, shape, f"{entry['share']:.2%}", entry["processes"], flush=True)
    print(table(recorded()))


if __name__ == "__main__":
    main()
