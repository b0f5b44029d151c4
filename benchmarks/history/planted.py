"""Whether a planted 8 % step is found, in a real history, at the right run and nowhere else.

A case measured by a real run (`measured.json`) is stored 36 times, each time re-timed as a whole by the noise of a
session and from run 25 on by the step with a new version of its engine: through the same code that `--rwkv-history`
runs, into SQLite, and out of it as `rwkvperf history trend` reads it. Over many seeds, with the step and without.

    python benchmarks/history/planted.py
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections import Counter
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from series import NOISES, planted  # type: ignore[import-not-found]  # noqa: E402 - the folder is no package

from pytest_rwkvperf.core.cases import Workload  # noqa: E402 - after the path
from pytest_rwkvperf.history import address, spool, trends  # noqa: E402
from pytest_rwkvperf.history.database import Database  # noqa: E402
from pytest_rwkvperf.measure.measurement import Measurement  # noqa: E402
from pytest_rwkvperf.store import record as records  # noqa: E402

if TYPE_CHECKING:
    from pytest_rwkvperf.history.trends import Trend
    from pytest_rwkvperf.store.record import Record

RUNS, AT = 36, 24
SMALLEST = 0.01


def timed(record: Record, number: int, factor: float, engine: str) -> Record:
    """The record as another run's, every sample's time multiplied."""
    (case,) = record.cases
    assert case.measured is not None  # noqa: S101 - the file has it
    runs = tuple(
        replace(
            run,
            samples={
                name: tuple(replace(one, nanoseconds=round(factor * one.nanoseconds)) for one in taken)
                for name, taken in run.samples.items()
            },
        )
        for run in case.measured.runs
    )
    versions = {**case.measured.versions, "llama.cpp": engine}
    measured = replace(case.measured, runs=runs, versions=versions)
    items = tuple(
        replace(item, rate=Measurement(measured, Workload.parse(item.workload)).tokens_per_second)
        for item in case.items
    )
    started = datetime(2026, 1, 1, tzinfo=timezone.utc) + timedelta(days=number)
    return replace(
        record,
        id=f"{number:032x}",
        started=started.strftime("%Y-%m-%dT%H:%M:%SZ"),
        cases=(replace(case, measured=measured, items=items),),
    )


def found(record: Record, logs: Any, folder: Path, *, stepped: bool) -> list[Trend]:  # noqa: ANN401 - an array
    """The trends of a new history with one run for each figure."""
    place = address.parse("history.db", folder)
    for number, log in enumerate(logs):
        engine = "b2" if stepped and number >= AT else "b1"
        spool.store(timed(record, number, float(np.exp(-log)), engine), place)
    return [trends.trend(series, points, SMALLEST) for series, points in Database(place).series().items()]


def verdict(one: Trend, *, stepped: bool) -> str:
    """What became of a trend."""
    places = [each.change.index for each in one.change_points]
    if not stepped:
        return "false alarm" if places else "quiet"
    if not places:
        return "missed"
    if len(places) > 1:
        return "and another"
    named = [difference.name for difference in one.change_points[0].differences] == ["llama.cpp"]
    away = abs(places[0] - AT)
    return {0: "at its run", 1: "one run off"}.get(away, "elsewhere") + (", named" if named else "")


def main() -> None:
    """Run them all, print and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=25)
    options = parser.parse_args()
    record = records.read(HERE / "measured.json")
    rows = []
    for noise, draw in NOISES.items():
        counts: Counter[str] = Counter()
        for seed in range(options.seeds):
            logs = draw(np.random.default_rng(seed), RUNS)
            for stepped in (False, True):
                with tempfile.TemporaryDirectory(prefix="rwkvperf-history-") as name:
                    os.environ["XDG_DATA_HOME"] = name
                    series = planted(logs, AT) if stepped else logs
                    ends = found(record, series, Path(name), stepped=stepped)
                    counts.update(verdict(one, stepped=stepped) for one in ends)
        rows.append({"noise": noise, **counts})
        print(rows[-1], flush=True)
    facts = {"runs": RUNS, "seeds": options.seeds, "rows": rows}
    (HERE / "planted.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    (HERE / "planted.md").write_text(table(facts), encoding="utf-8")


def table(facts: dict[str, Any]) -> str:
    """The recorded result as markdown."""
    columns = ("quiet", "false alarm", "at its run, named", "one run off, named", "elsewhere", "and another", "missed")
    lines = [
        "# A planted 8 % step in a history",
        "",
        f"{facts['seeds']} seeds, each a history of {facts['runs']} runs without a step and one with a step",
        "from run 25 on, where the engine's version changes too. *Named*: with that version's change, and no other.",
        "",
        "| noise of a run | " + " | ".join(columns) + " |",
        "|---|" + "--:|" * len(columns),
    ]
    for one in facts["rows"]:
        seen = {name: value for name, value in one.items() if name != "noise"}
        other = sum(value for name, value in seen.items() if name.startswith("elsewhere"))
        cells = [other if name == "elsewhere" else seen.get(name, 0) for name in columns]
        lines.append(f"| {one['noise']} | " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
