"""What the plugin adds to pytest's start where it is installed and not used.

    python benchmarks/startup/startup.py

pytest runs in an empty folder with and without the plugin, in pairs whose order alternates, so that what the machine
does meanwhile meets both. The difference within a pair is what counts: its median over the pairs, with the 95 %
interval of order statistics. CPU time says the same with less noise. Run it on an idle machine. Results go to
`result.json`; `result.md` is written anew. Exit 1 when a median is over the limit.
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
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
from scipy.stats import binom

from pytest_rwkvperf.machine import fingerprint

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

HERE = Path(__file__).resolve().parent
LIMIT_MILLISECONDS = 20.0
WARM_UP_PAIRS = 3
CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Setting:
    """One way to start pytest, and what takes the plugin out of it or puts it in."""

    name: str
    arguments: tuple[str, ...]
    present: tuple[str, ...] = ()
    absent: tuple[str, ...] = ("-p", "no:rwkvperf")
    environment: tuple[tuple[str, str], ...] = ()


COLLECT = ("-m", "pytest", "-p", "no:cacheprovider", "--collect-only", "-q")
SETTINGS = (
    Setting("pytest --version", ("-m", "pytest", "--version")),
    Setting("pytest --collect-only, beside the other plugins installed here", COLLECT),
    Setting(
        "pytest --collect-only, the only plugin",
        COLLECT,
        ("-p", "pytest_rwkvperf.plugin"),
        (),
        (("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1"),),
    ),
)


@dataclass(frozen=True, slots=True)
class Times:
    """One start, in milliseconds."""

    wall: float
    cpu: float


@dataclass(frozen=True, slots=True)
class Added:
    """Milliseconds that the plugin adds: median of the pairs' differences with its 95 % interval, and the quartiles."""

    median: float
    low: float
    high: float
    quartiles: tuple[float, float]


def children_cpu_seconds() -> float:
    """CPU time of all ended child processes; Windows does not count it."""
    if sys.platform == "win32":
        return 0.0
    import resource

    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def start(arguments: Sequence[str], environment: Mapping[str, str], folder: str) -> Times:
    """Run Python once."""
    before, started = children_cpu_seconds(), time.perf_counter()
    ended = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, stdout=subprocess.DEVNULL, check=False
    )
    wall, cpu = time.perf_counter() - started, children_cpu_seconds() - before
    if ended.returncode not in (0, 5):
        raise RuntimeError(f"{' '.join(arguments)} ended with {ended.returncode}")
    return Times(round(1000 * wall, 2), round(1000 * cpu, 2))


def pairs(setting: Setting, count: int, folder: str) -> list[tuple[Times, Times]]:
    """(without, with) for each pair; who goes first alternates."""
    environment = {**os.environ, **dict(setting.environment)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # the warm-up compiles, once, as an installation does
    commands = [[*setting.arguments, *extra] for extra in (setting.absent, setting.present)]
    taken = []
    for index in range(-WARM_UP_PAIRS, count):
        order = (0, 1) if index % 2 else (1, 0)
        times = {which: start(commands[which], environment, folder) for which in order}
        if index >= 0:
            taken.append((times[0], times[1]))
    return taken


def added(differences: Sequence[float]) -> Added:
    """The median with the interval between two order statistics (binomial, distribution-free)."""
    ordered = sorted(differences)
    count = len(ordered)
    rank = int(binom.ppf((1 - CONFIDENCE) / 2, count, 0.5))
    return Added(
        _quantile(ordered, 0.5),
        ordered[max(0, rank - 1)],
        ordered[min(count - 1, count - rank)],
        (_quantile(ordered, 0.25), _quantile(ordered, 0.75)),
    )


def _quantile(ordered: Sequence[float], share: float) -> float:
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def table(results: dict[str, dict[str, object]], facts: dict[str, object]) -> str:
    """The result for people."""
    head = (
        f"Made by `startup.py` on {facts['date']}: {facts['machine']}, Python {facts['python']}, "
        f"pytest {facts['pytest']}, {facts['pairs']} pairs, load average {facts['load']} at the start. "
        f"The limit is {LIMIT_MILLISECONDS:.0f} ms."
    )
    lines = [
        "# What the plugin adds to pytest's start, unused",
        "",
        head,
        "",
        "| start | without, median ms | added, median ms (95 % interval) | quartiles | added CPU ms |",
        "|---|--:|--:|--:|--:|",
    ]
    for name, result in results.items():
        wall, cpu = Added(**result["wall"]), Added(**result["cpu"])  # type: ignore[arg-type]  # made by asdict
        lines.append(
            f"| {name} | {result['without_median']:.0f} | {wall.median:.1f} ({wall.low:.1f} to {wall.high:.1f}) "
            f"| {wall.quartiles[0]:.1f} to {wall.quartiles[1]:.1f} | {cpu.median:.1f} |"
        )
    return "\n".join([*lines, "", "`--version` alone ends before pytest loads any plugin.", ""])


def main() -> int:
    """Measure, print and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=60)
    count = parser.parse_args().pairs
    facts: dict[str, object] = {
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
        "machine": f"{fingerprint.read().cpu}, {fingerprint.cores()} cores",
        "python": platform.python_version(),
        "pytest": version("pytest"),
        "pairs": count,
        "load": round(psutil.getloadavg()[0], 1),
    }
    results: dict[str, dict[str, object]] = {}
    over = False
    with tempfile.TemporaryDirectory(prefix="rwkvperf startup ") as folder:
        for setting in SETTINGS:
            taken = pairs(setting, count, folder)
            wall = added([after.wall - before.wall for before, after in taken])
            over = over or wall.median > LIMIT_MILLISECONDS
            results[setting.name] = {
                "without_median": _quantile(sorted(before.wall for before, _ in taken), 0.5),
                "wall": asdict(wall),
                "cpu": asdict(added([after.cpu - before.cpu for before, after in taken])),
                "pairs": [[asdict(before), asdict(after)] for before, after in taken],
            }
            print(f"{setting.name}: {wall.median:+.1f} ms ({wall.low:+.1f} to {wall.high:+.1f})", flush=True)
    (HERE / "result.json").write_text(json.dumps({**facts, "settings": results}, indent=1) + "\n", encoding="utf-8")
    (HERE / "result.md").write_text(table(results, facts), encoding="utf-8")
    return int(over)


if __name__ == "__main__":
    sys.exit(main())
