"""The community guide's three issue templates, filled in: one file for each engine, in English or Chinese."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pytest_rwkvperf.core.errors import ReportError
from pytest_rwkvperf.reports import tool_output
from pytest_rwkvperf.reports.issue_texts import TEXTS, Texts
from pytest_rwkvperf.reports.markdown import clean, escape, table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from pytest_rwkvperf.measure.record import CaseRecord
    from pytest_rwkvperf.reports.report import Style
    from pytest_rwkvperf.stats.estimates import Rate
    from pytest_rwkvperf.store.record import Record, RecordedCase, RecordedItem

ACCEPTED = (32, 2560)
"""Layers and width of the 2.9B model, the only one whose figures the guide collects."""


@dataclass(frozen=True, slots=True)
class Template:
    """One of the guide's: the tool's name in its title and label, and how that tool shows its figures."""

    tool: str
    label: str
    performance: Callable[[Record, Sequence[RecordedCase]], str]


def _fenced(text: str) -> str:
    """Inside a fence nothing has a meaning but a longer fence."""
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
    """The guide's template; an engine that the guide does not know is shown as llama-bench would."""
    return TEMPLATES.get(backend, Template(clean(backend), clean(backend), tool_output.llama_bench_table))


@dataclass(frozen=True, slots=True)
class Issue:
    """Markdown with the title and the labels in its front matter."""

    suffix: str = ".md"

    def render(self, record: Record, style: Style) -> Mapping[str, str]:
        """A text for each engine that was measured; one engine alone needs no name in the file's.

        Raises:
            ReportError: none was.
        """
        by_engine: dict[str, list[RecordedCase]] = {}
        for case in record.cases:
            by_engine.setdefault(case.case.backend, []).append(case)
        if not any(case.measured for case in record.cases):
            raise ReportError("nothing was measured, so there is nothing to report to the guide")
        texts = TEXTS[style.language]
        found = {
            name: _issue(record, name, cases, texts)
            for name, cases in by_engine.items()
            if any(case.measured for case in cases)
        }
        return found if len(found) > 1 else {"": next(iter(found.values()))}


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
    """Title and labels; a JSON string is YAML's double-quoted one."""
    model, device = clean(measured[0].model.name), clean(measured[0].device.name)
    quants = ", ".join(dict.fromkeys(one.case.quant for one in measured))
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
    used = [one.device for one in measured if one.device.kind != "cpu"]
    names = dict.fromkeys(
        escape(f"{device.name} ({device.id}{', ' + device.detail if device.detail else ''})") for device in used
    )
    if names:
        return "\n".join(names)
    there = ", ".join(map(escape, record.fingerprint.gpus))
    return texts.gpu_unused.format(gpus=there) if there else texts.no_gpu


def _performance(record: Record, template: Template, cases: Sequence[RecordedCase], texts: Texts) -> str:
    measured = [case.measured for case in cases if case.measured]
    own = [case for case in cases if case.case.protocol == "native" and case.measured]
    parts = [
        template.performance(record, own or cases),
        (texts.measured_natively if own else texts.measured_uniformly) + "\n",
    ]
    model = measured[0].model
    if (model.layers, model.width) != ACCEPTED or model.name.startswith("synthetic:"):
        parts.insert(0, f"> {texts.other_model.format(model=escape(model.name))}\n")
    shown = replace(record, cases=tuple(cases)).told_apart()
    rows = [_row(case, item, texts) for case, item in shown.items() if item.rate]
    parts.append(f"{texts.own_figures}\n\n" + table(texts.columns, rows, right=range(3, 10)))
    failures = [
        f"- {escape(case.case.variant)}, {escape(case.case.device)}: {escape(case.failure)}"
        for case in shown.cases
        if case.failure
    ]
    if failures:
        parts.append(f"{texts.failed}\n\n" + "\n".join(failures) + "\n")
    return "\n".join(parts)


def _row(case: RecordedCase, item: RecordedItem, texts: Texts) -> list[str]:
    figures, rate = case.figures, item.rate
    between, first = item.inter_token_seconds, item.first_token_seconds
    return [
        escape(case.case.variant),
        escape(case.case.device),
        item.workload,
        f"{rate.median:.2f}" if rate else "",
        _interval(rate),
        f"{rate.processes} × {rate.samples / rate.processes:.0f}" if rate else "",  # noqa: RUF001 - times
        f"{first * 1e3:.1f} ms" if first else "",
        f"{between.p50 * 1e3:.2f} / {between.p99 * 1e3:.2f} ms" if between else "",
        f"{figures.peak_rss_bytes / 2**30:.2f} GiB" if figures else "",
        f"{figures.parity:.1e}" if figures and figures.parity is not None else "",
        item.verdict or texts.not_judged,
    ]


def _interval(rate: Rate | None) -> str:
    if rate is None or rate.high is None:
        return ""
    return f"{rate.low:.2f} - {rate.high:.2f}"


def _system(record: Record, measured: Sequence[CaseRecord], texts: Texts) -> str:
    system, first = record.system, measured[0]
    versions = {name: version for one in measured for name, version in one.versions.items()}
    facts = {
        texts.operating_system: system.operating_system,
        texts.memory: f"{system.memory_bytes / 2**30:.1f} GiB",
        **system.drivers,
        **versions,
        "Python": system.python,
        "pytest-rwkvperf": record.project_version,
        texts.model_file: ", ".join(dict.fromkeys(one.model.file_name or one.model.name for one in measured)),
        texts.settings: texts.settings_are.format(
            threads=_distinct(one.case.threads for one in measured),
            chunk=_distinct(one.case.chunk for one in measured),
            load=first.conditions.load_before,
            steal=first.conditions.steal,
        ),
    }
    return "\n".join(f"- {escape(name)}: {escape(value)}" for name, value in facts.items())


def _distinct(numbers: Iterable[int]) -> str:
    return ", ".join(dict.fromkeys(map(str, numbers)))
