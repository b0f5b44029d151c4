"""The community guide's three issue templates, filled in from a record: one text for each engine.

The text is what stands in the issue. Title and labels, which GitHub keeps apart, are printed with the command that
posts it and in the link that opens the template filled in.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from pytest_rwkvperf.core.engine_settings import in_words
from pytest_rwkvperf.core.errors import ReportError
from pytest_rwkvperf.reports import figures, guide, tool_output
from pytest_rwkvperf.reports.issue_link import Draft, link
from pytest_rwkvperf.reports.issue_texts import TEXTS, Texts
from pytest_rwkvperf.reports.markdown_text import clean, escape, table
from pytest_rwkvperf.reports.report import Report

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from pytest_rwkvperf.measure.record import CaseRecord
    from pytest_rwkvperf.reports.report import Language
    from pytest_rwkvperf.stats.estimates import Rate
    from pytest_rwkvperf.store.record import Record, RecordedCase, RecordedItem

_TITLE = 256
"""Characters of a title that GitHub takes."""


def _fenced(text: str) -> str:
    """A fenced block; three backticks in the text, which would end it, become quotation marks."""
    return f"```text\n{text.replace('```', chr(0x2018) * 3)}```\n"


def _web_rwkv(_record: Record, cases: Sequence[RecordedCase]) -> str:
    return tool_output.web_rwkv_table(cases)


def _rwkv_pip(_record: Record, cases: Sequence[RecordedCase]) -> str:
    return _fenced(tool_output.chat_lines(cases))


@dataclass(frozen=True, slots=True)
class Form:
    """How an engine is reported: the guide's template, and the output of the template's tool with our figures."""

    template: guide.Template
    performance: Callable[[Record, Sequence[RecordedCase]], str]


_WEB_RWKV = Form(guide.WEB_RWKV, _web_rwkv)
_LLAMA_CPP = Form(guide.LLAMA_CPP, tool_output.llama_bench_table)
FORMS = {
    "web-rwkv": _WEB_RWKV,
    "web-rwkv-bench": _WEB_RWKV,
    "rwkv": Form(guide.RWKV_PIP, _rwkv_pip),
    "llama-cpp": _LLAMA_CPP,
    "llama-bench": _LLAMA_CPP,
}


def form_of(backend: str) -> Form:
    """How an engine is reported. An engine unknown to the guide gets llama-bench's table under its own name."""
    return FORMS.get(backend, Form(guide.Template(clean(backend)), tool_output.llama_bench_table))


class Issue(Report):
    """Markdown to paste, or for `gh issue create --body-file`."""

    def render(self, record: Record, language: Language, /) -> Mapping[str, str]:
        """One text per engine that was measured; for a single engine under the empty name.

        Raises:
            ReportError: no engine was measured.
        """
        return {part: issue.body() for part, issue in _issues(record, language).items()}

    def advice(self, record: Record, language: Language, file_of: Callable[[str], str], /) -> list[str]:
        """For each engine the command that posts its text."""
        issues = _issues(record, language)
        others = dict.fromkeys(issue.model for issue in issues.values() if not issue.accepted)
        lines = [f"The guide takes figures of RWKV7-G1 2.9B alone, not of {model}." for model in others]
        files = {part: file_of(part) for part in issues}
        return lines + [
            f"To post {'it' if file == '-' else file}: {issues[part].command(file)}" for part, file in files.items()
        ]

    def links(self, record: Record, language: Language, /) -> list[str]:
        """For each engine the link that opens the guide's template filled in."""
        return [line for issue in _issues(record, language).values() for line in issue.link_lines()]


REPORT = Issue()


def _issues(record: Record, language: Language) -> dict[str, _Issue]:
    by_engine: dict[str, list[RecordedCase]] = {}
    for case in record.cases:
        by_engine.setdefault(case.case.backend, []).append(case)
    issues = {
        name: _Issue(record, form_of(name), tuple(cases), TEXTS[language])
        for name, cases in by_engine.items()
        if any(case.measured for case in cases)
    }
    if not issues:
        raise ReportError("nothing was measured, so there is nothing to report to the guide")
    return issues if len(issues) > 1 else {"": next(iter(issues.values()))}


@dataclass(frozen=True)
class _Issue:
    """One engine's issue."""

    record: Record
    form: Form
    cases: tuple[RecordedCase, ...]
    texts: Texts

    @cached_property
    def measured(self) -> tuple[CaseRecord, ...]:
        return tuple(case.measured for case in self.cases if case.measured)

    @property
    def model(self) -> str:
        return clean(self.measured[0].model.name)

    @property
    def accepted(self) -> bool:
        """Whether the guide takes figures of this model."""
        model = self.measured[0].model
        return (model.layers, model.width) == guide.ACCEPTED and not model.name.startswith("synthetic:")

    @property
    def title(self) -> str:
        quants = ", ".join(dict.fromkeys(record.case.quant for record in self.measured))
        title = f"{self.form.template.title}{self.model} {quants} | {clean(self.measured[0].device.name)}"
        return title if len(title) <= _TITLE else f"{title[: _TITLE - 1]}…"

    def body(self, *, own_table: bool = True, system: bool = True, note: str = "") -> str:
        """The text, whole or without some parts, below a note that says so."""
        record, texts = self.record, self.texts
        sections = {
            guide.CPU: _cpu(record, texts),
            guide.GPU: _gpu(record, self.measured, texts),
            guide.PERFORMANCE: self._performance(own_table=own_table),
            guide.SYSTEM: _system(record, self.measured, texts, brief=not system),
            guide.SCREENSHOT: texts.no_screenshot.format(id=escape(record.id), started=escape(record.started)),
        }
        parts = [f"## {name}\n\n{text.rstrip()}" for name, text in sections.items()]
        return "\n\n".join([f"> {note}", *parts] if note else parts) + "\n"

    def command(self, file: str) -> str:
        """The command that posts the text in a file; `-` is standard input."""
        labels = (part for label in self.form.template.labels for part in ("--label", label))
        words = ["gh", "issue", "create", "--repo", guide.REPOSITORY, "--title", self.title, *labels]
        return shlex.join([*words, "--body-file", file])

    def link_lines(self) -> list[str]:
        """The link that opens the template filled in, and what is missing there."""
        template = self.form.template
        if not template.file:
            return [f"The guide has no template for {template.tool}."]
        made = link(template, self.title, self._drafts())
        missing = [f"The link leaves out {made.without}: paste the text instead where that matters."]
        return [f"To open {template.file} filled in: {made.address}", *(missing if made.without else [])]

    def _drafts(self) -> list[Draft]:
        """The whole text, then shorter and shorter ones, which say what they leave out."""
        texts, drafts, left_out = self.texts, [Draft(self.body())], ""
        for part in (texts.own_table, texts.system_details, texts.last_lines):
            left_out = f"{left_out}, {part}" if left_out else part
            note = texts.left_out.format(parts=left_out)
            body = self.body(own_table=False, system=part == texts.own_table, note=note)
            drafts.append(Draft(body, left_out))
        return drafts

    def _performance(self, *, own_table: bool) -> str:
        texts = self.texts
        native = [case for case in self.cases if case.case.protocol == "native" and case.measured]
        parts = [
            self.form.performance(self.record, native or self.cases),
            (texts.measured_natively if native else texts.measured_uniformly) + "\n",
        ]
        if not self.accepted:
            parts.insert(0, f"> {texts.other_model.format(model=escape(self.model))}\n")
        shown = replace(self.record, cases=self.cases).disambiguated()
        if own_table:
            parts.append(f"{texts.own_figures}\n\n{_own_table(shown, texts)}")
        failures = [
            f"- {escape(case.case.variant)}, {escape(case.case.device)}: {escape(case.failure)}"
            for case in shown.cases
            if case.failure
        ]
        if failures:
            parts.append(f"{texts.failed}\n\n" + "\n".join(failures) + "\n")
        return "\n".join(parts)


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


def _own_table(shown: Record, texts: Texts) -> str:
    """This project's figures; the last column, of verdicts, only where something was compared."""
    rows = [_row(case, item) for case, item in shown.items() if item.rate]
    columns = texts.columns if any(row[-1] for row in rows) else texts.columns[:-1]
    return table(columns, [row[: len(columns)] for row in rows], right=range(3, 10))


def _row(case: RecordedCase, item: RecordedItem) -> list[str]:
    rate, between, of_case = item.typical_rate, item.inter_token_seconds, case.figures
    assert rate is not None  # noqa: S101 - the caller has asked
    cells = [
        case.case.variant,
        case.case.device,
        item.workload,
        f"{rate.median:.2f}",
        _interval(rate),
        f"{rate.processes} × {rate.samples / rate.processes:.0f}",  # noqa: RUF001 - times
        figures.milliseconds(item.first_token_seconds),
        f"{between.p50 * 1e3:.2f} / {between.p99 * 1e3:.2f} ms" if between else "",
        figures.number(of_case.peak_rss_bytes if of_case else None, ".2f", " GiB", 1 / 2**30),
        figures.parity(of_case.parity if of_case else None),
        "" if item.verdict in (None, "NO-BASELINE") else item.verdict,
    ]
    return list(map(escape, cells))


def _interval(rate: Rate) -> str:
    if rate.high is None:
        return ""
    return f"{rate.low:.2f} - {rate.high:.2f}{rate.remark}"


def _system(record: Record, measured: Sequence[CaseRecord], texts: Texts, *, brief: bool) -> str:
    system, conditions = record.system, measured[0].conditions
    versions = {name: version for case in measured for name, version in case.versions.items()}
    facts = {texts.operating_system: system.operating_system, **system.drivers, **versions}
    details = {
        texts.memory: f"{system.memory_bytes / 2**30:.1f} GiB",
        "Python": system.python,
        "pytest-rwkvperf": record.project_version,
        texts.model_file: _distinct(case.model.file_name or case.model.name for case in measured),
        texts.settings: texts.settings_are.format(
            own="".join(f", {words}" for case in measured if (words := in_words(case.case.settings))),
            threads=_distinct(case.case.threads for case in measured),
            chunk=_distinct(case.case.chunk for case in measured),
            load=conditions.load_before,
            steal=conditions.steal,
        ),
    }
    shown = facts if brief else facts | details
    return "\n".join(f"- {escape(name)}: {escape(value)}" for name, value in shown.items())


def _distinct(values: Iterable[object]) -> str:
    return ", ".join(dict.fromkeys(map(str, values)))
