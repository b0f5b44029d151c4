"""What a process's first repetitions cost on a GPU: tokens per second of repetitions from cold, nothing warmed up.

    python benchmarks/gpu/cold.py --backend llama-cpp --quant f16 --workload pp512 --count 30

The recorded figures of an H200 are in cold.json beside this, rounded as this prints them.
"""

from __future__ import annotations

import argparse

import psutil

from pytest_rwkvperf.backends import registry
from pytest_rwkvperf.core.cases import Case, Workload
from pytest_rwkvperf.core.engine import Device
from pytest_rwkvperf.models.model_store import file_for, resolve
from pytest_rwkvperf.worker.parent import IMPORT_SECONDS, SAMPLE_SECONDS, Worker
from pytest_rwkvperf.worker.tools import WorkerTools


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", required=True, choices=list(registry.BUILT_IN))
    parser.add_argument("--quant", required=True)
    parser.add_argument("--model", default="synthetic:2.9b")
    parser.add_argument("--workload", type=Workload.parse, default=Workload("prefill", 512))
    parser.add_argument("--count", type=int, default=30)
    options = parser.parse_args()
    tools, quiet = WorkerTools(lambda _sentence, _fraction: None), lambda _sentence, _fraction: None
    location = registry.BUILT_IN[options.backend]
    backend = registry.load(location)
    model = resolve(options.model, tools=tools, progress=quiet)
    quant = backend.file_quant(options.quant)
    path = file_for(model, backend.format, quant, tools=tools, progress=quiet).path
    with Worker(environment=backend.environment(None)) as worker:
        device = Device(**worker.request("describe", IMPORT_SECONDS, location=location)["devices"][0])
    threads = psutil.cpu_count(logical=False) or 1
    case = Case(options.backend, model.name, options.quant, device.id, threads, backend.standard_chunk)
    with Worker(environment=backend.environment(device.id)) as worker:
        worker.open(location, path, case)
        for index in range(options.count):
            taken = worker.request("sample", SAMPLE_SECONDS, workload=str(options.workload))
            rate = options.workload.tokens / taken["nanoseconds"] * 1e9
            print(f"{options.backend} {options.quant} {options.workload} {index + 1}: {rate:.0f} t/s", flush=True)


if __name__ == "__main__":
    main()
