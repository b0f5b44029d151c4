"""Trends as an HTML page that needs no network."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_rwkvperf.history import trends
from pytest_rwkvperf.reports import pages, plots, wording
from pytest_rwkvperf.reports.plots import Dots

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pytest_rwkvperf.history.trends import Trend


def render(trend_list: Sequence[Trend], shown: str) -> str:
    """Render the page; `shown` is the history's address without secrets.

    Raises:
        OptionError: Jinja2 is not installed.
    """
    # What changed last comes first.
    ordered = sorted(trend_list, key=_runs_since_change)
    described = [(trend, [trends.describe(each) for each in trend.change_points], _plot(trend)) for trend in ordered]
    return pages.render("trend.html.jinja", {"trends": described, "headline": _headline(ordered), "shown": shown})


def _headline(ordered: Sequence[Trend]) -> str:
    """Whether speeds changed, and the newest change, of the first trend."""
    if not ordered:
        return "No run is stored"
    workloads = wording.count(len(ordered), "workload")
    if not (changed := sum(bool(trend.change_points) for trend in ordered)):
        return f"No change of speed in {workloads}"
    newest = ordered[0].change_points[-1]
    return (
        f"{changed} of {workloads} changed speed; the newest change is {wording.change(newest.change.ratio)} "
        f"since {newest.first.started[:10]}"
    )


def _runs_since_change(trend: Trend) -> int:
    return len(trend.points) - (trend.change_points[-1].change.index if trend.change_points else -1)


def _plot(trend: Trend) -> Dots:
    """A trend's points with their intervals, and the levels between the change points."""
    speeds = [point.tokens_per_second for point in trend.points]
    # An interval that says nothing would squeeze all points into a line.
    reach = 2 * (max(speeds) - min(speeds)) or max(speeds)
    bounds = [bound for point in trend.points for bound in (point.low, point.high) if bound is not None]
    near = [bound for bound in bounds if min(speeds) - reach <= bound <= max(speeds) + reach]
    scale = plots.around([*speeds, *near])
    points = list(enumerate(trend.points))
    paths = {
        "change-point": "".join(f"M{each.change.index - 0.5:g} 0V{plots.HEIGHT:g}" for each in trend.change_points),
        "level": "".join(
            f"M{start - 0.5:g} {plots.height(scale, rate)}H{end - 0.5:g}" for start, end, rate in _levels(trend)
        ),
        "whisker": "".join(
            f"M{index} {plots.height(scale, point.low)}V{plots.height(scale, point.high)}"
            for index, point in points
            if point.high is not None
        ),
        "trend": "".join(plots.dot(index, plots.height(scale, point.tokens_per_second)) for index, point in points),
    }
    return Dots(len(points), plots.HEIGHT, scale, paths)


def _levels(trend: Trend) -> Iterator[tuple[int, int, float]]:
    """The first run of each level, the first one after it, and its speed; one that is unknown is left out."""
    starts = [0, *(each.change.index for each in trend.change_points)]
    ends = [*starts[1:], len(trend.points)]
    first = trend.change_points[0].change.before if trend.change_points else None
    rates = [first, *(each.change.after for each in trend.change_points)]
    return ((start, end, rate) for start, end, rate in zip(starts, ends, rates, strict=True) if rate is not None)
