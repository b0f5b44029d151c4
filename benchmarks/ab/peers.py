"""A/B beside the rules of other tools at equal time, on recorded pairs of one code.

Of a recorded run (levels.json) PAIRS pairs in a row are what A/B sees, looked at and ended as live runs are. The other
tools see as many processes of each version, as they are used: all of one version, then all of the other, which takes as
long as those pairs. So they get the old and the new version within minutes of each other, which is their best case:
stored figures of another day are compared in ../verdicts/verdicts.md. Every window of the run is tried, with either
side as the new one, and with its times multiplied by a slowdown; windows overlap, so the shares are of few independent
minutes.

    python benchmarks/ab/peers.py
"""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent / "verdicts"))

import verdicts  # noqa: E402 - the folder is no package

from pytest_rwkvperf.core.cases import Workload  # noqa: E402 - as above
from pytest_rwkvperf.stats.levels import SessionTimes  # noqa: E402
from pytest_rwkvperf.stats.paired import LOOKS, compare_pairs, pair_ratio  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

PAIRS, PAIR_SECONDS = 16, 5
"""How many of the recorded runs' pairs, and how long one took there."""
SLOWDOWNS = (0.0, 0.05, 0.1)
TOLERANCES = (0.01, 0.05)
ITEMS = 2
"""The workloads of a run share its rate of false alarms."""

Pair = tuple["Sequence[int]", "Sequence[int]"]
Score = tuple[bool, float]
"""Whether a rule alarms, and a figure that grows with the evidence for a slowdown."""


def windows(pairs: Sequence[Pair], length: int) -> Iterator[Sequence[Pair]]:
    """Every part of a run with so many pairs in a row, with either side as the new one."""
    for start in range(len(pairs) - length + 1):
        part = pairs[start : start + length]
        yield part
        yield [(old, new) for new, old in part]


def ab(part: Sequence[Pair], _workload: Workload, slowdown: float, tolerance: float) -> Score:
    """A/B of the pairs, the new side slower."""
    ratios = [pair_ratio([time * (1 + slowdown) for time in new], old) for new, old in part]
    looks = [look for look in LOOKS if look <= len(ratios)]
    verdict = next((found for look in looks if (found := _at(ratios[:look], tolerance)) != "INCONCLUSIVE"), "")
    fast = np.array([ratio.fast for ratio in ratios])
    return verdict == "REGRESSION", -float(np.mean(fast)) / float(np.std(fast, ddof=1))


def _at(ratios: Sequence[Any], tolerance: float) -> str:
    return compare_pairs(ratios, tolerance, ITEMS).verdict


def session(rows: Sequence[Sequence[int]], workload: Workload, slowdown: float) -> SessionTimes:
    """Processes as another tool sees them: a time for each repetition."""
    each = workload.tokens if workload.kind == "generation" else 1
    whole = [np.sum(np.reshape(row, (-1, each)), axis=1) * (1 + slowdown) for row in rows]
    return SessionTimes([row.tolist() for row in whole])


def peer(part: Sequence[Pair], workload: Workload, slowdown: float, rule: tuple[Callable[..., float], float]) -> Score:
    """Another tool's rule on the first half as the old version, and on the second half, slower, as the new one."""
    score, limit = rule
    old, new = ([pair[0] for pair in half] for half in (part[:PAIRS], part[PAIRS:]))
    found = score(session(new, workload, slowdown), session(old, workload, 0.0))
    return found > limit, found


def shares(recorded: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """By rule: how many windows it tried, the shares that alarm at each slowdown, and the area under the ROC curve."""
    rules: dict[str, tuple[int, Callable[[Sequence[Pair], Workload, float], Score]]] = {
        name: (2 * PAIRS, partial(peer, rule=rule)) for name, rule in verdicts.PEERS.items()
    }
    for tolerance in TOLERANCES:
        rules[f"A/B at {tolerance:.0%}"] = (PAIRS, partial(ab, tolerance=tolerance))
    for name, (length, score) in rules.items():
        found: dict[float, list[Score]] = {
            slowdown: [
                score(part, Workload.parse(workload), slowdown)
                for run in recorded["runs"]
                for workload, pairs in run["pairs"].items()
                for part in windows(pairs, length)
            ]
            for slowdown in SLOWDOWNS
        }
        same, slow = ([value for _, value in found[slowdown]] for slowdown in SLOWDOWNS[:2])
        yield {
            "rule": name,
            "windows": len(same),
            "alarms": [sum(alarm for alarm, _ in found[slowdown]) / len(same) for slowdown in SLOWDOWNS],
            "area": float(stats.mannwhitneyu(slow, same).statistic) / (len(slow) * len(same)),
        }


def table(recorded: dict[str, Any]) -> str:
    """The shares as markdown."""
    runs = recorded["runs"]
    workloads = sum(len(run["pairs"]) for run in runs)
    machines = ", ".join(sorted({run["machine"] for run in runs}))
    lines = [
        "# A/B and other tools at equal time",
        "",
        f"Made by `peers.py` from {len(runs)} recorded runs of one code with {workloads} workloads in all, on",
        f"{machines}: {PAIRS} processes of each version, some {PAIRS * PAIR_SECONDS} s.",
        "A/B has them in pairs; the other tools have all of one version and then all of the other. *ROC*: area under",
        "the curve for a slowdown of 5 %.",
        "",
        "| rule | windows | unchanged: alarms | 5 % slower: found | 10 % slower: found | ROC |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for each in shares(recorded):
        alarms = " | ".join(f"{share:.0%}" for share in each["alarms"])
        lines.append(f"| {each['rule']} | {each['windows']} | {alarms} | {each['area']:.3f} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    text = table(json.loads((HERE / "levels.json").read_text(encoding="utf-8")))
    (HERE / "peers.md").write_text(text, encoding="utf-8")
    print(text)
