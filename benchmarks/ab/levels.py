r"""Which level of a side's times, and which mean of the pairs, A/B should compare: on recorded pairs of one code.

The pairs are those of `--rwkv-aa` runs that no look could end:

    pytest --rwkv-aa --rwkv-backend=llama-cpp --rwkv-model=synthetic:0.1b --rwkv-threads=1 --rwkv-quant=q8_0 \
        --rwkv-workload=pp128,tg32 --rwkv-tolerance=0.01% --rwkv-budget=330 --rwkv-report=run.json
    python benchmarks/ab/levels.py run.json ...    # add the pairs of these records, and make the table anew
    python benchmarks/ab/levels.py                 # the table from what is recorded

RUNS simulated runs a row draw LOOKS[-1] pairs with replacement, each with a random sign (the two sides are the same
code, so either may be called the new one) and slower by the slowdown. They are looked at and ended as live runs are, at
the error rates of one of two workloads.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats

from pytest_rwkvperf.core.cases import Workload
from pytest_rwkvperf.measure.record import Pairing
from pytest_rwkvperf.stats import paired
from pytest_rwkvperf.stats.paired import LOOKS, PairRatio, compare_pairs
from pytest_rwkvperf.store import record

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

HERE = Path(__file__).resolve().parent
RECORDED = HERE / "levels.json"
RUNS = 1000
SLOWDOWNS = ((0.05, 0.01), (0.1, 0.05), (0.0, 0.05))
"""With the tolerance; the last one is unchanged code."""

Pair = tuple["Sequence[int]", "Sequence[int]"]


def fast(new: Sequence[int], old: Sequence[int]) -> float:
    """The product's: the fastest quarter of each side."""
    return paired.pair_ratio(new, old).fast


def middle(new: Sequence[int], old: Sequence[int]) -> float:
    """The middle half of the differences between neighbours in time."""
    differences = np.sort(np.log(old) - np.log(new))
    dropped = len(differences) // 4
    return float(np.mean(differences[dropped : len(differences) - dropped]))


def mean(new: Sequence[int], old: Sequence[int]) -> float:
    """All repetitions or tokens."""
    return paired.pair_ratio(new, old).mean


LEVELS: dict[str, Callable[[Sequence[int], Sequence[int]], float]] = {
    "fastest quarter of each side": fast,
    "middle half of the differences": middle,
    "mean of all": mean,
}


def add(paths: Sequence[Path]) -> None:
    """Keep the pairs of these records."""
    kept: dict[str, Any] = json.loads(RECORDED.read_text(encoding="utf-8")) if RECORDED.exists() else {"runs": []}
    for path in paths:
        run = record.read(path)
        for case in run.cases:
            if case.measured is None or case.old is None:
                raise SystemExit(f"{path} is no record of --rwkv-aa")
            pairing = Pairing(case.measured, case.old)
            pairs = {item.workload: pairing.pairs(Workload.parse(item.workload))[0] for item in case.items}
            kept["runs"].append({"machine": run.fingerprint.id, "started": run.started, "pairs": pairs})
    RECORDED.write_text(json.dumps(kept) + "\n", encoding="utf-8")


def ends(ratios: Sequence[float], slowdown: float, tolerance: float, *, trimmed: bool) -> list[tuple[str, int]]:
    """The verdicts of simulated runs, and after how many pairs."""
    random = np.random.default_rng(1)
    found = []
    for _ in range(RUNS):
        drawn = random.choice(ratios, LOOKS[-1]) * random.choice([-1, 1], LOOKS[-1]) - math.log1p(slowdown)
        found.append(_end(drawn.tolist(), tolerance, trimmed=trimmed))
    return found


def _end(drawn: list[float], tolerance: float, *, trimmed: bool) -> tuple[str, int]:
    for look in LOOKS:
        # A pair's mean is told to say nothing: its own test is the same in every row.
        pairs = [PairRatio(one, 0.0) for one in drawn[:look]]
        verdict = compare_pairs(pairs, tolerance, 2).verdict if trimmed else _plain(drawn[:look], tolerance)
        if verdict != "INCONCLUSIVE":
            return verdict, look
    return "INCONCLUSIVE", LOOKS[-1]


def _plain(drawn: list[float], tolerance: float) -> str:
    """Student's bounds on the mean of all pairs, as the product has them for few pairs."""
    kept, paired.TRIMMED_FROM = paired.TRIMMED_FROM, LOOKS[-1] + 1
    try:
        return compare_pairs([PairRatio(one, 0.0) for one in drawn], tolerance, 2).verdict
    finally:
        paired.TRIMMED_FROM = kept


def table(kept: dict[str, Any]) -> str:
    """The recorded result as markdown."""
    lines = [
        "# What A/B compares",
        "",
        f"Made by `levels.py`, {RUNS} simulated runs a row, resampled from recorded pairs of one code (synthetic:0.1b",
        "q8_0, one thread).",
        "*Apart*: standard deviation of the pairs, and in brackets the one that their median deviation would have if",
        "they were normal. *Right*: REGRESSION of slower code, PASS of unchanged code, after at most 16 and 40 pairs.",
        "",
        "| machine, run | workload | pairs | level of a side | mean of the pairs | apart "
        + "".join(f"| {_name(*each)} " for each in SLOWDOWNS)
        + "| wrong |",
        "|---|---|--:|---|---|--:|" + "--:|" * len(SLOWDOWNS) + "--:|",
    ]
    for run in kept["runs"]:
        for workload, pairs in run["pairs"].items():
            for level, of in LEVELS.items():
                ratios = [of(new, old) for new, old in pairs]
                for name, trimmed in (("trimmed", True), ("of all", False)):
                    results = [ends(ratios, *each, trimmed=trimmed) for each in SLOWDOWNS]
                    cells = [
                        f"{run['machine']}, {run['started'][:16]}",
                        workload,
                        len(pairs),
                        level,
                        name,
                        f"{np.std(ratios, ddof=1):.1%} ({stats.median_abs_deviation(ratios, scale='normal'):.1%})",
                        *map(_right, results, SLOWDOWNS),
                        _wrong(results),
                    ]
                    lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"


def _name(slowdown: float, tolerance: float) -> str:
    return f"{slowdown:.0%} slower at {tolerance:.0%}" if slowdown else f"unchanged at {tolerance:.0%}"


def _right(found: list[tuple[str, int]], asked: tuple[float, float]) -> str:
    right = "REGRESSION" if asked[0] else "PASS"
    soon, late = (sum(verdict == right and pairs <= most for verdict, pairs in found) for most in (16, LOOKS[-1]))
    return f"{soon / RUNS:.0%}, {late / RUNS:.0%}"


def _wrong(results: list[list[tuple[str, int]]]) -> str:
    wrong = [("PASS", results[0]), ("PASS", results[1]), ("REGRESSION", results[2])]
    return f"{sum(verdict == bad for bad, found in wrong for verdict, _ in found)} of {len(results) * RUNS}"


if __name__ == "__main__":
    if sys.argv[1:]:
        add([Path(each) for each in sys.argv[1:]])
    text = table(json.loads(RECORDED.read_text(encoding="utf-8")))
    (HERE / "levels.md").write_text(text, encoding="utf-8")
    print(text)
