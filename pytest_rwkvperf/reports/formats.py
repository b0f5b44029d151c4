"""Report formats by name and file suffix. Every pytest run imports this module, so it names reports and loads none."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_rwkvperf.core.errors import OptionError
from pytest_rwkvperf.core.paths import user_path

if TYPE_CHECKING:
    from pytest_rwkvperf.reports.report import Report

# One line per format.
FORMATS = {
    "json": "pytest_rwkvperf.reports.record_json:REPORT",
    "html": "pytest_rwkvperf.reports.html:REPORT",
    "issue": "pytest_rwkvperf.reports.issue:REPORT",
    "markdown": "pytest_rwkvperf.reports.summary:REPORT",
    "llama-bench-md": "pytest_rwkvperf.reports.llama_bench:MARKDOWN",
    "llama-bench-json": "pytest_rwkvperf.reports.llama_bench:JSON",
    "llama-bench-jsonl": "pytest_rwkvperf.reports.llama_bench:JSONL",
    "llama-bench-csv": "pytest_rwkvperf.reports.llama_bench:CSV",
    "llama-bench-sql": "pytest_rwkvperf.reports.llama_bench:SQL",
    "llama-batched-bench-jsonl": "pytest_rwkvperf.reports.llama_batched_bench:JSONL",
    "llama-batched-bench-md": "pytest_rwkvperf.reports.llama_batched_bench:MARKDOWN",
    "bencher": "pytest_rwkvperf.reports.exchange:BENCHER",
    "github-benchmark": "pytest_rwkvperf.reports.exchange:GITHUB_BENCHMARK",
    "otava": "pytest_rwkvperf.reports.exchange:OTAVA",
    "openmetrics": "pytest_rwkvperf.reports.exchange:OPENMETRICS",
}

SUFFIXES = {".json": "json", ".html": "html", ".md": "issue"}
"""The format of a file that is named without a format."""

_MIN_NAME = 2
"""Letters of a format's name. A single letter before a colon is a Windows drive."""


@dataclass(frozen=True, slots=True)
class ReportRequest:
    """A report to write: the format's name and the file."""

    format: str
    path: Path

    def path_of(self, part: str) -> Path:
        """The file of one part of the report, in the same folder: `issue.md` becomes `issue-llama-cpp.md`."""
        name = re.sub(r"[/\\:\0]", "-", part)
        return self.path.with_stem(f"{self.path.stem}-{name}") if part else self.path


def parse(text: str, folder: Path, option: str = "--rwkv-report=") -> ReportRequest:
    """Read `FILE` or `FORMAT:FILE`. A relative file is in `folder`; error messages name `option`.

    Raises:
        OptionError: unknown format, or no file name.
    """
    name, separator, rest = text.partition(":")
    if not separator or len(name) < _MIN_NAME or "/" in name or "\\" in name:
        name, rest = SUFFIXES.get(Path(text).suffix.lower(), ""), text
    if name not in FORMATS:
        raise OptionError(
            f"{option}{text!r}: no such format; write a file ending in {', '.join(SUFFIXES)}, "
            f"or FORMAT:FILE with one of {', '.join(FORMATS)}"
        )
    if not rest or rest.endswith(("/", "\\")):
        raise OptionError(f"{option}{text!r} names no file; write for example {name}:report.{name}")
    return ReportRequest(name, user_path(rest, folder, option))


def load(name: str) -> Report:
    """Import the report of a format.

    Raises:
        OptionError: unknown format.
    """
    if name not in FORMATS:
        raise OptionError(f"report format {name!r} is unknown; allowed: {', '.join(FORMATS)}")
    from importlib import import_module

    module, _, attribute = FORMATS[name].partition(":")
    report: Report = getattr(import_module(module), attribute)
    return report
