"""Draw the documentation's plots into docs/images from recorded results, with Vega-Lite as SVG.

python tools/docs_plots.py
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
IMAGES = ROOT / "docs" / "images"
WIDTH = 620

# Readable on light and dark pages.
_GREY = "#808890"
_CONFIG = {
    "background": None,
    "font": "sans-serif",
    "axis": {"labelColor": _GREY, "titleColor": _GREY, "gridColor": _GREY, "gridOpacity": 0.25, "domainColor": _GREY},
    "legend": {"labelColor": _GREY, "titleColor": _GREY, "orient": "top"},
    "header": {"labelColor": _GREY, "titleColor": _GREY},
    "view": {"stroke": None},
    "range": {"category": ["#2f81c7", "#d9730d", "#1a9c7b", "#b5489f", "#8a6d3b", "#d14b4b"]},
}


def recorded(name: str) -> Any:  # noqa: ANN401 - JSON
    """A recorded result."""
    return json.loads((ROOT / "benchmarks" / name).read_text(encoding="utf-8"))


def processes() -> dict[str, Any]:
    """Each sample of a real case, by process, with its probe."""
    (case,) = recorded("history/measured.json")["cases"]
    rows: list[dict[str, Any]] = []
    first = min(run["samples"]["tg16"][0]["started"] for run in case["measured"]["runs"])
    for number, run in enumerate(case["measured"]["runs"], 1):
        for sample, probe in zip(run["samples"]["tg16"], run["probes"]["tg16"], strict=True):
            at, milliseconds = sample["started"] - first, sample["nanoseconds"] / 1e6
            rows += [
                {"at": at, "ms": milliseconds, "process": number, "what": "16 tokens"},
                {"at": at, "ms": probe / 1e6, "process": number, "what": "probe"},
            ]
    y = {"field": "ms", "type": "quantitative", "title": "ms", "scale": {"zero": False}}
    return {
        "data": {"values": rows},
        "mark": {"type": "point", "filled": True, "size": 60},
        "width": WIDTH,
        "height": 130,
        "encoding": {
            "row": {"field": "what", "type": "nominal", "title": None},
            "x": {"field": "at", "type": "quantitative", "title": "seconds since the first sample"},
            "y": y,
            "color": {"field": "process", "type": "nominal"},
        },
        "resolve": {"scale": {"y": "independent"}},
    }


def reruns() -> dict[str, Any]:
    """Ten sessions of unchanged code against one baseline, on a shared machine."""
    facts = recorded("gate/reruns.json")
    rows = [
        {"run": number, "ratio": item["ratio"], "what": item["item"]}
        for number, run in enumerate(facts["unchanged"], 1)
        for item in run["items"]
        if item["ratio"]
    ]
    margins = [{"at": 1 / 1.05}, {"at": 1.05}]
    y = {"type": "quantitative", "title": "new ÷ old tokens per second", "scale": {"type": "log", "domain": [0.7, 1.4]}}
    return {
        "width": WIDTH,
        "height": 240,
        "layer": [
            {
                "data": {"values": margins},
                "mark": {"type": "rule", "strokeDash": [4, 4], "color": _GREY},
                "encoding": {"y": {**y, "field": "at"}},
            },
            {
                "data": {"values": rows},
                "mark": {"type": "point", "filled": True, "size": 80},
                "encoding": {
                    "x": {
                        "field": "run",
                        "type": "ordinal",
                        "title": "rerun of unchanged code",
                        "axis": {"labelAngle": 0},
                    },
                    "y": {**y, "field": "ratio"},
                    "color": {"field": "what", "type": "nominal", "title": None},
                },
            },
        ],
    }


def verdicts() -> dict[str, Any]:
    """The verdicts of intervals of two widths around several ratios."""
    from pytest_rwkvperf.stats.verdicts import classify

    tolerance = 0.05
    rows: list[dict[str, Any]] = []
    for percent in (-20, -12, -8, -4, 0, 4, 8, 14):
        for reach in (0.02, 0.07):
            ratio = 1 + percent / 100
            low, high = ratio * math.exp(-reach), ratio * math.exp(reach)
            verdict = classify(low, high, tolerance)
            rows.append({"ratio": ratio, "low": low, "high": high, "verdict": verdict, "row": len(rows)})
    x = {"type": "quantitative", "title": "new ÷ old tokens per second", "scale": {"zero": False}}
    shown = {"field": "row", "type": "ordinal", "axis": None}
    margins = [{"at": 1 / (1 + tolerance)}, {"at": 1 + tolerance}]
    colour = {"field": "verdict", "type": "nominal", "title": None}
    return {
        "width": WIDTH,
        "height": 260,
        "layer": [
            {
                "data": {"values": margins},
                "mark": {"type": "rule", "strokeDash": [4, 4], "color": _GREY},
                "encoding": {"x": {**x, "field": "at"}},
            },
            {
                "data": {"values": rows},
                "layer": [
                    {
                        "mark": {"type": "rule", "strokeWidth": 3},
                        "encoding": {"x": {**x, "field": "low"}, "x2": {"field": "high"}, "y": shown, "color": colour},
                    },
                    {
                        "mark": {"type": "point", "filled": True, "size": 60},
                        "encoding": {"x": {**x, "field": "ratio"}, "y": shown, "color": colour},
                    },
                ],
            },
        ],
    }


def placement() -> dict[str, Any]:
    """Times of a prefill with two threads and with one, by the handover time between the processors."""
    rows = [
        {"handover": handover / 1e3, "ms": taken / 1e6, "threads": threads}
        for number, (handover, *times) in enumerate(recorded("verdicts/placement.json")["handover_two_one_ns"])
        if number % 5 == 0 or handover > 140_000  # noqa: PLR2004 - a fifth of the frequent ones, all rare ones
        for threads, taken in zip(("two threads", "one thread"), times, strict=True)
    ]
    return {
        "data": {"values": [row for row in rows if row["ms"] < 40 and row["handover"] < 160]},  # noqa: PLR2004 - outliers
        "mark": {"type": "point", "filled": True, "size": 14, "opacity": 0.5},
        "width": WIDTH,
        "height": 240,
        "encoding": {
            "x": {
                "field": "handover",
                "type": "quantitative",
                "title": "handover, microseconds",
                "scale": {"zero": False},
            },
            "y": {
                "field": "ms",
                "type": "quantitative",
                "title": "prefill of 256 tokens, ms",
                "scale": {"zero": False},
            },
            "color": {"field": "threads", "type": "nominal", "title": None},
        },
    }


def roc() -> dict[str, Any]:
    """Detected slowdowns by false alarms, over all limits of each rule."""
    rows = [
        {"rule": name, "alarms": alarms, "found": found, "order": order}
        for name, _, _, _, curve in recorded("verdicts/verdicts.json")["peers"]
        if name != "llama-bench compare, 5 %"  # its score is pytest-benchmark's mean
        for order, (alarms, found) in enumerate(curve)
    ]
    return {
        "data": {"values": rows},
        "mark": {"type": "line"},
        "width": WIDTH,
        "height": 320,
        "encoding": {
            "x": {
                "field": "alarms",
                "type": "quantitative",
                "title": "items of unchanged code called slower",
                "axis": {"format": ".0%"},
            },
            "y": {
                "field": "found",
                "type": "quantitative",
                "title": "items slower by 10 % found",
                "axis": {"format": ".0%"},
            },
            "order": {"field": "order"},
            "color": {"field": "rule", "type": "nominal", "title": None, "sort": None},
        },
    }


def batches() -> dict[str, Any]:
    """Speed against the number of sequences, measured and as the roofline limits it."""
    rows = []
    for each in recorded("batches/h200.json")["rows"]:
        limit = each["batch"] / max(each["least_moving"], each["least_computing"])
        rows += [
            {"sequences": each["batch"], "rate": each["rate"], "what": "measured"},
            {"sequences": each["batch"], "rate": limit, "what": "limit by the roofline"},
        ]
    logarithmic = {"type": "log", "base": 2}
    return {
        "data": {"values": rows},
        "mark": {"type": "line", "point": True},
        "width": WIDTH,
        "height": 280,
        "encoding": {
            "x": {"field": "sequences", "type": "quantitative", "title": "sequences at once", "scale": logarithmic},
            "y": {
                "field": "rate",
                "type": "quantitative",
                "title": "tokens per second of all sequences",
                "scale": {"type": "log"},
            },
            "color": {"field": "what", "type": "nominal", "title": None},
        },
    }


PLOTS = {
    "batches": batches,
    "processes": processes,
    "reruns": reruns,
    "verdicts": verdicts,
    "placement": placement,
    "roc": roc,
}


def main() -> None:
    """Draw them all."""
    import vl_convert

    IMAGES.mkdir(exist_ok=True)
    for name, plot in PLOTS.items():
        svg = vl_convert.vegalite_to_svg({**plot(), "config": _CONFIG})
        (IMAGES / f"{name}.svg").write_text(svg + "\n", encoding="utf-8")
        print(f"docs/images/{name}.svg: {len(svg):,} bytes")


if __name__ == "__main__":
    main()
