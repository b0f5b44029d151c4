"""GitHub Actions: a summary on the job's page, and an annotation for each failure. Nothing has to be configured.

Documentation: docs.github.com, "Workflow commands for GitHub Actions".
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pytest_rwkvperf.reports import summary
from pytest_rwkvperf.reports.markdown import clean
from pytest_rwkvperf.reports.report import Style

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pytest_rwkvperf.store.record import Record

SUMMARY_BYTES = 1 << 20
"""GitHub refuses a step's summary beyond 1 MiB as a whole."""

ANNOTATIONS = 10
"""Errors that GitHub shows of one step; it drops the rest without a word."""


def is_here(environment: Mapping[str, str]) -> bool:
    """Whether this is a job of GitHub Actions."""
    return environment.get("GITHUB_ACTIONS") == "true"


def add_summary(record: Record, environment: Mapping[str, str]) -> str:
    """Append to the step's summary; a sentence when that fails, which fails nothing else."""
    target = environment.get("GITHUB_STEP_SUMMARY")
    if not target:
        return ""
    text = summary.REPORT.render(record, Style())[""].encode() + b"\n"
    try:
        path = Path(target)
        room = SUMMARY_BYTES - (path.stat().st_size if path.exists() else 0)
        if len(text) > room:
            note = b"\n\nThe rest does not fit into a summary of GitHub's; see the report files.\n"
            text = text[: max(0, room - len(note))].rpartition(b"\n")[0] + note if room > len(note) else b""
        with path.open("ab") as file:
            file.write(text)
    except OSError as error:
        return f"no summary on GitHub's page: {error}"
    return ""


def errors_of(record: Record) -> Iterator[str]:
    """A workflow command for each failed item, the last one of many for all that are left."""
    failed = [(case, item) for case, item in record.told_apart().items() if item.fails]
    shown = failed if len(failed) <= ANNOTATIONS else failed[: ANNOTATIONS - 1]
    for case, item in shown:
        told = f" (x{item.comparison.ratio:.3f} of the baseline)" if item.comparison else ""
        yield command("error", f"{item.verdict or 'FAILED'} {summary.name(case, item)}", f"{item.reason}{told}")
    if rest := len(failed) - len(shown):
        yield command("error", "RWKV-7 throughput", f"and {rest} more; the job's summary has them all")


def command(kind: str, title: str, message: str) -> str:
    """One workflow command, with what could end or forge one escaped as GitHub's own toolkit does."""
    return f"::{kind} title={_property(title)}::{_data(message)}"


def _data(text: str) -> str:
    # Not `clean`: a line break is allowed here, once it is escaped.
    text = "\n".join(map(clean, text.splitlines()))
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
