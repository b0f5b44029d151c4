"""`rwkvperf merge`: join the records of many machines in one report, and store their figures in baselines."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_rwkvperf.core.errors import OptionError
from pytest_rwkvperf.core.paths import user_path
from pytest_rwkvperf.core.text import printable
from pytest_rwkvperf.fleet import fleet_report, merge
from pytest_rwkvperf.reports import pages, report_files
from pytest_rwkvperf.run.option_values import read_save

if TYPE_CHECKING:
    from pytest_rwkvperf.cli.console import Console
    from pytest_rwkvperf.fleet.merge import Merged

HELP = """join the records of many machines
Each record was written by `pytest --rwkv-report=FILE.json` on one machine; a folder stands for all .json files below
it, for example the artifacts of a CI run. The exit status is 1 if a run failed, a record cannot be used, or there are
fewer machines than --expect.

  rwkvperf merge artefacts/ --expect 6 -o fleet.md --save-baseline
  rwkvperf merge a.json b.json -o fleet.csv
"""
PASSES_ON = False


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("records", metavar="RECORD", nargs="+", type=user_path, help="records, or folders of them")
    parser.add_argument("--expect", type=_count, metavar="N", help="how many machines there should be")
    add_outputs(parser)


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of machines; write 1 or more")
    return int(text)


def add_outputs(parser: argparse.ArgumentParser) -> None:
    """Declare the options for output, which `rwkvperf fleet` shares."""
    kinds = ", ".join(fleet_report.FORMATS)
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        type=user_path,
        action="append",
        default=[],
        help=f"write the report there ({kinds}); may be repeated",
    )
    parser.add_argument(
        "--save-baseline", nargs="?", const="append", metavar="append|replace[,crowded]",
        help="store reliable figures, each in its machine's baseline; with ,crowded also those measured while other "
        "processes were busy",
    )  # fmt: skip
    parser.add_argument(
        "--baseline-dir", type=user_path, default=Path("baselines"), metavar="DIR", help="the folder of the baselines"
    )


def run(options: argparse.Namespace, console: Console) -> int:
    """Join the records, write the reports, store the figures."""
    check_outputs(options)
    return finish(merge.read(options.records, options.expect), options, console)


def check_outputs(options: argparse.Namespace) -> None:
    """Refuse output files that could not be written, before measuring begins.

    Raises:
        OptionError: the suffix is unknown, or the path cannot be written; or --save-baseline has an unknown value.
    """
    if options.save_baseline:
        read_save("--save-baseline=", options.save_baseline)
    for path in options.output:
        if path.suffix.lower() not in fleet_report.FORMATS:
            raise OptionError(f"-o {path}: write a file ending in {', '.join(fleet_report.FORMATS)}")
        if path.suffix.lower() == ".html":
            pages.check_installed()
        report_files.check_target(f"-o {path}", path)


def finish(merged: Merged, options: argparse.Namespace, console: Console) -> int:
    """Store and write what the options ask for; returns 0 if every machine is there and nothing failed."""
    missing = merged.missing
    mode, crowded = read_save("--save-baseline=", options.save_baseline or "no")
    if mode != "no":
        written, failed = merge.save(merged, options.baseline_dir, replacing=mode == "replace", crowded=crowded)
        for path in written:
            console.text(f"{path}\n")
        pushed_out = merge.pushed_out(merged, options.baseline_dir, crowded=crowded) if mode == "append" else []
        for refusal in (*merge.refusals(merged, crowded=crowded), *pushed_out):
            console.text(printable(f"Not saved: {refusal}.\n", keep="\n"))
        missing = (*missing, *failed)
    complete = merge.Merged(merged.runs, missing)
    for path in options.output:
        report_files.put(fleet_report.FORMATS[path.suffix.lower()](complete), path)
        console.text(f"{path}\n")
    if not options.output:
        console.text(fleet_report.as_markdown(complete))
    return 1 if complete.fails else 0
