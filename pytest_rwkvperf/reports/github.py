"""On GitHub Actions: a summary on the job's page and an annotation for each failure, without any configuration.

Source: docs.github.com, "Workflow commands for GitHub Actions".
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pytest_rwkvperf.core.cause import why
from pytest_rwkvperf.reports import figures, summary
from pytest_rwkvperf.reports.markdown_text import clean
from pytest_rwkvperf.stats.slowdown import percent_slower

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pytest_rwkvperf.store.record import Record

SUMMARY_BYTES = 1 << 20
"""GitHub drops a step's whole summary if it is longer than 1 MiB."""

ANNOTATIONS = 10
"""Errors that GitHub shows of one step; it silently drops the rest."""


def is_active(environment: Mapping[str, str]) -> bool:
    """Whether this is a job of GitHub Actions."""
    return environment.get("GITHUB_ACTIONS") == "true"


def add_summary(record: Record, environment: Mapping[str, str]) -> str:
    """Append to the step's summary. Returns a sentence if that fails, else an empty text."""
    target = environment.get("GITHUB_STEP_SUMMARY")
    if not target:
        return ""
    text = summary.REPORT.render(record, "en")[""].encode() + b"\n"
    try:
        path = Path(target)
        room = SUMMARY_BYTES - (path.stat().st_size if path.exists() else 0)
        if len(text) > room:
            note = b"\n\nThe rest does not fit into GitHub's summary; see the report files.\n"
            text = text[: max(0, room - len(note))].rpartition(b"\n")[0] + note if room > len(note) else b""
        with path.open("ab") as file:
            file.write(text)
    except OSError as error:
        return f"no summary on GitHub's page: {error}"
    return ""


def errors_of(record: Record) -> Iterator[str]:
    """A workflow command for each failed item. If GitHub would drop some, the last command counts those left out."""
    failed = [*_failures(record.disambiguated())]
    shown = failed if len(failed) <= ANNOTATIONS else failed[: ANNOTATIONS - 1]
    for title, message in shown:
        yield command("error", title, message)
    if rest := len(failed) - len(shown):
        yield command("error", "RWKV-7 throughput", f"and {rest} more; the job's summary has them all")


def _failures(record: Record) -> Iterator[tuple[str, str]]:
    """A title and a message for each item and each invariant that failed its test."""
    for case, item in record.items():
        if item.fails:
            ratio = item.comparison.deciding.ratio if item.comparison else None
            suffix = f" ({percent_slower(ratio)} than the baseline, ratio {figures.ratio(ratio)})" if ratio else ""
            work = "".join(f"; {each}" for each in item.work.sentences) if item.work else ""
            causes = f"; why: {'; '.join(why(item.causes))}" if item.causes else ""
            yield f"{item.verdict or 'FAILED'} {figures.item_name(case, item)}", f"{item.reason}{suffix}{work}{causes}"
    for case in record.cases:
        for each in case.invariants:
            if each.fails:
                yield f"{each.verdict} {case.case.label} {each.name}", f"{each.claim}: {each.reason}"


def command(kind: str, title: str, message: str) -> str:
    """One workflow command. Text is escaped as GitHub's toolkit does, so that it cannot end or forge a command."""
    return f"::{kind} title={_property(title)}::{_data(message)}"


def _data(text: str) -> str:
    # Line by line: `clean` drops line breaks, which are allowed here when escaped.
    text = "\n".join(map(clean, text.splitlines()))
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
