"""What the harness costs beside a sample: clock, messages, garbage collection, everything but the sample itself.

    python benchmarks/harness/cost.py

A worker of each engine is asked for samples as a run asks for them; the request's time in the parent less the sample's
own is the harness's. Medians over REPETITIONS of each; the plan's default workloads on synthetic:nano and, for what it
comes to on a model that people use, on synthetic:0.1b. Results go to `cost.json` and `cost.md`.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from pytest_rwkvperf.backends import registry
from pytest_rwkvperf.core.cases import Case, Workload
from pytest_rwkvperf.machine import fingerprint
from pytest_rwkvperf.measure.process import warmup_for
from pytest_rwkvperf.models import model_store
from pytest_rwkvperf.worker import parent
from pytest_rwkvperf.worker.parent import Worker
from pytest_rwkvperf.worker.tools import WorkerTools

HERE = Path(__file__).parent
REPETITIONS = 9
CASES = (("llama-cpp", "f16"), ("rwkv", "fp32"))
WORKLOADS = ("pp512", "tg128")


def measure(backend: str, quant: str, model: str) -> list[dict[str, Any]]:
    """One row a workload: milliseconds of a sample and of the harness beside it."""
    location = registry.choose(backend)[0][backend]
    chosen = registry.load(location)
    tools = WorkerTools(lambda _sentence, _fraction: None)
    file = model_store.file_for(
        model_store.resolve(model, tools=tools, progress=lambda _sentence, _fraction: None),
        chosen.format,
        chosen.file_quant(quant),
        tools=tools,
        progress=lambda _sentence, _fraction: None,
    )
    case = Case(backend, model, quant, "cpu", fingerprint.physical_cores(), chosen.standard_chunk)
    rows = []
    with Worker(environment=chosen.environment("cpu")) as worker:
        worker.open(location, file.path, case)
        for name in WORKLOADS:
            worker.request("sample", parent.SAMPLE_SECONDS, workload=str(warmup_for(Workload.parse(name))))
            taken, beside = [], []
            for _ in range(REPETITIONS):
                started = time.perf_counter_ns()
                sample = worker.request("sample", parent.SAMPLE_SECONDS, workload=name)
                wall = time.perf_counter_ns() - started
                taken.append(sample["nanoseconds"] / 1e6)
                beside.append((wall - sample["nanoseconds"]) / 1e6)
            rows.append(
                {
                    "engine": backend,
                    "quant": quant,
                    "model": model,
                    "workload": name,
                    "sample_ms": statistics.median(taken),
                    "harness_ms": statistics.median(beside),
                    "share": statistics.median(beside) / statistics.median(taken),
                }
            )
    return rows


_HEAD = """# What the harness costs beside a sample

Made by `cost.py` on {}: {}, Python {}; medians of {} requests.

| engine | quant | model | workload | sample | harness | share |
|---|---|---|---|--:|--:|--:|"""


def main() -> int:
    """Measure, print and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="synthetic:nano,synthetic:0.1b")
    asked = parser.parse_args()
    rows = [row for model in asked.model.split(",") for case in CASES for row in measure(*case, model)]
    made = datetime.now(timezone.utc).strftime("%Y-%m-%d")
    lines = _HEAD.format(made, fingerprint.read().id, platform.python_version(), REPETITIONS).splitlines()
    lines += [
        f"| {row['engine']} | {row['quant']} | {row['model']} | {row['workload']} | {row['sample_ms']:.1f} ms | "
        f"{row['harness_ms']:.2f} ms | {row['share']:.2%} |"
        for row in rows
    ]
    text = "\n".join(lines) + "\n"
    print(text)
    (HERE / "cost.json").write_text(json.dumps({"made": made, "rows": rows}, indent=1) + "\n", encoding="utf-8")
    (HERE / "cost.md").write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
