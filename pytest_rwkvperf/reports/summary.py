"""The tables of the terminal as markdown: for a pull request, a job's page or a chat."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_rwkvperf.reports import native_ratio
from pytest_rwkvperf.reports.markdown import escape, table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_rwkvperf.reports.report import Style
    from pytest_rwkvperf.stats.estimates import Rate
    from pytest_rwkvperf.store.record import Record, RecordedCase, RecordedItem

_COLUMNS = (
    "backend",
    "quant",
    "device",
    "workload",
    "tokens/s",
    "± 95 %",
    "baseline",
    "ratio",
    "bounds",
    "parity",
    "verdict",
)
_CASE_COLUMNS = ("backend", "quant", "device", "load", "first token", "inter-token p50", "p99", "peak RSS", "file")
_MARKS = {"REGRESSION": "❌", "INVALID": "❌", "PASS": "✅", "IMPROVEMENT": "🚀", "INCONCLUSIVE": "❔"}


@dataclass(frozen=True, slots=True)
class Summary:
    """Verdicts first, then what belongs to the cases, what failed, and the machine."""

    suffix: str = ".md"

    def render(self, record: Record, style: Style) -> Mapping[str, str]:  # noqa: ARG002 - the Protocol's signature
        """One text, also of a run that measured nothing."""
        record = record.told_apart()
        parts = [f"### RWKV-7 throughput: {_headline(record)}\n"]
        if any(item.rate for _, item in record.items()):
            parts.append(table(_COLUMNS, [_row(case, item) for case, item in record.items()], right=range(4, 10)))
            parts.append(table(_CASE_COLUMNS, [_case_row(one) for one in record.cases], right=range(3, 9)))
        if told := native_ratio.sentence(native_ratio.of_record(record)):
            parts.append(f"{escape(told)}\n")
        if bad := _what_went_wrong(record):
            parts.append(bad)
        parts.append(_machine(record))
        return {"": "\n".join(parts)}


REPORT = Summary()


def _headline(record: Record) -> str:
    counts = Counter(item.verdict or "no verdict" for _, item in record.items())
    return ", ".join(f"{count} {verdict}" for verdict, count in counts.items()) or "nothing was measured"


def _row(case: RecordedCase, item: RecordedItem) -> list[str]:
    comparison, figures = item.comparison, case.figures
    high = comparison.high if comparison else None
    verdict = item.verdict or "no verdict"
    return [
        *_names(case),
        escape(item.workload),
        rate(item.rate),
        f"{width:.1%}" if item.rate and (width := item.rate.half_width) is not None else "",
        rate(item.baseline),
        f"{comparison.ratio:.3f}" if comparison else "",
        f"{comparison.low:.2f}-{high:.2f}" if comparison and high is not None else "",
        f"{figures.parity:.1e}" if figures and figures.parity is not None else "",
        f"{_MARKS.get(verdict, '')} {verdict}".strip(),
    ]


def _case_row(case: RecordedCase) -> list[str]:
    figures = case.figures
    first = [item.first_token_seconds for item in case.items if item.first_token_seconds]
    between = next((item.inter_token_seconds for item in case.items if item.inter_token_seconds), None)
    return [
        *_names(case),
        f"{figures.load_seconds:.2f} s" if figures else "",
        f"{max(first) * 1e3:.1f} ms" if first else "",
        *((f"{between.p50 * 1e3:.2f} ms", f"{between.p99 * 1e3:.2f} ms") if between else ("", "")),
        f"{figures.peak_rss_bytes / 2**20:.0f} MiB" if figures else "",
        f"{figures.file_bytes / 2**20:.0f} MiB" if figures else "",
    ]


def _names(case: RecordedCase) -> tuple[str, str, str]:
    return escape(case.case.backend), escape(case.case.variant), escape(case.case.device)


def rate(figure: Rate | None) -> str:
    """About four digits."""
    if figure is None:
        return ""
    digits = 0 if figure.median >= 1000 else 1 if figure.median >= 100 else 2  # noqa: PLR2004 - four digits shown
    return f"{figure.median:.{digits}f}"


def name(case: RecordedCase, item: RecordedItem) -> str:
    """What a sentence calls an item."""
    return f"{case.case.label} {item.workload}"


def _what_went_wrong(record: Record) -> str:
    lines = [f"- **{escape(name(case, item))}**: {escape(item.reason)}" for case, item in record.items() if item.fails]
    lines += [f"- {escape(one.name)} was skipped: {escape(one.reason)}" for one in record.skipped]
    return "\n".join(lines) + "\n" if lines else ""


def _machine(record: Record) -> str:
    machine = record.fingerprint
    gpus = "".join(f", {escape(gpu)}" for gpu in machine.gpus)
    commit = f", commit {record.commit[:10]}" if record.commit else ""
    return (
        f"{escape(machine.cpu)}, {machine.physical_cores} cores{gpus}; {escape(record.system.operating_system)}; "
        f"pytest-rwkvperf {escape(record.project_version)}{commit}; {escape(record.started)}, "
        f"{record.seconds / 60:.1f} min\n"
    )
