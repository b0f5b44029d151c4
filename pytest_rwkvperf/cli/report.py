"""`rwkvperf report`: make any report of a stored record."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_rwkvperf.core.errors import OptionError
from pytest_rwkvperf.core.paths import user_path
from pytest_rwkvperf.reports import formats, report_files
from pytest_rwkvperf.run.option_values import read_share
from pytest_rwkvperf.store import record
from pytest_rwkvperf.verdict import comparing

if TYPE_CHECKING:
    import argparse

    from pytest_rwkvperf.cli.console import Console
    from pytest_rwkvperf.store.record import Record

HELP = """make a report of a measurement record
The record was written by `pytest --rwkv-report=FILE.json`. The report is the one that the run itself would have
written. With --against its verdicts are those of `rwkvperf compare`, and it shows both runs.

  rwkvperf report run.json -o issue.md --language zh
  rwkvperf report run.json --format llama-bench-md
  rwkvperf report new.json --against old.json -o both.html
"""
PASSES_ON = False


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("record", metavar="RECORD", nargs="?", type=user_path, help="a measurement record")
    parser.add_argument(
        "--format", help=f"one of {', '.join(formats.FORMATS)}; default: by the suffix of -o", metavar="FORMAT"
    )
    parser.add_argument("-o", "--output", metavar="FILE", help="the file to write; default: print")
    parser.add_argument(
        "--against",
        metavar="OLD",
        type=user_path,
        help="judge the record by this older one, as `rwkvperf compare` does",
    )
    parser.add_argument("--tolerance", help="with --against: the largest slowdown that passes; default 5%%")
    parser.add_argument("--language", choices=("en", "zh"), default="en", help="language of reports for people")
    parser.add_argument("--schema", action="store_true", help="print the JSON Schema of records instead")


def run(options: argparse.Namespace, console: Console) -> int:
    """Print or write the report."""
    if options.schema:
        console.text(json.dumps(record.json_schema(), indent=2) + "\n")
        return 0
    if options.record is None:
        raise OptionError("no RECORD is given; name the file that --rwkv-report=FILE.json wrote")
    if not options.format and not options.output:
        raise OptionError("no format is given; add --format or -o FILE")
    if options.tolerance and options.against is None:
        raise OptionError("--tolerance needs --against OLD; give both or neither")
    if options.output:
        _write(options, console)
        return 0
    report, stored = formats.load(options.format), _read(options)
    console.text("\n".join(report.render(stored, options.language).values()))
    console.notes(report.advice(stored, options.language, lambda _part: "-"))
    console.notes(report.links(stored, options.language))
    return 0


def _read(options: argparse.Namespace) -> Record:
    """The record, judged by another one if one is given."""
    stored = record.read(options.record)
    if options.against is None:
        return stored
    tolerance = read_share("--tolerance=", options.tolerance or "5%")
    return comparing.against(stored, record.read(options.against), tolerance)


def _write(options: argparse.Namespace, console: Console) -> None:
    text = f"{options.format}:{options.output}" if options.format else options.output
    request = formats.parse(text, Path(), "")
    report_files.check([request])
    stored = _read(options)
    for path in report_files.write(stored, request, options.language):
        console.text(f"{path}\n")
    console.notes(report_files.advice_on(stored, request, options.language))
    console.notes(formats.load(request.format).links(stored, options.language))
