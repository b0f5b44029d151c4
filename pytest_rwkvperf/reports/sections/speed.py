"""Speeds side by side, by workload or by kind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_rwkvperf.core.cases import Workload
from pytest_rwkvperf.reports import plots, wording
from pytest_rwkvperf.reports.sections.bars import Bar, Bars

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pytest_rwkvperf.reports.sections.shown import Shown
    from pytest_rwkvperf.stats.estimates import Rate
    from pytest_rwkvperf.store.record import RecordedItem

_MOST_BARS = 30
"""Bars that are not folded; of more, only those of the longest prefill and the longest generation are not."""


@dataclass(frozen=True, slots=True)
class Speeds:
    """Groups of bars in tokens per second, the fastest first; `folded` are those after the first few."""

    groups: Sequence[Bars]
    folded: Sequence[Bars]
    baseline: bool
    """Whether a bar has a tick for its baseline."""


def speeds(shown: Shown) -> Speeds | None:
    """The cases of each workload side by side; of a single case, its workloads of each kind."""
    several = len(shown.record.cases) > 1
    groups: dict[str, list[tuple[str, RecordedItem]]] = {}
    for case, item in shown.record.items():
        if item.typical_rate is None:
            continue
        kind = Workload.parse(item.workload).kind
        group, name = (item.workload, shown.names[case.case]) if several else (kind.capitalize(), item.workload)
        groups.setdefault(group, []).append((name, item))
    if not groups:
        return None
    bars = {title: _speed_bars(title, rows) for title, rows in groups.items()}
    baseline = any(item.baseline for rows in groups.values() for _, item in rows)
    first = _first_groups(groups)
    folded = [group for title, group in bars.items() if title not in first]
    return Speeds([bars[title] for title in first], folded, baseline)


def _first_groups(groups: Mapping[str, Sequence[object]]) -> list[str]:
    """The titles of the groups that are not folded."""
    if sum(map(len, groups.values())) <= _MOST_BARS or not all(map(Workload.is_name, groups)):
        return [*groups]
    longest = {workload.kind: str(workload) for workload in sorted(map(Workload.parse, groups))}
    return [title for title in groups if title in longest.values()]


def _speed_bars(title: str, rows: Iterable[tuple[str, RecordedItem]]) -> Bars:
    found = [(name, rate, _before(item, rate)) for name, item in rows if (rate := item.typical_rate)]
    found.sort(key=lambda row: -row[1].median)
    ends = [before for _, _, before in found if before is not None]
    scale = plots.amounts([*(rate.median for _, rate, _ in found), *ends], [rate.high for _, rate, _ in found])
    bars = [
        Bar(
            name,
            rate.median,
            plots.mark(
                scale,
                rate.median,
                rate.low if rate.high is not None else None,
                rate.high,
                before,
            ),
            wording.plus_minus(rate),
        )
        for name, rate, before in found
    ]
    return Bars(title, bars, plots.ticks(scale))


def _before(item: RecordedItem, rate: Rate) -> float | None:
    """The baseline beside a speed of the medians, which need not be the statistic that was compared."""
    if item.comparison:
        return rate.median / item.comparison.deciding.ratio
    return item.baseline.median if item.baseline else None
