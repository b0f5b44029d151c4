"""Formats of programs that watch speeds over time: Bencher, github-action-benchmark, Apache Otava, Prometheus.

Each series is named after what was measured and by which convention (`core/convention.py`), so that none of these
programs continues a series with figures that were measured in another way. All speeds are tokens per second: more is
better. `store/exchanged.py` reads them back.
"""

from __future__ import annotations

import csv
import io
import json
from datetime import datetime
from typing import TYPE_CHECKING, Any

from pytest_rwkvperf.core.engine_settings import in_words
from pytest_rwkvperf.core.errors import ReportError
from pytest_rwkvperf.core.text import csv_cell
from pytest_rwkvperf.reports.figures import item_name
from pytest_rwkvperf.reports.markdown_text import clean
from pytest_rwkvperf.reports.report import Report
from pytest_rwkvperf.stats.estimates import remark
from pytest_rwkvperf.store import speeds
from pytest_rwkvperf.store.exchanged import MEASURE, METRIC, OTAVA_COLUMNS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from pytest_rwkvperf.core.cases import Case
    from pytest_rwkvperf.reports.report import Language
    from pytest_rwkvperf.store.record import Record, RecordedItem
    from pytest_rwkvperf.store.speeds import Speed

_LOWER, _UPPER = (f"{side} bound of the 95 % interval." for side in ("Lower", "Upper"))


def bencher(record: Record) -> str:
    """Bencher Metric Format: bencher.dev/docs/reference/bencher-metric-format."""
    return _json({clean(speed.name): {MEASURE: _bounded(speed)} for speed in speeds.of_record(record)})


def _bounded(speed: Speed) -> dict[str, float]:
    given = {"value": speed.value, "lower_value": speed.low, "upper_value": speed.high}
    return {name: _rounded(value) for name, value in given.items() if value is not None}


def github_benchmark(record: Record) -> str:
    """The entries of github-action-benchmark with `tool: customBiggerIsBetter`; `range` is half the interval."""
    return _json([_entry(record, speed) for speed in speeds.of_record(record)])


def _entry(record: Record, speed: Speed) -> dict[str, str | float]:
    entry: dict[str, str | float] = {"name": clean(speed.name), "unit": speed.unit, "value": _rounded(speed.value)}
    facts = [f"convention: {speed.convention.id}", f"record: {record.id}"]
    if speed.low is not None and speed.high is not None:
        half = (speed.high - speed.low) / 2
        entry["range"] = f"± {half:.6g}{remark(half / speed.value)}"
        facts.append(f"95 % interval: {_rounded(speed.low)} to {_rounded(speed.high)}")
    return entry | {"extra": "\n".join(facts)}


def otava(record: Record) -> str:
    """Apache Otava's CSV: a header and one row. Rows of runs with the same workloads can follow one header."""
    taken = speeds.of_record(record)
    facts = (record.started, record.commit, record.id)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*OTAVA_COLUMNS, *(csv_cell(clean(speed.name)) for speed in taken)])
    writer.writerow([*(csv_cell(clean(fact)) for fact in facts), *(_rounded(speed.value) for speed in taken)])
    return out.getvalue()


def openmetrics(record: Record) -> str:
    """OpenMetrics text (openmetrics.io), for Prometheus. Its values have no times, as the textfile collector wants."""
    taken = [(_labels(case, item, speed), speed) for case, item, speed in speeds.of_items(record)]
    started = _seconds(record.started)
    lines = [
        *_family(METRIC, "Tokens per second.", [(labels, speed.value) for labels, speed in taken]),
        *_family(f"{METRIC}_low", _LOWER, [(labels, speed.low) for labels, speed in taken]),
        *_family(f"{METRIC}_high", _UPPER, [(labels, speed.high) for labels, speed in taken]),
        *_family("rwkvperf_run_started_timestamp_seconds", "When the run started.", [("", started)]),
    ]
    run = {"id": record.id, "commit": record.commit, "version": record.project_version}
    lines += ["# TYPE rwkvperf_run info", "# HELP rwkvperf_run The run.", f"rwkvperf_run_info{_label_set(run)} 1"]
    return "\n".join([*lines, "# EOF"]) + "\n"


def _family(name: str, told: str, values: Iterable[tuple[str, float | None]]) -> list[str]:
    head = [f"# TYPE {name} gauge", f"# HELP {name} {told}"]
    return head + [f"{name}{labels} {value:.10g}" for labels, value in values if value is not None]


def _labels(case: Case, item: RecordedItem, speed: Speed) -> str:
    own = {"settings": in_words(case.settings)} if case.settings else {}
    return _label_set(
        {
            "backend": case.backend,
            "model": case.model,
            "quant": case.quant,
            "device": case.device,
            "threads": str(case.threads),
            **own,
            "workload": item.workload,
            "convention": speed.convention.id,
        }
    )


def _label_set(labels: Mapping[str, str]) -> str:
    escaped = {name: clean(value).replace("\\", r"\\").replace('"', r"\"") for name, value in labels.items()}
    return "{" + ",".join(f'{name}="{value}"' for name, value in escaped.items()) + "}"


def _seconds(started: str) -> float | None:
    try:
        return datetime.fromisoformat(started.replace("Z", "+00:00")).timestamp()
    except ValueError:  # a record's text may be any
        return None


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")


def _json(value: Any) -> str:  # noqa: ANN401 - JSON
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


class Exchange(Report):
    """One of these formats, with all engines in one file."""

    def __init__(self, text: Callable[[Record], str]) -> None:
        self._text = text

    def render(self, record: Record, _language: Language, /) -> Mapping[str, str]:
        """One series for each workload with a speed that may count.

        Raises:
            ReportError: there is none.
        """
        if not speeds.of_record(record):
            raise ReportError("no speed may count, so there is nothing for another program; choose --format json")
        return {"": self._text(record)}

    def advice(self, record: Record, _language: Language, _file_of: Callable[[str], str], /) -> list[str]:
        """Which speeds are left out, because a program that watches them would take them at their word."""
        left_out = [item_name(case, item) for case, item in record.items() if item.rate and not speeds.counts(item)]
        return [f"Left out, as no verdict may rest on them: {', '.join(left_out)}."] if left_out else []


BENCHER = Exchange(bencher)
GITHUB_BENCHMARK = Exchange(github_benchmark)
OTAVA = Exchange(otava)
OPENMETRICS = Exchange(openmetrics)
