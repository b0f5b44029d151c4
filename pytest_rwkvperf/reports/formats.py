"""Report formats by name and by file suffix. A plain pytest run imports this, so it names modules and loads none."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_rwkvperf.core.errors import OptionError

if TYPE_CHECKING:
    from pytest_rwkvperf.reports.report import Report

# One line adds a format.
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
}

SUFFIXES = {".json": "json", ".html": "html", ".md": "issue"}
"""The format that a file name alone asks for."""

_SHORTEST = 2
"""Letters of a format's name; a single one before a colon is a drive's."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A report to write: the format's name and the file."""

    format: str
    path: Path

    def with_part(self, part: str) -> Path:
        """The file of one of several parts: `issue.md` becomes `issue-llama-cpp.md`; no part leads elsewhere."""
        plain = re.sub(r"[/\\:\0]", "-", part)
        return self.path.with_stem(f"{self.path.stem}-{plain}") if part else self.path


def parse(text: str, folder: Path, option: str = "--rwkv-report=") -> Wanted:
    """Read `FILE` or `FORMAT:FILE`; a relative file is in `folder`, and `option` names what is read in errors.

    Raises:
        OptionError: nobody knows the format, or there is no file name.
    """
    name, separator, rest = text.partition(":")
    if not separator or len(name) < _SHORTEST or "/" in name or "\\" in name:
        name, rest = SUFFIXES.get(Path(text).suffix.lower(), ""), text
    if name not in FORMATS:
        raise OptionError(
            f"{option}{text!r}: no such format; write a file ending in {', '.join(SUFFIXES)}, "
            f"or FORMAT:FILE with one of {', '.join(FORMATS)}"
        )
    if not rest or rest.endswith(("/", "\\")):
        raise OptionError(f"{option}{text!r} names no file; write for example {name}:report.{name}")
    return Wanted(name, folder / rest)


def load(name: str) -> Report:
    """The report of a format.

    Raises:
        OptionError: nobody knows it.
    """
    if name not in FORMATS:
        raise OptionError(f"report format {name!r} is unknown; allowed: {', '.join(FORMATS)}")
    from importlib import import_module

    from pytest_rwkvperf.reports.report import Report

    module, _, attribute = FORMATS[name].partition(":")
    report = getattr(import_module(module), attribute)
    assert isinstance(report, Report)  # noqa: S101 - a line of FORMATS points elsewhere
    return report
