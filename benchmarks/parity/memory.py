"""The anonymous memory that the oracle takes: less than 1 GiB for 2.9b.

    python benchmarks/parity/memory.py                       # 2.9b, from a .st of 5.9 GB in a temporary folder
    python benchmarks/parity/memory.py --shape 0.1b

The oracle computes the logits of the short check in a process of its own, as for a measurement; RssAnon of
/proc/PID/status (proc(5): resident memory not backed by a file) is read every 10 ms. Linux only. Results go to
`memory.json`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import bench

from pytest_rwkvperf.models import derive, synthetic
from pytest_rwkvperf.oracle.agreement import PROMPT
from pytest_rwkvperf.worker.parent import LOAD_SECONDS, Worker

RESULTS = Path(__file__).with_suffix(".json")
SAMPLE_SECONDS = 0.01
MIB = 1 << 20


def anonymous_bytes(pid: int) -> int:
    """RssAnon of a process; 0 when it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace").splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:")), 0)


def measure(shape: str, count: int, emulation: str) -> dict[str, Any]:
    """Peak memory and seconds of one computation."""
    with tempfile.TemporaryDirectory(prefix="rwkvperf-parity-") as folder:
        path = Path(folder) / "model.st"
        derive.write(synthetic.parse(f"synthetic:{shape}"), path, "st", shape, bench.silent)
        with Worker() as worker:
            done, peaks = threading.Event(), [anonymous_bytes(worker.pid)]
            before = peaks[0]

            def watch() -> None:
                while not done.wait(SAMPLE_SECONDS):
                    peaks.append(anonymous_bytes(worker.pid))

            thread = threading.Thread(target=watch)
            thread.start()
            started = time.perf_counter()
            try:
                worker.request(
                    "solve", LOAD_SECONDS, path=str(path), format="st", emulation=emulation, count=count,
                    target=str(Path(folder) / "logits.npy"),
                )  # fmt: skip
            finally:
                done.set()
                thread.join()
            return {
                "shape": shape,
                "emulation": emulation,
                "tokens": count,
                "file_bytes": path.stat().st_size,
                "seconds": round(time.perf_counter() - started, 1),
                "before_mib": round(before / MIB, 1),
                "peak_anonymous_mib": round(max(peaks) / MIB, 1),
                "conditions": bench.conditions(),
            }


def main() -> None:
    """Measure what the command line names, record and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="2.9b")
    parser.add_argument("--tokens", type=int, default=PROMPT)
    parser.add_argument("--emulation", default="")
    options = parser.parse_args()
    entry = measure(options.shape, options.tokens, options.emulation)
    held = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else []
    key = ("shape", "emulation", "tokens")
    held = [one for one in held if [one[name] for name in key] != [entry[name] for name in key]]
    RESULTS.write_text(json.dumps([*held, entry], indent=1) + "\n", encoding="utf-8")
    print(json.dumps(entry, indent=1))


if __name__ == "__main__":
    main()
