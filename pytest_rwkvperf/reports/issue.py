"""The community guide's three issue templates, filled in from a record: one file per engine, in English or Chinese."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pytest_rwkvperf.core.errors import ReportError
from pytest_rwkvperf.reports import figures, tool_output
from pytest_rwkvperf.reports.issue_texts import TEXTS, Texts
from pytest_rwkvperf.reports.markdown_text import clean, escape, table
from pytest_rwkvperf.reports.report import Report

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from pytest_rwkvperf.measure.record import CaseRecord
    from pytest_rwkvperf.reports.report import Language
    from pytest_rwkvperf.store.record import Record, RecordedCase, RecordedItem

ACCEPTED = (32, 2560)
"""Layers and width of the 2.9B model, the only one whose figures the guide collects."""


@dataclass(frozen=True, slots=True)
class Template:
    """One of the guide's templates: the tool's name in title and label, and the tool's output with our figures."""

    tool: str
    label: str
    performance: Callable[[Record, Sequence[RecordedCase]], str]


def _fenced(text: str) -> str:
    """A fenced block; three backticks in the text, which would end it, become quotation marks."""
    return f"```text\n{text.replace('```', chr(0x2018) * 3)}```\n"


WEB_RWKV = Template("web-rwkv", "web-rwkv", lambda _record, cases: tool_output.web_rwkv_table(cases))
RWKV_PIP = Template("rwkv-pip", "rwkv-pip", lambda _record, cases: _fenced(tool_output.chat_lines(cases)))
LLAMA_CPP = Template("llama.cpp", "llama.cpp", tool_output.llama_bench_table)
TEMPLATES = {
    "web-rwkv": WEB_RWKV,
    "web-rwkv-bench": WEB_RWKV,
    "rwkv": RWKV_PIP,
    "llama-cpp": LLAMA_CPP,
    "llama-bench": LLAMA_CPP,
}


def template_of(backend: str) -> Template:
    """The guide's template for an engine. An engine unknown to the guide gets llama-bench's table."""
    return TEMPLATES.get(backend, Template(clean(backend), clean(backend), tool_output.llama_bench_table))


class Issue(Report):
    """Markdown with the title and the labels in its front matter."""

    def render(self, record: Record, language: Language, /) -> Mapping[str, str]:
        """One text per engine that was measured; for a single engine under the empty name.

        Raises:
            ReportError: no engine was measured.
        """
        by_engine: dict[str, list[RecordedCase]] = {}
        for case in record.cases:
            by_engine.setdefault(case.case.backend, []).append(case)
        issues = {
            name: _issue(record, name, cases, TEXTS[language])
            for name, cases in by_engine.items()
            if any(case.measured for case in cases)
        }
        if not issues:
            raise ReportError("nothing was measured, so there is nothing to report to the guide")
        return issues if len(issues) > 1 else {"": next(iter(issues.values()))}


REPORT = Issue()


def _issue(record: Record, backend: str, cases: Sequence[RecordedCase], texts: Texts) -> str:
    template = template_of(backend)
    measured = [case.measured for case in cases if case.measured]
    sections = {
        texts.cpu: _cpu(record, texts),
        texts.gpu: _gpu(record, measured, texts),
        texts.performance: _performance(record, template, cases, texts),
        texts.system: _system(record, measured, texts),
        texts.screenshot: texts.no_screenshot.format(id=escape(record.id), started=escape(record.started)),
    }
    body = "\n\n".join(f"### {name}\n\n{text.rstrip()}" for name, text in sections.items())
    return f"{_front_matter(template, measured)}\n{body}\n"


def _front_matter(template: Template, measured: Sequence[CaseRecord]) -> str:
    """Title and labels. JSON strings are valid YAML."""
    model, device = clean(measured[0].model.name), clean(measured[0].device.name)
    quants = ", ".join(dict.fromkeys(record.case.quant for record in measured))
    title = f"[{template.tool} report] {model} {quants} | {device}"
    lines = [
        f"title: {json.dumps(title, ensure_ascii=False)}",
        f"labels: {json.dumps(['performance', template.label])}",
    ]
    return "---\n" + "\n".join(lines) + "\n---\n"


def _cpu(record: Record, texts: Texts) -> str:
    machine = record.fingerprint
    return f"{escape(machine.cpu)} ({texts.cores.format(cores=machine.cores, physical=machine.physical_cores)})"


def _gpu(record: Record, measured: Sequence[CaseRecord], texts: Texts) -> str:
    devices = [case.device for case in measured if case.device.kind != "cpu"]
    names = dict.fromkeys(
        escape(f"{device.name} ({device.id}{', ' + device.detail if device.detail else ''})") for device in devices
    )
    if names:
        return "\n".join(names)
    installed = ", ".join(map(escape, record.fingerprint.gpus))
    return texts.gpu_unused.format(gpus=installed) if installed else texts.no_gpu


def _performance(record: Record, template: Template, cases: Sequence[RecordedCase], texts: Texts) -> str:
    measured = [case.measured for case in cases if case.measured]
    native = [case for case in cases if case.case.protocol == "native" and case.measured]
    parts = [
        template.performance(record, native or cases),
        (texts.measured_natively if native else texts.measured_uniformly) + "\n",
    ]
    model = measured[0].model
    if (model.layers, model.width) != ACCEPTED or model.name.startswith("synthetic:"):
        parts.insert(0, f"> {texts.other_model.format(model=escape(model.name))}\n")
    shown = replace(record, cases=tuple(cases)).disambiguated()
    rows = [_row(case, item) for case, item in shown.items() if item.rate]
    parts.append(f"{texts.own_figures}\n\n" + table(texts.columns, rows, right=range(3, 10)))
    failures = [
        f"- {escape(case.case.variant)}, {escape(case.case.device)}: {escape(case.failure)}"
        for case in shown.cases
        if case.failure
    ]
    if failures:
        parts.append(f"{texts.failed}\n\n" + "\n".join(failures) + "\n")
    return "\n".join(parts)


def _row(case: RecordedCase, item: RecordedItem) -> list[str]:
    rate, between, of_case = item.typical_rate, item.inter_token_seconds, case.figures
    assert rate is not None  # noqa: S101 - the caller has asked
    cells = [
        case.case.variant,
        case.case.device,
        item.workload,
        f"{rate.median:.2f}",
        "" if rate.high is None else f"{rate.low:.2f} - {rate.high:.2f}",
        f"{rate.processes} × {rate.samples / rate.processes:.0f}",  # noqa: RUF001 - times
        figures.milliseconds(item.first_token_seconds, 1),
        f"{between.p50 * 1e3:.2f} / {between.p99 * 1e3:.2f} ms" if between else "",
        figures.number(of_case.peak_rss_bytes if of_case else None, ".2f", " GiB", 1 / 2**30),
        figures.parity(of_case.parity if of_case else None),
        item.verdict or "",
    ]
    return list(map(escape, cells))


def _system(record: Record, measured: Sequence[CaseRecord], texts: Texts) -> str:
    system, conditions = record.system, measured[0].conditions
    versions = {name: version for case in measured for name, version in case.versions.items()}
    facts = {
        texts.operating_system: system.operating_system,
        texts.memory: f"{system.memory_bytes / 2**30:.1f} GiB",
        **system.drivers,
        **versions,
        "Python": system.python,
        "pytest-rwkvperf": record.project_version,
        texts.model_file: _distinct(case.model.file_name or case.model.name for case in measured),
        texts.settings: texts.settings_are.format(
            threads=_distinct(case.case.threads for case in measured),
            chunk=_distinct(case.case.chunk for case in measured),
            load=conditions.load_before,
            steal=conditions.steal,
        ),
    }
    return "\n".join(f"- {escape(name)}: {escape(value)}" for name, value in facts.items())


def _distinct(values: Iterable[object]) -> str:
    return ", ".join(dict.fromkeys(map(str, values)))
