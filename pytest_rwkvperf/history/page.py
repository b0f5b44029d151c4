"""Trends as one page that needs no network, made as the report of a run is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_rwkvperf.history import trends
from pytest_rwkvperf.reports.html import render_page

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_rwkvperf.history.trends import Trend


def render(found: Sequence[Trend], shown: str) -> str:
    """The page; `shown` is the history's address without secrets.

    Raises:
        OptionError: what pages are made with is not installed.
    """
    told = [(index, one, [trends.describe(turn) for turn in one.turns]) for index, one in enumerate(found)]
    data = {"data": [_drawn(one) for one in found]}
    return render_page("trend.html.jinja", "trend.js", data, {"trends": told, "shown": shown})


def _drawn(one: Trend) -> dict[str, Any]:
    """What a trend's chart draws: points, and levels between the change points."""
    starts = [0, *(turn.change.index for turn in one.turns)]
    ends = [*starts[1:], len(one.points)]
    first = one.turns[0].change.before if one.turns else None
    rates = [first, *(turn.change.after for turn in one.turns)]
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
            for number, point in enumerate(one.points, 1)
        ],
        "levels": [
            {"from": start + 0.5, "to": end + 0.5, "rate": rate}
            for start, end, rate in zip(starts, ends, rates, strict=True)
            if rate is not None
        ],
        "turns": [{"at": turn.change.index + 0.5} for turn in one.turns],
    }
