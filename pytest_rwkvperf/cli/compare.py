"""`rwkvperf compare`: the verdicts of a run, from two stored files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from pytest_rwkvperf.core.errors import RecordError
from pytest_rwkvperf.core.paths import user_path
from pytest_rwkvperf.core.text import printable
from pytest_rwkvperf.reports import figures, terminal_tables
from pytest_rwkvperf.run.option_values import read_share
from pytest_rwkvperf.store import exchanged, speeds
from pytest_rwkvperf.store.record import Record, RecordedCase
from pytest_rwkvperf.verdict import comparing, speed_ratios
from pytest_rwkvperf.verdict.judged import recorded_item, with_distinct_cases
from pytest_rwkvperf.verdict.reasons import describe

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

    from pytest_rwkvperf.cli.console import Console
    from pytest_rwkvperf.store.baseline import Baseline
    from pytest_rwkvperf.store.speeds import Speed

HELP = """compare two baselines or measurement records
Each file is a baseline (--rwkv-save-baseline) or a record (--rwkv-report=FILE.json). The newest session of NEW is
compared with the sessions of OLD, as a run would compare them. All workloads share an error rate of 1 % by Holm's
method. The exit status is 1 if something got slower.

  rwkvperf compare baselines/here.json run.json
  git show HEAD~5:baselines/here.json > old.json && rwkvperf compare old.json baselines/here.json --tolerance 3%

A file may also be an export (bencher, github-benchmark, otava, openmetrics), llama-batched-bench's JSONL, or the SQL
of test-backend-ops perf. These contain no samples, so only their ratios are shown; with --strict=inconclusive the exit
status is then 1. Files measured under different conventions (protocol, its version, warm-up, chunk) are refused.
"""
PASSES_ON = False

_NO_VERDICT = "These files contain no samples, so there is no verdict; give two records to get one."
STRICT = {"no-baseline", "inconclusive"}


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("old", metavar="OLD", type=user_path, help="the older file")
    parser.add_argument("new", metavar="NEW", type=user_path, help="the file to judge")
    parser.add_argument("--tolerance", default="5%", help="the largest slowdown that passes; default 5%%")
    parser.add_argument(
        "--strict",
        action="append",
        default=[],
        choices=sorted(STRICT),
        help="a verdict that makes the exit status 1 too; may be repeated",
    )


def run(options: argparse.Namespace, console: Console) -> int:
    """Print the table, and the reason of each verdict other than PASS."""
    old, new = _read(options.old), _read(options.new)
    if isinstance(old, list) or isinstance(new, list):
        _show_ratios(_speeds(old, options.old), _speeds(new, options.new), console)
        return int("inconclusive" in options.strict)
    files = comparing.ComparedFiles(comparing.compared_file(old), comparing.compared_file(new))
    judgements = with_distinct_cases(comparing.compare(files, read_share("--tolerance=", options.tolerance)))
    reasons = [describe(item) + "\n" for item in judgements if item.verdict != "PASS"]
    versions = dict.fromkeys(
        f"versions: {item.item.case.backend}: {item.software}\n" for item in judgements if item.software
    )
    items = [(RecordedCase(each.item.case, None, None, ()), recorded_item(each, fails=False)) for each in judgements]
    table = terminal_tables.verdicts(items, console.width, colour=False)
    console.text(printable("".join([table, *versions, *reasons]), keep="\n"))
    failing = comparing.FAILING | {word.upper() for word in options.strict}
    return int(any(item.verdict in failing for item in judgements))


def _read(path: Path) -> list[Speed] | Baseline | Record:
    text = comparing.read_text(path)
    found = exchanged.parse(text, path)
    return comparing.parse(text, path) if found is None else found


def _speeds(content: list[Speed] | Baseline | Record, path: Path) -> list[Speed]:
    """What to set beside a file of speeds.

    Raises:
        RecordError: the content is a baseline, or a record without a speed that may count.
    """
    found = content if isinstance(content, list) else speeds.of_record(content) if isinstance(content, Record) else []
    if not found:
        raise RecordError(f"{path} holds no speeds to set beside the other file's; give another export, or a record")
    return found


def _show_ratios(old: list[Speed], new: list[Speed], console: Console) -> None:
    """Print the ratios of two files of speeds; without samples there is no verdict."""
    ratios = speed_ratios.compare(old, new)
    table = Table(box=None, pad_edge=False)
    for name in ("series", "old", "new", "ratio", "bounds"):
        table.add_column(name, justify="left" if name == "series" else "right")
    for each in ratios:
        bounds = f"{each.bounds[0]:.2f}-{each.bounds[1]:.2f}" if each.bounds else ""
        values = (f"{figures.speed(speed.value)} {speed.unit}" for speed in (each.old, each.new))
        table.add_row(Text(each.new.series), *values, figures.ratio(each.ratio), bounds)
    console.wide(table)
    left_out = len(new) - len(ratios)
    rest = f" {left_out} series of the new file are not in the old one." if left_out else ""
    console.result(f"Measured as {ratios[0].new.convention.id}. {_NO_VERDICT}{rest}")
