"""Error rates of both procedures where everything is as they assume: thousands of simulated sessions and A/B runs.

    python benchmarks/verdicts/simulated.py [--runs 5000]

Against stored sessions: levels move from session to session by the spreads that are believed, processes by 2 %,
repetitions by 1 %. In alternation: pairs 3 % apart, some of them hit by a neighbour, or with whoever is opened first
faster; the planned looks, ended by the first that says something, or by an opponent who stops when it looks bad. The
truth lies on the margin, the worst that is no regression, or nothing has changed. The unit tests make some hundreds of
the same runs (tests/unit/stats/simulations.py). Prints and writes `simulated.json` and `simulated.md`. Exit 1 when a
rate lies above ALPHA by more than 999 in 1000 such simulations would show.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from pytest_rwkvperf.machine.fingerprint import read  # noqa: E402 - the line above finds it
from pytest_rwkvperf.stats.verdicts import ALPHA  # noqa: E402 - likewise
from tests.unit.stats.simulations import DRAWS, allowed, chosen_alarms, ends, regressions  # noqa: E402 - likewise

if TYPE_CHECKING:
    from collections.abc import Iterator

TOLERANCE = 0.05
MARGIN = 1 / (1 + TOLERANCE)
RESULTS, TABLE = Path(__file__).with_suffix(".json"), Path(__file__).with_suffix(".md")


def counted(runs: int) -> Iterator[tuple[str, str, int]]:
    """What was simulated, the error that it counts, and how often that was made."""
    for sessions in (1, 3, 10):
        for slowdown in (TOLERANCE, 0.0):
            name = f"{sessions} stored sessions, {slowdown:.0%} slower"
            yield name, "REGRESSION", regressions(slowdown, TOLERANCE, sessions, runs)
    for draw in DRAWS:
        found = ends(MARGIN, draw, TOLERANCE, runs)
        for verdict in ("REGRESSION", "PASS"):
            yield f"A/B, {draw.__name__}, {TOLERANCE:.0%} slower", verdict, found[verdict]
    yield (
        f"A/B, whoever stops when it looks bad, {TOLERANCE:.0%} slower",
        "REGRESSION",
        chosen_alarms(MARGIN, TOLERANCE, runs),
    )


def main() -> int:
    """Simulate, record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5_000)
    runs = parser.parse_args().runs
    started, most = time.monotonic(), allowed(ALPHA, runs)
    counts = [*counted(runs)]
    rows = [{"simulated": name, "verdict": verdict, "count": count} for name, verdict, count in counts]
    result = {
        "runs": runs,
        "allowed": most,
        "machine": read().id,
        "date": datetime.now(timezone.utc).date().isoformat(),
        "minutes": round((time.monotonic() - started) / 60, 1),
        "rows": rows,
    }
    RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    lines = [
        "# Error rates where everything is as assumed",
        "",
        f"Made by `simulated.py`, {runs} simulated runs a row, in {result['minutes']} minutes on {result['machine']},",
        f"{result['date']}. At a true rate of {ALPHA:.0%}, 999 in 1000 such simulations count at most {most}.",
        "",
        "| simulated | error | runs with it |",
        "|---|---|--:|",
        *(f"| {one['simulated']} | {one['verdict']} | {one['count']} ({one['count'] / runs:.2%}) |" for one in rows),
    ]
    TABLE.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))
    return int(any(count > most for _, _, count in counts))


if __name__ == "__main__":
    sys.exit(main())
