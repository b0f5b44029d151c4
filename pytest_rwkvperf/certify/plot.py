"""The certificate as a picture: how often the gate called an engine slower, and how long it took."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

from pytest_rwkvperf.core.errors import OptionError

if TYPE_CHECKING:
    from pytest_rwkvperf.certify.certificate import Certificate

_WIDTH, _HEIGHT = 420, 220

_GREY, _BLUE, _ORANGE = "#808890", "#2f81c7", "#d9730d"
_CONFIG = {  # readable on light and dark pages
    "background": None,
    "font": "sans-serif",
    "axis": {"labelColor": _GREY, "titleColor": _GREY, "gridColor": _GREY, "gridOpacity": 0.25, "domainColor": _GREY},
    "title": {"color": _GREY},
    "view": {"stroke": None},
}
_PLANTED = {"field": "planted", "type": "quantitative", "title": "planted slowdown", "axis": {"format": ".0%"}}
"""The horizontal axis of both parts of the picture."""


def check_installed() -> None:
    """Check that Vega-Lite is installed, before an hour is spent on trials.

    Raises:
        OptionError: it is not.
    """
    if importlib.util.find_spec("vl_convert") is None:
        raise OptionError('the plot needs Vega-Lite, which is not installed: pip install "vl-convert-python>=1.9"')


def svg(certificate: Certificate) -> str:
    """The picture as SVG; certificates have at least one trial."""
    import vl_convert

    picture = {"hconcat": [_called_slower(certificate), _times(certificate)], "config": _CONFIG}
    text: str = vl_convert.vegalite_to_svg(picture)
    return text + "\n"


def _called_slower(certificate: Certificate) -> dict[str, Any]:
    """The share of workloads called slower, with its bounds, and the tolerance as a line."""
    called = [
        {
            "planted": shown.slowdown,
            "share": shown.workloads_called.count / max(1, shown.workloads_called.total),
            "low": shown.workloads_called.low,
            "high": shown.workloads_called.high,
        }
        for shown in certificate.shown
    ]
    y = {
        "type": "quantitative",
        "title": "workloads called slower",
        "axis": {"format": ".0%"},
        "scale": {"domain": [0, 1]},
    }
    tolerance = {
        "data": {"values": [{"at": certificate.tolerance}]},
        "mark": {"type": "rule", "strokeDash": [4, 4], "color": _ORANGE},
        "encoding": {"x": {"field": "at", "type": "quantitative"}},
    }
    bounds = {
        "data": {"values": called},
        "mark": {"type": "rule", "color": _BLUE, "strokeWidth": 2},
        "encoding": {"x": _PLANTED, "y": {**y, "field": "low"}, "y2": {"field": "high"}},
    }
    shares = {
        "data": {"values": called},
        "mark": {"type": "line", "color": _BLUE, "point": {"color": _BLUE, "size": 60}},
        "encoding": {"x": _PLANTED, "y": {**y, "field": "share"}},
    }
    return {"width": _WIDTH, "height": _HEIGHT, "layer": [tolerance, bounds, shares]}


def _times(certificate: Certificate) -> dict[str, Any]:
    """How long each run took."""
    return {
        "width": _WIDTH,
        "height": _HEIGHT,
        "data": {"values": [{"planted": trial.slowdown, "seconds": trial.seconds} for trial in certificate.trials]},
        "mark": {"type": "point", "filled": True, "opacity": 0.6, "color": _BLUE},
        "encoding": {
            "x": _PLANTED,
            "y": {"field": "seconds", "type": "quantitative", "title": "seconds of a run"},
        },
    }
