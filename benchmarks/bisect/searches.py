"""Does a bisection name the planted commit, and how long does it take? Searches in repositories of several seeds.

For each seed a repository is made (repository.py) and searched with `rwkvperf bisect`, from GOOD, its first commit, to
BAD, its last one. The second search is ended by kill -9 after some minutes and goes on with --resume. What each step
took and what was answered is written down as soon as a search is done; what is recorded already is kept. The machine
should be quiet. Builds are kept in a cache of their own, which the first search finds empty.

    python benchmarks/bisect/searches.py llama_cpp_python-0.3.36.tar.gz --seeds 5
    python benchmarks/bisect/searches.py llama_cpp_python-0.3.36.tar.gz --seeds 1 --by instructions
    python benchmarks/bisect/searches.py --seeds 0        # the table from what is recorded
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from repository import COMMITS, make  # type: ignore[import-not-found]  # the folder is no package

HERE = Path(__file__).resolve().parent
RECORDED = HERE / "searches.json"
TABLE = HERE / "searches.md"
OPTIONS = ("--rwkv-model=synthetic:0.1b", "--rwkv-quant=q8_0", "--rwkv-workload=pp128", "--rwkv-budget=600")
KILLED_SEED = 2
"""The search that is killed once."""

KILLED_AFTER = 150.0
"""Seconds: past the first builds, in the middle of the steps."""


def search(sdist: Path, seed: int, cache: Path, *, by: str, killed: bool) -> dict[str, Any]:
    """One search, by time or by a witness; what was planted, found, and took how long."""
    with tempfile.TemporaryDirectory(prefix="rwkvperf-searches-") as temporary:
        repository, result = Path(temporary, "llama.cpp"), Path(temporary, "result.json")
        commits = make(sdist, repository, seed)
        command = [sys.executable, "-m", "pytest_rwkvperf.cli", "bisect", "llama.cpp"]
        command += [f"{commits[0]['commit']}..main", "--repo", str(repository), "--json", str(result)]
        command += [] if by == "time" else [f"--by={by}"]
        began = time.monotonic()
        kills = _kill(command, cache) if killed else 0
        resume = ["--resume"] if killed else []
        ended = _start([*command, *resume], cache).wait()
        seconds = time.monotonic() - began
        # Reasons name files in the cache, whose place is this machine's own.
        found = json.loads(result.read_text(encoding="utf-8").replace(str(cache), "CACHE")) if result.exists() else {}
    planted = next(each["commit"] for each in commits if each["kind"] == "slower")
    return {
        "seed": seed,
        "by": by,
        "kills": kills,
        "seconds": round(seconds, 1),
        "exit_status": ended,
        "planted": planted,
        "kinds": {each["commit"]: each["kind"] for each in commits},
        "right": found.get("first_slow") == [planted],
        **{name: found.get(name) for name in ("first_slow", "probability", "confirmed", "wrong_since", "steps")},
    }


def _start(command: list[str], cache: Path) -> subprocess.Popen[bytes]:
    words = [*command, "--", *OPTIONS]
    return subprocess.Popen(words, env={**os.environ, "XDG_CACHE_HOME": str(cache)}, start_new_session=True)


def _kill(command: list[str], cache: Path) -> int:
    """Begin a search and end its processes by SIGKILL; how often that was done."""
    process = _start(command, cache)
    try:
        process.wait(KILLED_AFTER)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return 1
    return 0


def table(searches: list[dict[str, Any]]) -> str:
    """The searches as markdown."""
    lines = [
        f"# Searches of a planted commit among {COMMITS}",
        "",
        f"`rwkvperf bisect llama.cpp … -- {' '.join(OPTIONS)}`; made by `benchmarks/bisect/searches.py`.",
        "",
        "| seed | by | kill -9 | culprit | probability | confirmed | minutes | steps | to build | to measure |",
        "|--:|---|--:|---|--:|---|--:|--:|--:|--:|",
    ]
    for each in searches:
        steps = each["steps"] or []
        build, measure = (sum(step[name] for step in steps) / 60 for name in ("build_seconds", "seconds"))
        probability = f"{each['probability']:.2%}" if each["probability"] else ""
        lines.append(
            f"| {each['seed']} | {each['by']} | {each['kills']} | {'right' if each['right'] else 'WRONG'} "
            f"| {probability} | {'yes' if each['confirmed'] else 'no'} | {each['seconds'] / 60:.1f} | {len(steps)} "
            f"| {build:.1f} | {measure:.1f} |"
        )
    right = sum(each["right"] for each in searches)
    lines += ["", f"The planted commit was named in {right} of {len(searches)} searches.", "", "## Steps", ""]
    lines += [
        "| seed | by | commit | planted there | answer | pairs | s to build | s to measure |",
        "|--:|---|---|---|---|--:|--:|--:|",
    ]
    for each in searches:
        for step in each["steps"] or []:
            against = "" if step["against"] == next(iter(each["kinds"])) else f" against {step['against'][:9]}"
            lines.append(
                f"| {each['seed']} | {each['by']} | {step['state'][:9]}{against} | {each['kinds'][step['state']]} "
                f"| {step['kind']} | {step['pairs']} | {step['build_seconds']:.0f} | {step['seconds']:.0f} |"
            )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Search and write down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sdist", type=Path, nargs="?")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--by", default="time", choices=("time", "instructions"))
    parser.add_argument("--cache", type=Path, help="a folder for the builds; default: a temporary one")
    options = parser.parse_args()
    recorded = json.loads(RECORDED.read_text(encoding="utf-8")) if RECORDED.exists() else []
    with tempfile.TemporaryDirectory(prefix="rwkvperf-searches-cache-") as temporary:
        for seed in range(1, options.seeds + 1):
            if (seed, options.by) in [(each["seed"], each["by"]) for each in recorded]:
                continue
            cache, killed = options.cache or Path(temporary), options.by == "time" and seed == KILLED_SEED
            recorded.append(search(options.sdist, seed, cache, by=options.by, killed=killed))
            RECORDED.write_text(json.dumps(recorded, indent=1) + "\n", encoding="utf-8")
    TABLE.write_text(table(recorded), encoding="utf-8")
    print(table(recorded))


if __name__ == "__main__":
    main()
