"""Trends as an HTML page that needs no network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_rwkvperf.history import trends
from pytest_rwkvperf.reports.html import render_page

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_rwkvperf.history.trends import Trend


def render(trend_list: Sequence[Trend], shown: str) -> str:
    """Render the page; `shown` is the history's address without secrets.

    Raises:
        OptionError: Jinja2 or another package for pages is not installed.
    """
    described = [(i, trend, [trends.describe(turn) for turn in trend.turns]) for i, trend in enumerate(trend_list)]
    data = {"data": [_chart(trend) for trend in trend_list]}
    return render_page("trend.html.jinja", "trend.js", data, {"trends": described, "shown": shown})


def _chart(trend: Trend) -> dict[str, Any]:
    """The data of a trend's chart: points, and levels between the change points."""
    starts = [0, *(turn.change.index for turn in trend.turns)]
    ends = [*starts[1:], len(trend.points)]
    first = trend.turns[0].change.before if trend.turns else None
    rates = [first, *(turn.change.after for turn in trend.turns)]
    return {
        "points": [
            {
                "run": number,
                "id": point.run[:8],
                "started": point.started,
                "commit": point.commit[:8],
                "rate": point.tokens_per_second,
                "low": point.low,
                "high": point.high,
            }
            for number, point in enumerate(trend.points, 1)
        ],
        "levels": [
            {"from": start + 0.5, "to": end + 0.5, "rate": rate}
            for start, end, rate in zip(starts, ends, rates, strict=True)
            if rate is not None
        ],
        "turns": [{"at": turn.change.index + 0.5} for turn in trend.turns],
    }
