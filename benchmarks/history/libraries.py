"""How often searches for change points call unchanged code changed, and find a planted 8 % step at its run.

This project's, the textbook PELT on means, and Apache Otava where it can be imported (it pins versions of NumPy and
SciPy that this project does not share: run this from an environment of its own with `apache-otava` and `ruptures`).

    python benchmarks/history/libraries.py
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1])]

from series import NOISES, planted  # type: ignore[import-not-found]  # noqa: E402 - the folder is no package

from pytest_rwkvperf.history import changes  # noqa: E402 - after the path

if TYPE_CHECKING:
    from collections.abc import Callable

LENGTHS = (12, 20, 40)
AT = 5 / 8
"""Share of the runs before the step."""


def ours(rates: list[float]) -> list[int]:
    """PELT with the median's cost and levels that must last."""
    return [one.index for one in changes.find(rates)]


def textbook(rates: list[float]) -> list[int]:
    """PELT with the mean's cost and five times BIC's penalty on differences' noise."""
    import ruptures

    logs = np.log(rates)
    noise = 1.4826 * np.median(np.abs(np.diff(logs))) / math.sqrt(2)
    search = ruptures.Pelt(model="l2", min_size=3, jump=1).fit(logs.reshape(-1, 1))
    return [int(end) for end in search.predict(pen=5 * noise**2 * math.log(len(logs)))[:-1]]


def otava(rates: list[float]) -> list[int]:
    """Otava's E-divisive with its own defaults: windows of 50, p < 0.001."""
    from otava.analysis import compute_change_points  # type: ignore[import-not-found] # not installed here

    found, _ = compute_change_points(rates, window_len=50, max_pvalue=0.001, min_magnitude=0.0)
    return [int(one.index) for one in found]


def rate(search: Callable[[list[float]], list[int]], noise: str, count: int, series: int) -> dict[str, Any]:
    """Shares of so many series in which unchanged code has a change point, and a step is found."""
    source = np.random.default_rng(7)
    at = round(count * AT)
    alarms = exact = near = others = 0
    for _ in range(series):
        logs = NOISES[noise](source, count)
        unchanged = search([float(one) for one in 500 * np.exp(logs)])
        found = search([float(one) for one in 500 * np.exp(planted(logs, at))])
        alarms += bool(unchanged)
        exact += at in found
        near += any(abs(one - at) <= 1 for one in found)
        others += any(abs(one - at) > 1 for one in found)
    shares = {"alarms": alarms, "exact": exact, "within one": near, "elsewhere": others}
    return {name: value / series for name, value in shares.items()}


def main() -> None:
    """Run them all, print and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--series", type=int, default=500)
    options = parser.parse_args()
    searches: dict[str, Callable[[list[float]], list[int]]] = {"this project": ours, "PELT, means": textbook}
    versions = {"ruptures": importlib.metadata.version("ruptures")}
    try:
        versions["apache-otava"] = importlib.metadata.version("apache-otava")
        searches["Otava"] = otava
    except importlib.metadata.PackageNotFoundError:
        print("Apache Otava is not installed here: left out.")
    rows = []
    for name, search in searches.items():
        for count in LENGTHS:
            for noise in NOISES:
                rows.append(
                    {"search": name, "runs": count, "noise": noise, **rate(search, noise, count, options.series)}
                )
                print(rows[-1], flush=True)
    facts = {"series": options.series, "versions": versions, "rows": rows}
    (HERE / "libraries.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    (HERE / "libraries.md").write_text(table(facts), encoding="utf-8")


def table(facts: dict[str, Any]) -> str:
    """The recorded result as markdown."""
    used = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    lines = [
        "# Searches for change points",
        "",
        f"{facts['series']} simulated series each, an 8 % slowdown after five eighths of the runs; {used}.",
        "*False alarms*: series of unchanged code that get a change point.",
        "*Elsewhere*: series with the step that get one more than a run away from it.",
        "",
        "| search | runs | noise of a run | false alarms | at its run | within one run | elsewhere |",
        "|---|--:|---|--:|--:|--:|--:|",
    ]
    for one in facts["rows"]:
        shares = (one["alarms"], one["exact"], one["within one"], one["elsewhere"])
        cells = " | ".join(f"{share:.1%}" for share in shares)
        lines.append(f"| {one['search']} | {one['runs']} | {one['noise']} | {cells} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
