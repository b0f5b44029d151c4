"""`rwkvperf history`: list a history, plot a workload's speed over the runs, and find where it changed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from pytest_rwkvperf.core.atomic import is_stream
from pytest_rwkvperf.core.errors import HistoryError, OptionError, RecordError
from pytest_rwkvperf.core.paths import user_path
from pytest_rwkvperf.core.text import counted
from pytest_rwkvperf.history import page, spool, trends
from pytest_rwkvperf.history.address import parse
from pytest_rwkvperf.reports import report_files
from pytest_rwkvperf.run.option_values import read_share
from pytest_rwkvperf.store import record as records

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Mapping, Sequence

    from pytest_rwkvperf.cli.console import Console
    from pytest_rwkvperf.history.address import Address
    from pytest_rwkvperf.history.database import Database, Point, Series
    from pytest_rwkvperf.history.trends import Trend

    Action = Callable[[argparse.Namespace, Console, Address], int]

HELP = """list and plot what --rwkv-history has stored
HISTORY is the value of --rwkv-history: an SQLite file, sqlite:///FILE or postgresql://USER@HOST/DATABASE.
Keep PostgreSQL's password in ~/.pgpass: other users of this machine can read it in the command line.

  rwkvperf history list history.db
  rwkvperf history trend history.db q8_0 tg128
  rwkvperf history trend history.db -o trend.html
  rwkvperf history changes history.db
"""
PASSES_ON = False

_PLOT_HEIGHT = 12
_MAX_PLOTS = 8
"""Plots that a terminal shows below each other; a page has no limit."""


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the commands below `history` and their arguments."""
    subparsers = parser.add_subparsers(metavar="WHAT", dest="what", required=True)

    def command(name: str, action: Action) -> argparse.ArgumentParser:
        text = action.__doc__ or ""
        summary = (text[:1].lower() + text[1:]).rstrip(".")
        subparser: argparse.ArgumentParser = subparsers.add_parser(
            name, help=summary, description=text, allow_abbrev=False
        )
        subparser.set_defaults(action=action)
        subparser.add_argument("history", metavar="HISTORY", help="an SQLite file or a database's address")
        return subparser

    command("list", _list)
    trend = command("trend", _trend)
    trend.add_argument("words", metavar="WORD", nargs="*", help="select the workloads whose names contain every WORD")
    trend.add_argument("-o", "--output", metavar="FILE", type=user_path, help="write an HTML page (.html) instead")
    changes = command("changes", _changes)
    for subparser in (trend, changes):
        subparser.add_argument(
            "--at-least", metavar="PERCENT", default="1%", help="leave out smaller changes; default 1%%"
        )
    command("send", _send)
    add_records = command("add", _add)
    add_records.add_argument(
        "records", metavar="RECORD", nargs="+", type=user_path, help="a record that --rwkv-report=FILE.json wrote"
    )
    command("record", _record).add_argument("run", metavar="RUN", help="the first letters of a run's id")


def run(options: argparse.Namespace, console: Console) -> int:
    """Run the command below `history`."""
    action: Action = options.action
    return action(options, console, parse(options.history, Path()))


def _list(options: argparse.Namespace, console: Console, address: Address) -> int:  # noqa: ARG001 - an Action
    """List runs and workloads."""
    database = _open(address)
    runs, series = database.runs(), database.series()
    table = _table("run", "started", "commit", "exit", "workloads", "machine")
    for item in runs:
        cells = (item.id[:8], item.started, item.commit[:8], item.exit_status, item.figures, item.machine)
        table.add_row(*(Text(str(cell)) for cell in cells))
    console.wide(table)
    console.wide(_series_table(series))
    if count := len(spool.waiting(address)):
        console.result(
            f"Not sent yet: {counted(count, 'run')} in {spool.folder(address)}; `rwkvperf history send` does."
        )
    return 0


def _series_table(points_by_series: Mapping[Series, Sequence[Point]]) -> Table:
    table = _table("runs", "first t/s", "last t/s", "workload", "machine")
    for series, points in sorted(points_by_series.items(), key=lambda pair: pair[0].label):
        first, last = points[0].tokens_per_second, points[-1].tokens_per_second
        table.add_row(str(len(points)), f"{first:.1f}", f"{last:.1f}", Text(series.label), Text(series.machine))
    return table


def _table(*columns: str) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in columns:
        numeric = name in {"exit", "workloads", "runs", "first t/s", "last t/s"}
        table.add_column(name, justify="right" if numeric else "left", no_wrap=True)
    return table


def _trend(options: argparse.Namespace, console: Console, address: Address) -> int:
    """Plot workloads over the runs, with their change points."""
    output: Path | None = options.output
    if output:
        report_files.check_target(f"-o {output}", output)
        if output.suffix.lower() != ".html" and not is_stream(output):
            raise OptionError(f"-o {output}: write a file ending in .html")
    chosen = _trends(options, address, options.words)
    if output:
        report_files.put(page.render(chosen, address.shown), output)
        console.text(f"{output}\n")
        return 0
    if len(chosen) > _MAX_PLOTS:
        raise OptionError(
            f"{len(chosen)} workloads are chosen, too many for a terminal; add words of their names, or -o FILE.html"
        )
    for trend in chosen:
        console.result(_plot(trend, console.width))
        console.result(_text(trend))
    return 0


def _changes(options: argparse.Namespace, console: Console, address: Address) -> int:
    """Name every workload's change points, with the versions that changed there."""
    every = _trends(options, address, ())
    for trend in every:
        if trend.change_points:
            console.result(_text(trend))
    changes = sum(len(trend.change_points) for trend in every)
    console.result(f"{counted(changes, 'change point')} in {counted(len(every), 'workload')}.")
    return 0


def _trends(options: argparse.Namespace, address: Address, words: Sequence[str]) -> list[Trend]:
    smallest = read_share("--at-least=", options.at_least)
    chosen = trends.choose(_open(address).series(), words)
    found = [trends.trend(series, points, smallest) for series, points in chosen.items()]
    return sorted(found, key=lambda trend: (trend.series.label, trend.series.machine))


def _text(trend: Trend) -> str:
    """A trend in words."""
    runs = f"{counted(len(trend.points), 'run')}, {trend.points[0].started} to {trend.points[-1].started}"
    lines = [trend.series.label, f"  {trend.series.machine}, {runs}"]
    lines += [f"  {line}" for each in trend.change_points for line in trends.describe(each)] or ["  no change point"]
    return "\n".join(lines)


def _plot(trend: Trend, columns: int) -> str:
    """Tokens per second by run, a vertical line at each change point; without colors, which not every terminal has."""
    from uniplot import plot_to_string

    return plot_to_string(
        xs=range(1, len(trend.points) + 1),
        ys=[point.tokens_per_second for point in trend.points],
        x_gridlines=[each.change.index + 0.5 for each in trend.change_points],
        y_gridlines=[],
        y_unit=" t/s",
        color=False,
        width=max(20, min(columns, 120) - 16),
        height=_PLOT_HEIGHT,
    )


def _send(options: argparse.Namespace, console: Console, address: Address) -> int:  # noqa: ARG001 - an Action
    """Send the runs that could not be stored when they ended."""
    if not spool.waiting(address):
        _check_exists(address)
    outcome = spool.send(address)
    for aside in outcome.asides:
        console.result(aside)
    if outcome.reason:
        raise HistoryError(f"{outcome.reason}; stored: {counted(outcome.stored, 'run')}, waiting: {outcome.waiting}")
    console.result(f"{counted(outcome.stored, 'run')} stored in {address.shown}.")
    return 0


def _add(options: argparse.Namespace, console: Console, address: Address) -> int:
    """Store records that --rwkv-report=FILE.json wrote."""
    runs = [(path, records.read(path)) for path in options.records]
    database = _open(address, new=True)
    stored, refused = [], []
    for path, record in runs:
        try:
            stored.append(database.add(record))
        except RecordError as error:  # noqa: PERF203 - a refused file must not cost the others
            refused.append(f"{path}: {error}")
    console.result(f"{counted(sum(stored), 'run')} stored in {address.shown}; already there: {stored.count(False)}.")
    if refused:
        raise RecordError("\n".join(refused))
    return 0


def _record(options: argparse.Namespace, console: Console, address: Address) -> int:
    """Print a run's whole record."""
    record = _open(address).record(options.run)
    if record is None:
        raise HistoryError(
            f"no run of {address.shown} has an id that begins with {options.run!r}; "
            "list the runs with `rwkvperf history list`"
        )
    console.text(records.dumps(record))
    return 0


def _open(address: Address, *, new: bool = False) -> Database:
    """Open the database and bring its tables up to date; only with `new` may an SQLite file not exist."""
    from pytest_rwkvperf.history.database import Database

    if not new:
        _check_exists(address)
    database = Database(address)
    database.prepare()
    return database


def _check_exists(address: Address) -> None:
    """Refuse an SQLite file that does not exist: opening it would make it."""
    if (file := address.file) is not None and not file.exists():
        raise HistoryError(f"there is no history {address.shown}; --rwkv-history makes one")
