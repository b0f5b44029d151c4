"""The record as one page that needs no network: `--rwkv-report=report.html`.

Jinja2 writes every figure as text and tables, so the page reads without scripts and by any reader of screens; Vega-Lite
draws the charts from the same figures. Strings of a record are never markup and never code: templates escape, data
stands in JSON, and the page's own policy lets no script run but the two that are hashed into it.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_rwkvperf.core.cases import Workload
from pytest_rwkvperf.core.errors import OptionError
from pytest_rwkvperf.oracle.bounds import bound_for

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pytest_rwkvperf.machine.roofline import Ceilings
    from pytest_rwkvperf.measure.record import CaseRecord
    from pytest_rwkvperf.reports.report import Style
    from pytest_rwkvperf.store.record import Record, RecordedCase, RecordedItem

FOLDER = Path(__file__).with_name("page")

VERDICTS = ("REGRESSION", "INVALID", "INCONCLUSIVE", "NO-BASELINE", "IMPROVEMENT", "PASS")
"""The order in which a reader wants them."""

_MOST_SAMPLES = 200_000
"""Of all charts of samples together, about 4 MB. Of a longer record every n-th is drawn, and the page says so."""


@dataclass(frozen=True, slots=True)
class Html:
    """One HTML file."""

    suffix: str = ".html"

    def check(self) -> None:
        """Ask for what the page is made with, before anything is measured.

        Raises:
            OptionError: it is not installed.
        """
        check_installed()

    def render(self, record: Record, style: Style) -> Mapping[str, str]:  # noqa: ARG002 - the Protocol's signature
        """The whole page."""
        record = record.told_apart()
        total = sum(len(run.samples.get(item.workload, ())) for case, item in record.items() for run in _runs(case))
        step = max(1, -(-total // _MOST_SAMPLES))
        items = [_item(index, case, item) for index, (case, item) in enumerate(record.items())]
        samples = [_samples(case, item, step) for case, item in record.items()]
        context = {
            "record": record,
            "items": items,
            "step": step,
            "verdicts": _counted(record),
            "cases": list(_cases(record)),
            "gpu": any(one[name] is not None for one in items for name in ("joules", "busy", "device", "gpu_mib")),
            "notes": _gpu_notes(record),
            "ceilings": _ceilings(record),
        }
        data = {"data": {"items": items}, "samples-data": samples}
        return {"": render_page("report.html.jinja", "report.js", data, context)}


def check_installed() -> None:
    """Ask for what pages are made with.

    Raises:
        OptionError: it is not installed.
    """
    if importlib.util.find_spec("jinja2") is None or importlib.util.find_spec("vl_convert") is None:
        raise OptionError(
            "HTML pages are made with Jinja2 and Vega-Lite, which are not installed: "
            'pip install "pytest-rwkvperf[html]"'
        )


def render_page(template: str, script: str, data: Mapping[str, Any], context: Mapping[str, Any]) -> str:
    """A page of this folder's templates with a script of its own and the charts' library.

    Raises:
        OptionError: Jinja2 or vl-convert is not installed.
    """
    check_installed()
    import jinja2

    loader = jinja2.FileSystemLoader(FOLDER)
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters.update(FILTERS)
    own = (FOLDER / "charts.js").read_text(encoding="utf-8") + (FOLDER / script).read_text(encoding="utf-8")
    # The library's top level is full of short names.
    scripts = [_library(), f"(() => {{\n{own}\n}})();"]
    return environment.get_template(template).render(
        **context,
        style=(FOLDER / "page.css").read_text(encoding="utf-8"),
        scripts=scripts,
        policy=_policy(scripts),
        texts={name: _json(one) for name, one in data.items()},
    )


@functools.cache
def _library() -> str:
    """The charts' library as one script: the same for every page, and a second's work to bundle."""
    import vl_convert

    bundle: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    return bundle


def _json(value: object) -> str:
    """JSON for a script element, which ends at the first "</script": an escape says it otherwise."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def _policy(scripts: list[str]) -> str:
    """A Content-Security-Policy: nothing is fetched from anywhere, and no script runs but these."""
    hashes = (base64.b64encode(hashlib.sha256(one.encode()).digest()).decode() for one in scripts)
    allowed = " ".join(f"'sha256-{one}'" for one in hashes)
    return f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src {allowed}"


def _runs(case: RecordedCase) -> list[Any]:
    return [run for side in (case.measured, case.old) if side for run in side.runs]


def _item(index: int, case: RecordedCase, item: RecordedItem) -> dict[str, Any]:
    """A workload's figures as the record has them; the filters and charts read these names."""
    figure, ratio, of_case = item.rate, item.comparison, case.figures
    return {
        "id": index,
        "backend": case.case.backend,
        "quant": case.case.quant,
        "case": label(case),
        "label": f"{label(case)} {item.workload}",
        "workload": item.workload,
        "kind": Workload.parse(item.workload).kind,
        "verdict": item.verdict or "none",
        "rate": figure.median if figure else None,
        "low": figure.low if figure else None,
        "high": figure.high if figure else None,
        "ratio": ratio.ratio if ratio else None,
        "ratio_low": ratio.low if ratio else None,
        "ratio_high": ratio.high if ratio else None,
        "tolerance": item.tolerance,
        "rss": of_case.peak_rss_bytes / 2**20 if of_case else None,
        "parity": of_case.parity if of_case else None,
        "bound": _bound(case),
        "share": item.roofline_share,
        "joules": item.joules_per_token,
        "net_joules": item.net_joules_per_token,
        "busy": item.utilisation,
        "device": item.device_share,
        "gpu_mib": of_case.peak_device_bytes / 2**20 if of_case and of_case.peak_device_bytes is not None else None,
        "file_mib": of_case.file_bytes / 2**20 if of_case else None,
    }


def label(case: RecordedCase) -> str:
    """A case in a chart: what tells it from others of the run."""
    one = case.case
    return f"{one.backend} {one.variant} {one.device}"


def _samples(case: RecordedCase, item: RecordedItem, step: int) -> dict[str, list[Any]]:
    """Columns with a row for each sample, in order of time. Probes are in milliseconds, -1 where there is none."""
    tokens = Workload.parse(item.workload).tokens
    rows = sorted(
        row
        for side, record in (("this run", case.measured), ("old", case.old))
        if record
        for row in _rows(record, item.workload, tokens, side)
    )[::step]
    first = rows[0][0] if rows else 0.0
    names = ("at", "rate", "process", "side", "probe")
    columns = [list(column) for column in zip(*rows, strict=True)] if rows else [[] for _ in names]
    columns[0] = [round(at - first, 3) for at in columns[0]]
    return dict(zip(names, columns, strict=True))


def _rows(record: CaseRecord, workload: str, tokens: int, side: str) -> Iterator[tuple[Any, ...]]:
    for process, run in enumerate(record.runs, 1):
        probes = run.probes.get(workload, ())
        for index, sample in enumerate(run.samples.get(workload, ())):
            probe = round(probes[index] / 1e6, 4) if index < len(probes) else -1
            yield sample.started, float(f"{tokens / sample.nanoseconds * 1e9:.5g}"), process, side, probe


def _counted(record: Record) -> dict[str, int]:
    """How many workloads got each verdict."""
    given = [item.verdict or "none" for _, item in record.items()]
    return {verdict: given.count(verdict) for verdict in (*VERDICTS, "none") if verdict in given}


def _cases(record: Record) -> Iterator[tuple[str, RecordedCase, float]]:
    """Each case with its label and the bound of its parity."""
    for case in record.cases:
        yield label(case), case, _bound(case)


def _bound(case: RecordedCase) -> float:
    """What the relative L2 of a right answer may be."""
    device = case.measured.device if case.measured else None
    return bound_for(case.case.backend, case.case.quant, device).relative_l2


def _gpu_notes(record: Record) -> list[tuple[str, str]]:
    """What the driver told beside the samples that a reader should know, with the case's label."""
    watched = ((label(case), case.measured.gpu) for case in record.cases if case.measured and case.measured.gpu)
    return [(name, note) for name, gpu in watched for note in gpu.notes()]


def _ceilings(record: Record) -> list[tuple[str, Ceilings]]:
    """What each device was seen to reach, the best of its cases: each of them timed it anew."""
    best: dict[str, Ceilings] = {}
    for case in record.cases:
        if case.measured and (timed := case.measured.ceilings):
            name = case.measured.device.name
            if name not in best or timed.copy_bytes_per_second > best[name].copy_bytes_per_second:
                best[name] = timed
    return list(best.items())


def speed(value: float | None) -> str:
    """Tokens per second with four digits, as in the terminal."""
    if value is None:
        return ""
    digits = 0 if value >= 1000 else 1 if value >= 100 else 2  # noqa: PLR2004 - four digits
    return f"{value:.{digits}f}"


def _number(value: float | None, form: str, scale: float = 1.0) -> str:
    return "" if value is None else format(value * scale, form)


_WIDE = 100.0
"""A ratio beyond it says that nothing is known."""

FILTERS = {
    "speed": speed,
    "ratio": lambda value: _number(value, ".3f" if value is None or value < _WIDE else ".1e"),
    "percent": lambda value: _number(value, ".1%") if value is None or value < _WIDE else "> 100 times",
    "milliseconds": lambda value: _number(value, ".2f", 1e3),
    "seconds": lambda value: _number(value, ".2f"),
    "mebibytes": lambda value: _number(value, ".0f", 1 / 2**20),
    "small": lambda value: _number(value, ".1e"),
    "joules": lambda value: _number(value, ".3g"),
    "tera": lambda value: _number(value, ".3g", 1e-12),
}

REPORT = Html()
