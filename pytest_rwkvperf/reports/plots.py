"""The positions of marks in a page's plots, in percent. Templates draw them as SVG, which needs no script and prints.

Every plot has the same marks: a dot is the figure, the line through it its interval, a tick what it is compared with,
an arrow something beyond the end of the scale. A pale bar from zero says that the scale begins there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MAX_RATIO = 2.0
"""The scale of ratios ends there at the latest: on a longer one, a tolerance of 5 % is narrower than a dot."""

_CHANGES = (3.0, 2.0, 1.0, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01)
"""Slowdowns that may be labelled; the largest ones that fit first."""

_LABEL_WIDTH = 13.0
"""Percent of a plot's width that a label takes on a phone."""

HEIGHT = 100.0
"""The height of a plot of points in its own units; a point takes one unit of its width."""


@dataclass(frozen=True, slots=True)
class Scale:
    """A line from `low` to `high`, linear or logarithmic; positions are in percent of its length."""

    low: float
    high: float
    logarithmic: bool = False

    def at(self, value: float) -> float:
        """Where a value lies; at the nearer end if it is beyond it."""
        low, high = self._place(self.low), self._place(self.high)
        share = (self._place(value) - low) / (high - low) if high > low else 0.5
        return round(100 * min(1.0, max(0.0, share)), 2)

    def side(self, value: float) -> str:
        """`below` or `above` for a value beyond an end, else empty."""
        return "below" if value < self.low else "above" if value > self.high else ""

    def _place(self, value: float) -> float:
        return (math.log(value) if value > 0 else -math.inf) if self.logarithmic else value


@dataclass(frozen=True, slots=True)
class Mark:
    """One figure of a plot: positions in percent, and which of them lie beyond an end of the scale."""

    at: float
    beyond: str
    low: float | None = None
    high: float | None = None
    low_beyond: bool = False
    high_beyond: bool = False
    reference: float | None = None


def mark(
    scale: Scale,
    value: float,
    low: float | None = None,
    high: float | None = None,
    reference: float | None = None,
) -> Mark:
    """A figure on a scale. Without both bounds there is no interval; an infinite one ends in an arrow."""
    placed = Mark(scale.at(value), scale.side(value), reference=None if reference is None else scale.at(reference))
    if low is None or high is None:
        return placed
    return Mark(
        placed.at,
        placed.beyond,
        low=scale.at(low),
        high=scale.at(high),
        low_beyond=scale.side(low) == "below",
        high_beyond=scale.side(high) == "above",
        reference=placed.reference,
    )


@dataclass(frozen=True, slots=True)
class Tick:
    """A label of an axis."""

    at: float
    value: float


def amounts(values: Iterable[float | None], highs: Iterable[float | None] = ()) -> Scale:
    """A scale from zero that holds all values, and upper bounds up to half beyond the largest value."""
    largest = max((value for value in values if value is not None), default=1.0)
    bounds = [min(bound, 1.5 * largest) for bound in highs if bound is not None]
    return Scale(0.0, max([largest, *bounds], default=1.0) or 1.0)


def ratios(found: Sequence[tuple[float, float, float | None]], tolerance: float) -> Scale:
    """A logarithmic scale for ratios with their bounds: at least the tolerance, as far as ratios and bounds reach."""
    near = 3 * math.log1p(tolerance)
    reach = min(math.log(MAX_RATIO), max([near, *(1.6 * abs(math.log(ratio)) for ratio, _, _ in found)]))
    limit = math.log(MAX_RATIO)
    lows = [max(-reach, math.log(low)) if low > 0 else -reach for _, low, _ in found]
    highs = [reach if high is None else min(reach, math.log(high)) for _, _, high in found]
    points = [math.log(ratio) for ratio, _, _ in found]
    start = max(-limit, 1.05 * min([-near, *lows, *points]))
    end = min(limit, 1.05 * max([near, *highs, *points]))
    return Scale(math.exp(start), math.exp(end), logarithmic=True)


def ratio_ticks(scale: Scale) -> list[Tick]:
    """Labels of a scale of ratios: the same speed, and slowdowns and speedups of round percentages."""
    ticks = [Tick(scale.at(1.0), 1.0)]
    for amount in _CHANGES:
        for ratio in (1 / (1 + amount), 1 + amount):
            place = scale.at(ratio)
            if not scale.side(ratio) and all(abs(place - tick.at) >= _LABEL_WIDTH for tick in ticks):
                ticks.append(Tick(place, ratio))
    return sorted(ticks, key=lambda tick: tick.at)


def ticks(scale: Scale, most: int = 5) -> list[Tick]:
    """At most `most` round values of a linear scale."""
    span = scale.high - scale.low
    if span <= 0:
        return [Tick(scale.at(scale.low), scale.low)]
    power = 10.0 ** math.floor(math.log10(span / most))
    steps = (power * nice for nice in (1, 2, 2.5, 5, 10, 20))
    return next(found for step in steps if len(found := _multiples(scale, step)) <= most)


def _multiples(scale: Scale, step: float) -> list[Tick]:
    """The multiples of a step that lie on a scale."""
    first, last = math.ceil(scale.low / step - 1e-9), math.floor(scale.high / step + 1e-9)
    return [Tick(scale.at(index * step), index * step) for index in range(first, last + 1)]


@dataclass(frozen=True, slots=True)
class Dots:
    """Points in order, as paths of SVG by their class: one unit of width each, `height` units from top to bottom.

    `dividers` is the path of the lines where a new process begins.
    """

    width: int
    height: float
    scale: Scale
    paths: dict[str, str]
    dividers: str = ""


def dots(values: Sequence[float | None], groups: Sequence[str], starts: Sequence[int] = ()) -> Dots:
    """Points from left to right on a scale that holds them all; None leaves a gap.

    The points of a group, which is a class of CSS, are one path. `starts` are indices at which a new process begins.
    """
    scale = around([value for value in values if value is not None])
    paths: dict[str, list[str]] = {}
    for index, (value, group) in enumerate(zip(values, groups, strict=True)):
        if value is not None:
            paths.setdefault(group, []).append(dot(index, height(scale, value)))
    joined = {group: "".join(path) for group, path in paths.items()}
    dividers = "".join(f"M{start - 0.5:g} 0v{HEIGHT:g}" for start in starts)
    return Dots(len(values), HEIGHT, scale, joined, dividers)


@dataclass(frozen=True, slots=True)
class Curve:
    """Points on two logarithmic scales as paths of SVG by their class, in a square of HEIGHT units.

    A path's coordinates are in its units from the top left. Ticks are in percent of the plot's width and height.
    """

    paths: dict[str, str]
    across: Sequence[Tick]
    up: Sequence[Tick]


def curve(
    points: Sequence[tuple[float, float]],
    limit: Sequence[tuple[float, float]],
    intervals: Sequence[tuple[float, float, float]] = (),
) -> Curve:
    """Measured points (`samples`), and a line that bounds them (`roof`); both as x and y, all above zero.

    `intervals` are an x with both bounds; they do not widen the scale beyond half and twice the points.
    """
    across = Scale(min(x for x, _ in points) / 1.2, max(x for x, _ in points) * 1.2, logarithmic=True)
    heights = [y for _, y in (*points, *limit)]
    least, most = min(heights) / 2, max(heights) * 2
    intervals = [(x, max(low, least), min(high, most)) for x, low, high in intervals]
    heights += [bound for _, *bounds in intervals for bound in bounds]
    up = Scale(min(heights) / 1.3, max(heights) * 1.3, logarithmic=True)

    def place(x: float, y: float) -> tuple[float, str]:
        return across.at(x), height(up, y)

    paths = {
        "whisker": "".join(f"M{across.at(x):g} {height(up, low)}V{height(up, high)}" for x, low, high in intervals)
    }
    if limit:
        paths["roof"] = "M" + "L".join(f"{left:g} {top}" for left, top in (place(x, y) for x, y in limit))
    paths["samples"] = "".join(dot(*place(x, y)) for x, y in points)
    sizes = [Tick(across.at(x), x) for x, _ in points]
    return Curve(paths, _apart(sizes), _decades(up))


def _apart(ticks: Sequence[Tick]) -> list[Tick]:
    """The ticks from the last one on that do not overlap."""
    kept: list[Tick] = []
    for tick in reversed(ticks):
        if not kept or kept[-1].at - tick.at >= _LABEL_WIDTH / 2:
            kept.append(tick)
    return kept[::-1]


def _decades(scale: Scale) -> list[Tick]:
    """1, 2 and 5 times powers of ten on a logarithmic scale; of a long one the powers alone, of a short one more."""
    powers = range(math.floor(math.log10(scale.low)), math.ceil(math.log10(scale.high)) + 1)
    fine = [nice * 10.0**power for power in powers for nice in (1, 2, 5)]
    coarse = [10.0**power for power in powers]
    steps = fine if scale.high / scale.low < 100 else coarse  # noqa: PLR2004 - two decades
    found = [Tick(scale.at(value), value) for value in steps if not scale.side(value)]
    return found if len(found) > 2 else ticks(scale, 4)  # noqa: PLR2004 - fewer are no scale


def around(values: Sequence[float]) -> Scale:
    """A scale that holds all values with a margin."""
    low, high = min(values), max(values)
    margin = (high - low or high or 1.0) * 0.06
    return Scale(low - margin, high + margin)


def height(scale: Scale, value: float) -> str:
    """Where a value lies in a plot of points, from the top."""
    return f"{HEIGHT - scale.at(value):.1f}"


def dot(place: float, top: str) -> str:
    """A line of no length: with round ends it is a dot, of the same size on every screen."""
    return f"M{place:g} {top}h0"
