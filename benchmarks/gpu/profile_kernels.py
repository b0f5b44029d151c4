"""Which kernels a decoded token and a prefill consist of on CUDA, in any engine: by CUPTI, one process a file.

    python benchmarks/gpu/profile_kernels.py f16.gguf q8_0.gguf q4_k_m.gguf model.pth --out kernels.json

A `.gguf` is opened by llama.cpp, a `.pth` by rwkv as fp16@kernels, both as a case would be. Wall times are those of
repetitions that nothing records. Device times, names, counts and gaps are recorded afterwards, prefill and generation
in turn, so that CUDA graphs are made anew while CUPTI looks on. It makes launching slower: gaps are no longer without.
Needs cupti-python: pip install "pytest-rwkvperf[cuda]".
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_rwkvperf.backends import registry
from pytest_rwkvperf.core.cases import Workload
from pytest_rwkvperf.core.engine import OpenRequest
from pytest_rwkvperf.machine import cupti
from pytest_rwkvperf.worker import protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pytest_rwkvperf.core.engine import Engine
    from pytest_rwkvperf.machine.cupti import Recorded

WORKLOADS = {"prefill512": Workload("prefill", 512), "decode": Workload("generation", 16)}
WARM = 4
TIMED = 8
SETTLING = 3
CHUNK = 512
ENGINES = {".gguf": "llama-cpp", ".pth": "rwkv"}


def gaps(intervals: Iterable[tuple[int, int]]) -> list[int]:
    """Nanoseconds between the intervals `(start, end)` in which there is none."""
    found: list[int] = []
    reached = None
    for start, end in sorted(intervals):
        if reached is not None and start > reached:
            found.append(start - reached)
        reached = end if reached is None else max(reached, end)
    return found


def step_of(recorded: Recorded, walls: Sequence[int], workload: Workload) -> dict[str, Any]:
    """A repetition by step: a prefill is one, each token of a generation another."""
    steps = 1 if workload.kind == "prefill" else workload.tokens
    taken = cupti.summed(recorded, workload.tokens)
    within = recorded.within()
    between = gaps((one.start, one.end) for one in within)
    wall = statistics.median(walls) / 1e6 / steps
    device = taken.busy_nanoseconds / 1e6 / steps
    return {
        "wall_ms": wall,
        "device_ms": device,
        "device_share": device / wall,
        "recorded_wall_ms": recorded.wall_nanoseconds / 1e6 / steps,
        "kernels": taken.kernels / steps,
        "copies": taken.copies / steps,
        "launches": taken.launches / steps,
        "median_kernel_us": statistics.median(one.end - one.start for one in within) / 1e3,
        "gaps": len(between) / steps,
        "gaps_ms": sum(between) / 1e6 / steps,
        "median_gap_us": statistics.median(between) / 1e3 if between else 0.0,
        "longest": [
            {"name": one.name, "count": one.count / steps, "us": one.nanoseconds / 1e3 / steps} for one in taken.longest
        ],
    }


def repeated(workload: Workload, engine: Engine) -> int:
    """Nanoseconds of a repetition."""
    return protocol.run(engine, workload, CHUNK, protocol.Contexts()).nanoseconds


def profiled(engine: Engine) -> dict[str, Any]:
    """Both workloads: timed first, then recorded in turn."""
    walls = {
        name: [repeated(workload, engine) for _ in range(WARM + TIMED)][WARM:] for name, workload in WORKLOADS.items()
    }
    return {
        name: step_of(cupti.record(engine, partial(repeated, workload), SETTLING), walls[name], workload)
        for name, workload in WORKLOADS.items()
    }


def here(path: Path, device: str) -> dict[str, Any]:
    """A file in this process.

    Raises:
        SystemExit: cupti-python is not installed.
    """
    if not cupti.installed():
        raise SystemExit('cupti-python is not installed: pip install "pytest-rwkvperf[cuda]"')
    backend = registry.load(registry.BUILT_IN[ENGINES[path.suffix]])
    os.environ.update(backend.environment(device))
    quant = path.stem.rpartition("-")[2] if path.suffix == ".gguf" else "fp16@kernels"
    engine = backend.open(OpenRequest(path, quant, device, 8, CHUNK))
    return {"file": path.name, "bytes": path.stat().st_size, "backend": backend.name, "quant": quant,
            "versions": {**backend.versions()}, "device": asdict(engine.device), **profiled(engine)}  # fmt: skip


def apart(path: Path, device: str) -> dict[str, Any]:
    """A file in a process of its own; what keeps it from an answer is one.

    A crash of one engine under CUPTI says nothing of the others.
    """
    command = [sys.executable, __file__, str(path), "--here", "--device", device]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return {"file": path.name, "failed": f"ended with {done.returncode}: {done.stderr[-2000:]}"}
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def table(found: Sequence[Mapping[str, Any]]) -> str:
    """The steps of all files, then each step's longest kernels."""
    text = [
        f"{'file':<28}{'step':<12}{'wall ms':>9}{'device ms':>10}{'share':>7}{'kernels':>9}{'launches':>9}{'gap us':>8}"
    ]
    kernels: list[str] = []
    for one in found:
        if "failed" in one:
            text.append(f"{one['file']:<28}{one['failed'].strip().splitlines()[-1]}")
            continue
        for name in WORKLOADS:
            step = one[name]
            text.append(
                f"{one['file']:<28}{name:<12}{step['wall_ms']:>9.3f}{step['device_ms']:>10.3f}{step['device_share']:>7.0%}"
                f"{step['kernels']:>9.0f}{step['launches']:>9.0f}{step['median_gap_us']:>8.2f}"
            )
            kernels.append(f"\n{one['file']}, {name}: us a step, count, us each")
            kernels += [
                f"{kernel['us']:>10.1f}{kernel['count']:>8.0f}{kernel['us'] / kernel['count']:>9.2f}  {kernel['name']}"
                for kernel in step["longest"]
            ]
    return "\n".join([*text, *kernels])


def main() -> None:
    """Profile each file, print and write.

    Raises:
        SystemExit: a file could not be profiled; the others' figures are written.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, nargs="+")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--here", action="store_true", help="the first file in this process")
    options = parser.parse_args()
    if unknown := [str(path) for path in options.models if path.suffix not in ENGINES]:
        raise SystemExit(f"neither .gguf nor .pth: {', '.join(unknown)}")
    if options.here:
        print(json.dumps(here(options.models[0], options.device)))
        return
    found = [apart(path, options.device) for path in options.models]
    if options.out:
        options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(table(found), flush=True)
    if lost := [one["file"] for one in found if "failed" in one]:
        raise SystemExit(f"no profile of {', '.join(lost)}")


if __name__ == "__main__":
    main()
