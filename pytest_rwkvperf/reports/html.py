"""The record as one HTML page that needs no network: `--rwkv-report=report.html`.

Jinja2 writes every figure as text and tables, so the page is readable without scripts and by screen readers. Vega-Lite
draws charts of the same figures. No string of a record becomes markup or code: templates escape, data is embedded as
JSON, and the page's Content-Security-Policy allows only the two scripts whose hashes it lists.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import importlib.util
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_rwkvperf.core.cases import Workload
from pytest_rwkvperf.core.errors import OptionError
from pytest_rwkvperf.oracle.bounds import bound_for
from pytest_rwkvperf.reports import figures
from pytest_rwkvperf.reports.report import Report

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pytest_rwkvperf.machine.roofline import Ceilings
    from pytest_rwkvperf.measure.record import CaseRecord, ProcessRun
    from pytest_rwkvperf.reports.report import Language
    from pytest_rwkvperf.store.record import Record, RecordedCase, RecordedItem

FOLDER = Path(__file__).with_name("page")

VERDICTS = ("REGRESSION", "INVALID", "INCONCLUSIVE", "NO-BASELINE", "IMPROVEMENT", "PASS")
"""In the order of interest to a reader."""

_MAX_SAMPLES = 200_000
"""Of all charts of samples together, about 4 MB. Of a longer record every n-th is drawn, and the page says so."""


class Html(Report):
    """One HTML file."""

    def check(self) -> None:
        """Check that the page's libraries are installed.

        Raises:
            OptionError: one is missing.
        """
        check_installed()

    def render(self, record: Record, _language: Language, /) -> Mapping[str, str]:
        """The whole page."""
        record = record.disambiguated()
        total = sum(len(run.samples.get(item.workload, ())) for case, item in record.items() for run in _runs(case))
        step = max(1, -(-total // _MAX_SAMPLES))
        items = [_item(index, case, item) for index, (case, item) in enumerate(record.items())]
        samples = [_samples(case, item, step) for case, item in record.items()]
        on_gpu = ("joules", "busy", "device", "gpu_mib")
        context = {
            "record": record,
            "items": items,
            "step": step,
            "verdicts": _counts(record),
            "cases": [_case(case) for case in record.cases],
            "gpu": any(item[name] is not None for item in items for name in on_gpu),
            "notes": _gpu_notes(record),
            "work": figures.work_notes(record),
            "ceilings": _ceilings(record),
            "steps": figures.STEPS,
        }
        data = {"data": {"items": items}, "samples-data": samples}
        return {"": render_page("report.html.jinja", "report.js", data, context)}


def check_installed() -> None:
    """Check that the libraries of HTML pages are installed.

    Raises:
        OptionError: one is missing.
    """
    if importlib.util.find_spec("jinja2") is None or importlib.util.find_spec("vl_convert") is None:
        raise OptionError(
            'HTML pages need Jinja2 and Vega-Lite, which are not installed: pip install "pytest-rwkvperf[html]"'
        )


def render_page(template: str, script: str, data: Mapping[str, Any], context: Mapping[str, Any]) -> str:
    """Render a template of `page/` with its script and the chart library; `data` is embedded as JSON by element id.

    Raises:
        OptionError: Jinja2 or vl-convert is not installed.
    """
    check_installed()
    import jinja2

    loader = jinja2.FileSystemLoader(FOLDER)
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.globals.update(FORMS)
    own = (FOLDER / "charts.js").read_text(encoding="utf-8") + (FOLDER / script).read_text(encoding="utf-8")
    # In a function of its own: the library's top level has many short names.
    scripts = [_library(), f"(() => {{\n{own}\n}})();"]
    return environment.get_template(template).render(
        **context,
        style=(FOLDER / "page.css").read_text(encoding="utf-8"),
        scripts=scripts,
        policy=_policy(scripts),
        texts={name: _json(value) for name, value in data.items()},
    )


@functools.cache
def _library() -> str:
    """The chart library as one script. Bundling takes a second and gives the same for every page."""
    import vl_convert

    bundle: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    return bundle


def _json(value: object) -> str:
    """JSON for a script element. `<` is escaped because the element would end at a "</script" inside a string."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def _policy(scripts: list[str]) -> str:
    """A Content-Security-Policy that fetches nothing and allows only these scripts."""
    hashes = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in hashes)
    return f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src {allowed}"


def _runs(case: RecordedCase) -> list[ProcessRun]:
    settled = (case.settled.new, case.settled.old) if case.settled else ()
    return [run for side in (case.measured, case.old, *settled) if side for run in side.runs]


def _item(index: int, case: RecordedCase, item: RecordedItem) -> dict[str, Any]:
    """A workload's figures under the names that the charts and filters read."""
    rate, of_case = item.typical_rate, case.figures
    deciding = item.comparison.deciding if item.comparison else None
    return {
        "id": index,
        "backend": case.case.backend,
        "quant": case.case.quant,
        "case": label(case),
        "label": f"{label(case)} {item.workload}",
        "workload": item.workload,
        "kind": Workload.parse(item.workload).kind,
        "verdict": item.verdict or "none",
        "rate": rate.median if rate else None,
        "low": rate.low if rate else None,
        "high": rate.high if rate else None,
        "ratio": deciding.ratio if deciding else None,
        "ratio_low": deciding.low if deciding else None,
        "ratio_high": deciding.high if deciding else None,
        "tolerance": item.tolerance,
        "rss": _mebibytes(of_case.peak_rss_bytes if of_case else None),
        "parity": of_case.parity if of_case else None,
        "bound": _bound(case),
        "share": item.roofline_share,
        "joules": item.joules_per_token,
        "net_joules": item.net_joules_per_token,
        "busy": item.utilisation,
        "device": item.device_share,
        "gpu_mib": _mebibytes(of_case.peak_device_bytes if of_case else None),
        "file_mib": _mebibytes(of_case.file_bytes if of_case else None),
    }


def _mebibytes(count: int | None) -> float | None:
    return None if count is None else count / 2**20


def label(case: RecordedCase) -> str:
    """The name of a case in charts and sentences."""
    return " ".join(figures.names(case).values())


def _samples(case: RecordedCase, item: RecordedItem, step: int) -> dict[str, list[Any]]:
    """Columns with one entry per sample, in order of time. A probe is in milliseconds, -1 where there is none."""
    tokens = Workload.parse(item.workload).tokens
    rows = sorted(
        row
        for side, record in zip(("this run", "old"), case.sides(item), strict=True)
        if record
        for row in _rows(record, item.workload, tokens, side)
    )[::step]
    names = ("at", "rate", "process", "side", "probe")
    columns = {name: [row[index] for row in rows] for index, name in enumerate(names)}
    return {**columns, "at": [round(at - rows[0][0], 3) for at in columns["at"]]}


def _rows(record: CaseRecord, workload: str, tokens: int, side: str) -> Iterator[tuple[Any, ...]]:
    for process, run in enumerate(record.runs, 1):
        probes = run.probes.get(workload, ())
        for index, sample in enumerate(run.samples.get(workload, ())):
            probe = round(probes[index] / 1e6, 4) if index < len(probes) else -1
            yield sample.started, float(f"{tokens / sample.nanoseconds * 1e9:.5g}"), process, side, probe


def _counts(record: Record) -> dict[str, int]:
    """The number of workloads with each verdict."""
    given = [item.verdict or "none" for _, item in record.items()]
    return {verdict: given.count(verdict) for verdict in (*VERDICTS, "none") if verdict in given}


def _case(case: RecordedCase) -> dict[str, Any]:
    """A row of the table of cases; latencies are those of the longest workloads."""
    prefill, generation = figures.longest(case, "prefill"), figures.longest(case, "generation")
    return {
        "label": label(case),
        "recorded": case,
        "bound": _bound(case),
        "first_token": prefill.first_token_seconds if prefill else None,
        "inter_token": generation.inter_token_seconds if generation else None,
    }


def _bound(case: RecordedCase) -> float:
    """The largest relative L2 of correct logits."""
    device = case.measured.device if case.measured else None
    return bound_for(case.case.backend, case.case.quant, device).relative_l2


def _gpu_notes(record: Record) -> list[tuple[str, str]]:
    """Warnings from the GPU's driver, each with the label of the case."""
    observed = ((label(case), case.measured.gpu) for case in record.cases if case.measured and case.measured.gpu)
    return [(name, note) for name, gpu in observed for note in gpu.notes()]


def _ceilings(record: Record) -> list[tuple[str, Ceilings]]:
    """Each device's measured ceilings; every case measured them, and the highest ones count."""
    best: dict[str, Ceilings] = {}
    for case in record.cases:
        if case.measured and (ceilings := case.measured.ceilings):
            name = case.measured.device.name
            if name not in best or ceilings.copy_bytes_per_second > best[name].copy_bytes_per_second:
                best[name] = ceilings
    return list(best.items())


FORMS = {
    "plain": lambda value: "" if value is None else str(value),
    "speed": figures.speed,
    "ratio": figures.ratio,
    "percent": figures.percent,
    "parity": figures.parity,
    "milliseconds": lambda value: figures.number(value, ".2f", scale=1e3),
    "seconds": lambda value: figures.number(value, ".2f"),
    "mebibytes": lambda value: figures.number(value, ".0f", scale=1 / 2**20),
    "joules": lambda value: figures.number(value, ".3g"),
    "tera": lambda value: figures.number(value, ".3g", scale=1e-12),
}
"""How templates write figures, None as an empty text. Units are in the headings."""

REPORT = Html()
