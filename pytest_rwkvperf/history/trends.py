"""A workload's speed over the runs of a history, and what else changed where its level did."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_rwkvperf.core.errors import OptionError
from pytest_rwkvperf.history import changes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pytest_rwkvperf.history.changes import Change
    from pytest_rwkvperf.history.database import Point, Series

COMMIT = "commit"

_NEIGHBOURS = (0, -1, 1)
"""Runs away from a change point where a version's change may belong to it, the likeliest first: noise moves the point
by a run in one series of five (benchmarks/history)."""


@dataclass(frozen=True, slots=True)
class Difference:
    """What was another version from one run to the next; empty where there was none."""

    name: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Turn:
    """A change point with what changed at its run, or else `away` runs from it."""

    change: Change
    point: Point
    differences: tuple[Difference, ...]
    away: int


@dataclass(frozen=True, slots=True)
class Trend:
    """A series, the oldest run first, with its change points."""

    series: Series
    points: tuple[Point, ...]
    turns: tuple[Turn, ...]


def choose(found: Mapping[Series, Sequence[Point]], words: Sequence[str]) -> dict[Series, Sequence[Point]]:
    """The series whose names hold every word, in any case.

    Raises:
        OptionError: none does.
    """
    chosen = {
        series: points
        for series, points in found.items()
        if all(word.lower() in f"{series.machine} | {series.label}".lower() for word in words)
    }
    if found and not chosen:
        labels = "\n".join(sorted({f"  {series.label}" for series in found}))
        raise OptionError(f"no workload's name holds {' and '.join(map(repr, words))}; there are:\n{labels}")
    return chosen


def trend(series: Series, points: Sequence[Point], smallest: float) -> Trend:
    """A series with its change points of at least `smallest`, as a share of the speed."""
    found = changes.find([point.tokens_per_second for point in points])
    turns = [_turn(points, one) for one in found if abs(one.ratio - 1) >= smallest]
    return Trend(series, tuple(points), tuple(turns))


def _turn(points: Sequence[Point], change: Change) -> Turn:
    for away in _NEIGHBOURS:
        index = change.index + away
        if 0 < index < len(points) and (found := differences(points[index - 1], points[index])):
            return Turn(change, points[change.index], found, away)
    return Turn(change, points[change.index], (), 0)


def differences(before: Point, after: Point) -> tuple[Difference, ...]:
    """The versions that differ between two runs, the revision under test last."""
    names = sorted(before.versions.keys() | after.versions.keys())
    pairs = [(name, before.versions.get(name, ""), after.versions.get(name, "")) for name in names]
    pairs.append((COMMIT, before.commit, after.commit))
    return tuple(Difference(*pair) for pair in pairs if pair[1] != pair[2])


def describe(turn: Turn) -> list[str]:
    """A change point in words: when, by how much, and what changed there."""
    change, ratio = turn.change, turn.change.ratio
    word = "faster" if ratio > 1 else "slower"
    # As everywhere in this project: a slowdown is a share of the time.
    share = ratio - 1 if ratio > 1 else 1 / ratio - 1
    when = f"from run {change.index + 1} on ({turn.point.started}, {turn.point.run[:8]})"
    first = f"{when}: {share:.1%} {word}, {change.before:.1f} -> {change.after:.1f} tokens/s"
    if not turn.differences:
        return [first, "  no version that the records know changed there"]
    where = {0: "", -1: " (one run before)", 1: " (one run after)"}[turn.away]
    return [
        first,
        *(f"  {one.name} {one.before or 'none'} -> {one.after or 'none'}{where}" for one in turn.differences),
    ]
