"""Baselines that are damaged, and savers that stand in each other's way, for longer than a test may.

    python benchmarks/faults/store.py [--examples 10000] [--minutes 5] [--savers 16]

Damaged files, from Hypothesis with a fixed seed: whole baselines of every content with text taken out and put in
anywhere, values replaced by others, and lines repeated. Reading each must give a BaselineError that names the file, or
a baseline that holds what the file says, all of it, and is the same after another round. Savers: N processes save their
own cases and a shared one as fast as they can; none may be lost. Prints and writes `store.json` and `store.md`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections import Counter
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, Verbosity, given, seed, settings

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from pytest_rwkvperf.core.errors import BaselineError  # noqa: E402 - the line above finds it
from tests.unit.store.damage import damaged, outcome  # noqa: E402 - likewise

RESULTS, TABLE = Path(__file__).with_suffix(".json"), Path(__file__).with_suffix(".md")
SAVERS = ROOT / "tests" / "faults" / "savers.py"


def damage(examples: int) -> dict[str, Any]:
    """How many damaged files were refused, how many were read, and the slowest."""
    reasons: Counter[str] = Counter()
    slowest = 0.0

    @seed(1)
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        verbosity=Verbosity.quiet,
        suppress_health_check=list(HealthCheck),
    )
    @given(damaged())
    def read(text: str) -> None:
        nonlocal slowest
        started = time.perf_counter()
        reasons[outcome(text)] += 1
        slowest = max(slowest, time.perf_counter() - started)

    read()
    return {
        "files": sum(reasons.values()),
        "outcomes": dict(reasons.most_common()),
        "slowest_seconds": round(slowest, 3),
    }


def savers(count: int, minutes: float) -> dict[str, Any]:
    """What the savers lost: nothing."""
    with tempfile.TemporaryDirectory(prefix="rwkvperf-savers-") as folder:
        place = Path(folder, "baselines")
        place.mkdir()
        command = [sys.executable, str(SAVERS), "race", str(place), str(count), str(minutes * 60)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(Path(folder, "cache"))}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    kept = ("saves", "saves_of_one", "slowest_save_seconds", "lost", "exit_codes", "failures")
    return {"savers": count, "minutes": minutes, **{name: found[name] for name in kept}}


def sentence(race: dict[str, Any]) -> str:
    """What became of the savers."""
    fewest, most = race["saves_of_one"]
    codes = ", ".join(f"{code} ({number} times)" for code, number in sorted(Counter(race["exit_codes"]).items()))
    return (
        f"{race['savers']} processes saved {race['saves']} times in {race['minutes']:g} min, each {fewest} to {most} "
        f"times, the slowest save with its waiting in {race['slowest_save_seconds']:.1f} s; "
        f"lost {len(race['lost'])}; exit codes: {codes}."
    )


def main() -> int:
    """Both, printed and recorded."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=10_000)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--savers", type=int, default=16)
    options = parser.parse_args()
    damages = damage(options.examples)
    print(json.dumps(damages, indent=1), flush=True)
    race = savers(options.savers, options.minutes)
    print(json.dumps(race), flush=True)
    about = {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "system": platform.platform(),
        "python": platform.python_version(),
    }
    RESULTS.write_text(json.dumps({"conditions": about, "damage": damages, "race": race}, indent=1) + "\n", "utf-8")
    lines = [
        "# Damaged baselines, and savers at once",
        "",
        f"Made by `store.py` on {about['date']}, {about['system']}, Python {about['python']}.",
        "",
        f"{damages['files']} damaged baselines, the slowest read in {damages['slowest_seconds'] * 1e3:.0f} ms:",
        "",
        "| outcome | files |",
        "|---|--:|",
        *(f"| {name} | {number} |" for name, number in damages["outcomes"].items()),
        "",
        sentence(race),
    ]
    TABLE.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return 1 if race["lost"] or any(race["exit_codes"]) else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BaselineError as error:
        sys.exit(str(error))
