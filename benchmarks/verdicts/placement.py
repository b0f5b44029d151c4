"""Two threads and one on a virtual machine: where the host puts the processors moves the figure of two, not of one.

    python benchmarks/verdicts/placement.py --seconds 180     # writes placement.md and placement.json

Two workers of llama.cpp on the same file, one with two threads and one with one, take a prefill in turn; before each
stands the handover of two threads, timed by this project's probe process without waiting. A process lives for
`--process` seconds. Nothing else may run.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "fidelity"))

from llama_bench import make_target  # noqa: E402 - the folder beside

from pytest_rwkvperf.core.cases import Workload  # noqa: E402
from pytest_rwkvperf.machine import fingerprint  # noqa: E402
from pytest_rwkvperf.measure.probes import probing  # noqa: E402
from pytest_rwkvperf.measure.process import running  # noqa: E402
from pytest_rwkvperf.measure.sampling import Sampling  # noqa: E402
from pytest_rwkvperf.run.lease import lease  # noqa: E402
from pytest_rwkvperf.stats.levels import PLACEMENT_FACTOR  # noqa: E402

WORKLOAD = Workload("prefill", 256)


def taken(seconds: float, process_seconds: float) -> list[tuple[int, int, int]]:
    """Nanoseconds of the handover, of the prefill with two threads, and of the one with one, in order of time."""
    two = make_target("synthetic:nano", "f16", 2)
    one = replace(two, case=replace(two.case, threads=1))
    rows, end = [], time.monotonic() + seconds
    with lease(two.device, print), probing(two.device, 2) as prober:
        while time.monotonic() < end and prober is not None:
            with ExitStack() as stack:
                both = [Sampling(stack.enter_context(running(target, first=False))) for target in (two, one)]
                for sampling in both:
                    sampling.warm_up([WORKLOAD])
                until = time.monotonic() + process_seconds
                while time.monotonic() < until:
                    handover = prober.handover(print) or 0
                    first, second = (sampling.take(WORKLOAD).nanoseconds for sampling in both)
                    rows.append((handover, first, second))
    return rows


def told(rows: list[tuple[int, int, int]]) -> dict[str, dict[str, Any]]:
    """Medians and spreads, where the processors stood near and where they stood apart."""
    nearest = float(np.quantile([row[0] for row in rows], 0.1))
    groups = {
        "near": [row for row in rows if row[0] <= PLACEMENT_FACTOR * nearest],
        "apart": [row for row in rows if row[0] > PLACEMENT_FACTOR * nearest],
    }
    return {
        name: {
            "samples": len(group),
            "handover_us": statistics.median(row[0] for row in group) / 1e3,
            "two_threads_ms": [float(q) / 1e6 for q in np.quantile([row[1] for row in group], (0.05, 0.5, 0.95))],
            "one_thread_ms": [float(q) / 1e6 for q in np.quantile([row[2] for row in group], (0.05, 0.5, 0.95))],
        }
        for name, group in groups.items()
        if group
    }


def main() -> None:
    """Measure, print and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=180)
    parser.add_argument("--process", type=float, default=8, help="seconds that a process lives")
    options = parser.parse_args()
    rows = taken(options.seconds, options.process)
    found = told(rows)
    lines = [
        "# Two threads and one, by where the processors stood",
        "",
        f"Made by `placement.py` in {options.seconds:.0f} s on {fingerprint.read().cpu}: llama.cpp, nano f16,",
        "pp256, a pair of samples beside each handover. 5 % quantile, median and 95 % quantile, in milliseconds.",
        "",
        "| processors | pairs | handover, median | two threads | one thread |",
        "|---|--:|--:|--:|--:|",
    ]
    for name, group in found.items():
        cells = [" / ".join(f"{one:.1f}" for one in group[key]) for key in ("two_threads_ms", "one_thread_ms")]
        lines.append(f"| {name} | {group['samples']} | {group['handover_us']:.0f} us | {cells[0]} | {cells[1]} |")
    text = "\n".join(lines) + "\n"
    print(text)
    (HERE / "placement.md").write_text(text, encoding="utf-8")
    record = {"found": found, "handover_two_one_ns": rows}
    (HERE / "placement.json").write_text(json.dumps(record, separators=(",", ":")) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
