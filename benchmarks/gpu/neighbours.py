"""What a measurement on one GPU loses while another GPU of the same host is measured: a ratio with its interval.

Two workers of one engine, each on a GPU of its own, both loaded and warm. A round times the first one alone and then
while the second one repeats the same workload without a pause, in alternating order; the ratio is that of the medians.

    python benchmarks/gpu/neighbours.py --out neighbours.json --rounds 6
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
from scipy.special import stdtrit

from pytest_rwkvperf.backends import registry
from pytest_rwkvperf.core.cases import Case, Workload
from pytest_rwkvperf.core.engine import Device
from pytest_rwkvperf.machine import fingerprint
from pytest_rwkvperf.models.model_store import ModelStore
from pytest_rwkvperf.run.lease import lease
from pytest_rwkvperf.worker.parent import IMPORT_SECONDS, SAMPLE_SECONDS, Worker
from pytest_rwkvperf.worker.tools import WorkerTools

if TYPE_CHECKING:
    from collections.abc import Sequence

CASES = ("llama-cpp f16", "rwkv fp16@kernels", "web-rwkv fp16")
WORKLOADS = ("pp512", "tg32")
WARM = 4
SPAN_SECONDS = 1.0
"""A side of a round lasts at least so long, and at least FEWEST repetitions."""
FEWEST = 3


def interval(ratios: Sequence[float]) -> tuple[float, float, float]:
    """Geometric mean with its 95 % interval, Student's t over the rounds."""
    logs = [math.log(one) for one in ratios]
    half = float(stdtrit(len(logs) - 1, 0.975)) * statistics.stdev(logs) / math.sqrt(len(logs))
    middle = statistics.mean(logs)
    return math.exp(middle), math.exp(middle - half), math.exp(middle + half)


def taken(worker: Worker, workload: str) -> list[int]:
    """Nanoseconds of repetitions, for a span; one before it is not counted."""
    worker.request("sample", SAMPLE_SECONDS, workload=workload)
    times: list[int] = []
    until = time.monotonic() + SPAN_SECONDS
    while len(times) < FEWEST or time.monotonic() < until:
        times.append(worker.request("sample", SAMPLE_SECONDS, workload=workload)["nanoseconds"])
    return times


class Busy:
    """The neighbour: repeats a workload from the start of a block to its end."""

    def __init__(self, worker: Worker, workload: str) -> None:
        self._worker, self._workload = worker, workload
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work)
        self.count = 0

    def _work(self) -> None:
        while not self._stop.is_set():
            self._worker.request("sample", SAMPLE_SECONDS, workload=self._workload)
            self.count += 1

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def rounds_of(workers: Sequence[Worker], workload: str, rounds: int) -> dict[str, Any]:
    """One row: the first worker alone and beside the second."""
    for worker in workers:
        for _ in range(WARM):
            worker.request("sample", SAMPLE_SECONDS, workload=workload)
    sides: dict[str, list[list[int]]] = {"alone": [], "beside": []}
    for index in range(rounds):
        for side in list(sides)[:: -1 if index % 2 else 1]:
            with ExitStack() as stack:
                if side == "beside":
                    stack.enter_context(Busy(workers[1], workload))
                sides[side].append(taken(workers[0], workload))
    medians = {side: [statistics.median(one) for one in found] for side, found in sides.items()}
    ratio = interval([alone / beside for alone, beside in zip(medians["alone"], medians["beside"], strict=True)])
    tokens = Workload.parse(workload).tokens
    rates = {side: tokens / statistics.median(found) * 1e9 for side, found in medians.items()}
    return {"workload": workload, "rounds": rounds, "rates": rates, "speed_beside": ratio, "nanoseconds": sides}


def rows_of(backend_name: str, quant: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Both workloads of an engine on its first two GPUs."""
    models = ModelStore(WorkerTools(lambda _sentence, _fraction: None), lambda _sentence, _fraction: None)
    location = registry.BUILT_IN[backend_name]
    backend = registry.load(location)
    model = models.resolve(options.model)
    wanted = backend.format, backend.file_quant(quant)
    path = models.file_for(model, *wanted).path
    with Worker(environment=backend.environment(None)) as worker:
        listed = [Device(**one) for one in worker.request("describe", IMPORT_SECONDS, location=location)["devices"]]
    gpus = list({one.physical: one for one in reversed(listed) if one.kind == options.kind}.values())[::-1][:2]
    if len(gpus) < 2:  # noqa: PLR2004 - one and its neighbour
        raise SystemExit(f"{backend_name} lists no two GPUs here: {', '.join(one.id for one in listed)}")
    with ExitStack() as stack:
        workers = []
        for device in gpus:
            stack.enter_context(lease(device, print))
            workers.append(stack.enter_context(Worker(environment=backend.environment(device.id))))
            case = Case(
                backend_name, model.name, quant, device.id, psutil.cpu_count(logical=False) or 1, backend.standard_chunk
            )
            workers[-1].open(location, path, case)
        rows = [rounds_of(workers, workload, options.rounds) for workload in WORKLOADS]
    found = [{"backend": backend_name, "quant": quant, "devices": [one.id for one in gpus], **row} for row in rows]
    for row in found:
        print({key: value for key, value in row.items() if key != "nanoseconds"}, flush=True)
    return found


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default="synthetic:2.9b")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--kind", default="gpu", help="of devices; to try this script: cpu")
    options = parser.parse_args()
    rows = []
    for case in options.cases.split(","):
        backend, quant = case.split()
        rows += rows_of(backend, quant, options)
        facts = {"machine": fingerprint.read().id, "cores": fingerprint.cores(), "model": options.model, "rows": rows}
        options.out.write_text(json.dumps(facts) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
