"""A workload's speed over the runs of a history, and the versions that changed at its change points."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_rwkvperf.core.errors import OptionError
from pytest_rwkvperf.history import changes
from pytest_rwkvperf.stats.slowdown import percent_slower, slowdown

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pytest_rwkvperf.history.changes import Change
    from pytest_rwkvperf.history.database import Point, Series

COMMIT = "commit"

_OFFSETS = (0, -1, 1)
"""Runs from a change point at which to look for a changed version, in this order: noise moves the point by a run in one
series of five (benchmarks/history)."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A version that changed from one run to the next; empty if the run has none."""

    name: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class ChangePoint:
    """A change, the first run at its new level, and the versions that changed there or `offset` runs from there."""

    change: Change
    first: Point
    differences: tuple[Difference, ...]
    offset: int


@dataclass(frozen=True, slots=True)
class Trend:
    """A series, the oldest run first, with its change points."""

    series: Series
    points: tuple[Point, ...]
    change_points: tuple[ChangePoint, ...]


def choose(points_by_series: Mapping[Series, Sequence[Point]], words: Sequence[str]) -> dict[Series, Sequence[Point]]:
    """The series whose names contain every word, ignoring case.

    Raises:
        OptionError: there are series, and none of that name.
    """
    chosen = {
        series: points
        for series, points in points_by_series.items()
        if all(word.lower() in f"{series.machine} | {series.label}".lower() for word in words)
    }
    if points_by_series and not chosen:
        labels = "\n".join(sorted({f"  {series.label}" for series in points_by_series}))
        raise OptionError(f"no workload's name contains {' and '.join(map(repr, words))}; there are:\n{labels}")
    return chosen


def trend(series: Series, points: Sequence[Point], smallest: float) -> Trend:
    """A series with its change points of at least `smallest`, a slowdown or speed-up as verdicts have it."""
    every = changes.find([point.tokens_per_second for point in points])
    change_points = tuple(_change_point(points, change) for change in every if abs(slowdown(change.ratio)) >= smallest)
    return Trend(series, tuple(points), change_points)


def _change_point(points: Sequence[Point], change: Change) -> ChangePoint:
    for offset in _OFFSETS:
        index = change.index + offset
        if 0 < index < len(points) and (found := differences(points[index - 1], points[index])):
            return ChangePoint(change, points[change.index], found, offset)
    return ChangePoint(change, points[change.index], (), 0)


def differences(before: Point, after: Point) -> tuple[Difference, ...]:
    """The versions that differ between two runs, the revision under test last."""
    names = sorted(before.versions.keys() | after.versions.keys())
    pairs = [(name, before.versions.get(name, ""), after.versions.get(name, "")) for name in names]
    pairs.append((COMMIT, before.commit, after.commit))
    return tuple(Difference(*pair) for pair in pairs if pair[1] != pair[2])


def describe(found: ChangePoint) -> list[str]:
    """A change point in words: when, by how much, and what changed there."""
    change = found.change
    when = f"from run {change.index + 1} on ({found.first.started}, {found.first.run[:8]})"
    first = f"{when}: {percent_slower(change.ratio)}, {change.before:.1f} -> {change.after:.1f} tokens/s"
    if not found.differences:
        return [first, "  no recorded version changed there"]
    where = {0: "", -1: " (one run before)", 1: " (one run after)"}[found.offset]
    return [
        first,
        *(f"  {item.name} {item.before or 'none'} -> {item.after or 'none'}{where}" for item in found.differences),
    ]
