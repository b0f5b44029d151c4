"""`rwkvperf merge`: the records of many machines as one report, and their figures in their baselines."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_rwkvperf.core.errors import OptionError
from pytest_rwkvperf.fleet import fleet_report, merge
from pytest_rwkvperf.reports import report_files

if TYPE_CHECKING:
    from pytest_rwkvperf.cli.console import Console
    from pytest_rwkvperf.fleet.merge import Merged

HELP = """join the records of many machines
Each record is what `pytest --rwkv-report=FILE.json` wrote on one machine; a folder stands for the .json files below it,
as a CI's artefacts are. Exit status 1 when any run failed, a record cannot be used, or fewer came than --expect says.

  rwkvperf merge artefacts/ --expect 6 -o fleet.md --save-baseline
  rwkvperf merge a.json b.json -o fleet.csv
"""


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("records", metavar="RECORD", nargs="+", type=Path, help="records, or folders of them")
    parser.add_argument("--expect", type=_count, metavar="N", help="how many machines there should be")
    add_outputs(parser)


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of machines; write 1 or more")
    return int(text)


def add_outputs(parser: argparse.ArgumentParser) -> None:
    """Declare what becomes of a fleet's records; `rwkvperf fleet` has the same."""
    kinds = ", ".join(fleet_report.FORMATS)
    parser.add_argument(
        "-o", "--output", metavar="FILE", type=Path, action="append", default=[], help=f"{kinds}; may be repeated"
    )
    parser.add_argument(
        "--save-baseline", nargs="?", const="append", choices=("append", "replace"), metavar="append|replace",
        help="store sound figures, each in its machine's baseline",
    )  # fmt: skip
    parser.add_argument("--baseline-dir", type=Path, default=Path("baselines"), metavar="DIR", help="of baselines")


def run(options: argparse.Namespace, console: Console) -> int:
    """Join, write, store."""
    check_outputs(options)
    return finish(merge.read(options.records, options.expect), options, console)


def check_outputs(options: argparse.Namespace) -> None:
    """Refuse files of a kind that nobody writes and places that take none, before anything takes long.

    Raises:
        OptionError: with the kinds there are, or what is wrong with the place.
    """
    for path in options.output:
        if path.suffix.lower() not in fleet_report.FORMATS:
            raise OptionError(f"-o {path}: write a file ending in {', '.join(fleet_report.FORMATS)}")
        report_files.check_target(f"-o {path}", path)


def finish(merged: Merged, options: argparse.Namespace, console: Console) -> int:
    """Store and write what was asked for; the exit status says whether everything came and nothing failed."""
    missing = merged.missing
    if options.save_baseline:
        written, failed = merge.save(merged, options.baseline_dir, replacing=options.save_baseline == "replace")
        for path in written:
            console.text(f"{path}\n")
        missing = (*missing, *failed)
    complete = merge.Merged(merged.runs, missing)
    for path in options.output:
        report_files.put(fleet_report.FORMATS[path.suffix.lower()](complete), path)
        console.text(f"{path}\n")
    if not options.output:
        console.text(fleet_report.as_markdown(complete))
    return 1 if complete.fails else 0
