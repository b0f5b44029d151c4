"""What CUDA graphs do to llama.cpp: milliseconds of tokens and prefills from cold, with and without them.

    python benchmarks/gpu/profile_llama.py MODEL.gguf profile.json

A graph replays a step's kernels at one launch; without (GGML_CUDA_DISABLE_GRAPHS=1) the host launches each one. Every
repetition is kept, in order, so that the first, the second and those after a generation can be told apart.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_rwkvperf.backends.llama_cpp import LlamaCppEngine

TOKENS = 16
GRAPHS_OFF = "GGML_CUDA_DISABLE_GRAPHS"


def opened(path: Path, device: str) -> LlamaCppEngine:
    """The engine as a case has it."""
    from pytest_rwkvperf.backends.llama_cpp import BACKEND
    from pytest_rwkvperf.core.engine import OpenRequest

    return BACKEND.open(OpenRequest(path, path.stem, device, 8, 512))


def works(engine: LlamaCppEngine) -> dict[str, tuple[Callable[[], None], int]]:
    """A run of decoded tokens and a prefill, with the steps that each one counts for."""

    def decode() -> None:
        for token in range(100, 100 + TOKENS):
            engine.decode(token)
            engine.logits()

    def prefill() -> None:
        engine.prefill(list(range(1, 513)))
        engine.logits()

    return {"decode": (decode, TOKENS), "prefill512": (prefill, 1)}


def walls(path: Path, device: str) -> dict[str, list[float]]:
    """Milliseconds a step of eight repetitions, from cold; and of prefills that each follow a generation."""
    engine = opened(path, device)
    found: dict[str, list[float]] = {}
    chosen = works(engine)
    for name, (work, steps) in [*chosen.items(), ("alternating", chosen["prefill512"])]:
        for _ in range(8):
            if name == "alternating":
                chosen["decode"][0]()
            engine.clear()
            started = time.perf_counter()
            work()
            found.setdefault(name, []).append((time.perf_counter() - started) * 1e3 / steps)
    return found


def apart(path: Path, device: str, *, graphs: bool) -> dict[str, Any]:
    """The same in a process of its own: the variable is read once.

    Raises:
        SystemExit: that process failed.
    """
    environment = {**os.environ, **({} if graphs else {GRAPHS_OFF: "1"})}
    command = [sys.executable, __file__, str(path), "-", "--here", "--device", device]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{path} on {device} ended with {done.returncode}: {done.stderr[-2000:]}")
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--here", action="store_true", help="in this process, as the variable says")
    options = parser.parse_args()
    if options.here:
        print(json.dumps(walls(options.model, options.device)))
        return
    found = {
        "file": options.model.name,
        "wall_ms": apart(options.model, options.device, graphs=True),
        "wall_ms_without_graphs": apart(options.model, options.device, graphs=False),
    }
    options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
