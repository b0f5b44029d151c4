"""`rwkvperf compare`: the verdicts of a run, from two stored files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_rwkvperf.core.paths import user_path
from pytest_rwkvperf.core.text import printable
from pytest_rwkvperf.reports import terminal_tables
from pytest_rwkvperf.run.options import read_share
from pytest_rwkvperf.store.record import RecordedCase
from pytest_rwkvperf.verdict import comparing
from pytest_rwkvperf.verdict.judged import recorded_item, with_distinct_cases
from pytest_rwkvperf.verdict.reasons import describe

if TYPE_CHECKING:
    import argparse

    from pytest_rwkvperf.cli.console import Console

HELP = """compare two baselines or measurement records
Each file is a baseline (--rwkv-save-baseline) or a record (--rwkv-report=FILE.json). The newest session of NEW is
compared with the sessions of OLD, as a run would be. The items share an error rate of 1 % by Holm's method. The exit
status is 1 if something got slower.

  rwkvperf compare baselines/here.json run.json
  git show HEAD~5:baselines/here.json > old.json && rwkvperf compare old.json baselines/here.json --tolerance 3%
"""
PASSES_ON = False

_FAILING = {"REGRESSION", "INVALID"}
STRICT = {"no-baseline", "inconclusive"}


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("old", metavar="OLD", type=user_path, help="what to compare with")
    parser.add_argument("new", metavar="NEW", type=user_path, help="what to judge")
    parser.add_argument("--tolerance", default="5%", help="the largest slowdown that passes; default 5%%")
    parser.add_argument("--strict", action="append", default=[], choices=sorted(STRICT), help="verdicts that fail too")


def run(options: argparse.Namespace, console: Console) -> int:
    """Print the table, and the reason of each verdict other than PASS."""
    pair = comparing.Pair(comparing.read(options.old), comparing.read(options.new))
    judgements = with_distinct_cases(comparing.compare(pair, read_share("--tolerance=", options.tolerance)))
    reasons = [describe(item) + "\n" for item in judgements if item.verdict != "PASS"]
    items = [(RecordedCase(each.item.case, None, None, ()), recorded_item(each, fails=False)) for each in judgements]
    table = terminal_tables.verdicts(items, console.width, colour=False)
    console.text(printable("".join([table, *reasons]), keep="\n"))
    failing = _FAILING | {word.upper() for word in options.strict}
    return int(any(item.verdict in failing for item in judgements))
