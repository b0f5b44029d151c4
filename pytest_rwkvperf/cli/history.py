"""`rwkvperf history`: what a history holds, a workload's trend, and where its level changed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from pytest_rwkvperf.core.atomic import is_stream
from pytest_rwkvperf.core.errors import HistoryError, OptionError, RecordError
from pytest_rwkvperf.reports import report_files
from pytest_rwkvperf.run.options import share

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from pytest_rwkvperf.cli.console import Console
    from pytest_rwkvperf.history.address import Address
    from pytest_rwkvperf.history.database import Database, Point, Series
    from pytest_rwkvperf.history.trends import Trend

HELP = """list and plot what --rwkv-history has stored
HISTORY is what --rwkv-history was given: an SQLite file, sqlite:///FILE or postgresql://USER@HOST/DATABASE.
PostgreSQL's password is better kept in ~/.pgpass than written here, where other users of this machine can read it.

  rwkvperf history list history.db
  rwkvperf history trend history.db q8_0 tg128
  rwkvperf history trend history.db -o trend.html
  rwkvperf history changes history.db
"""

_PLOT_HEIGHT = 12
_MOST_PLOTS = 8
"""One under the other in a terminal; a page takes all."""


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the commands below `history` and their arguments."""
    commands = parser.add_subparsers(metavar="WHAT", dest="what", required=True)
    for name, function in _COMMANDS.items():
        text = function.__doc__ or ""
        summary = (text[:1].lower() + text[1:]).rstrip(".")
        own = commands.add_parser(name, help=summary, description=text, allow_abbrev=False)
        own.add_argument("history", metavar="HISTORY", help="an SQLite file or a database's address")
        if name == "trend":
            own.add_argument("words", metavar="WORD", nargs="*", help="of the workloads' names; all must be in one")
            own.add_argument("-o", "--output", metavar="FILE", type=Path, help="write a page (.html) instead")
        if name in {"trend", "changes"}:
            own.add_argument(
                "--at-least", metavar="PERCENT", default="1%", help="smallest change that is told; default 1%%"
            )
        if name == "add":
            own.add_argument(
                "records", metavar="RECORD", nargs="+", type=Path, help="what --rwkv-report=FILE.json wrote"
            )
        if name == "record":
            own.add_argument("run", metavar="RUN", help="the first letters of a run's id")


def run(options: argparse.Namespace, console: Console) -> int:
    """Do what is asked of a history."""
    from pytest_rwkvperf.history import address

    place = address.parse(options.history, Path())
    return _COMMANDS[options.what](options, console, place)


def _open(place: Address, *, new: bool = False) -> Database:
    """The database, up to date.

    Raises:
        HistoryError: it cannot be used; or it is an SQLite file that does not exist, unless `new`.
    """
    from pytest_rwkvperf.history.database import Database

    if not new:
        _check_there(place)
    database = Database(place)
    database.prepare()
    return database


def _check_there(place: Address) -> None:
    """Refuse a name behind which is nothing: opening an SQLite file would make it.

    Raises:
        HistoryError: with the name.
    """
    if place.url.drivername.startswith("sqlite") and not Path(str(place.url.database)).exists():
        raise HistoryError(f"there is no history {place.shown}; --rwkv-history makes one")


def _list(options: argparse.Namespace, console: Console, place: Address) -> int:  # noqa: ARG001 - all commands' shape
    """List runs and workloads."""
    database = _open(place)
    runs, series = database.runs(), database.series()
    table = _table("run", "started", "commit", "exit", "workloads", "machine")
    for one in runs:
        cells = (one.id[:8], one.started, one.commit[:8], one.exit_status, one.figures, one.machine)
        table.add_row(*(Text(str(cell)) for cell in cells))
    console.wide(table)
    console.wide(_series_table(series))
    if waiting := _waiting(place):
        console.result(waiting)
    return 0


def _series_table(series: dict[Series, list[Point]]) -> Table:
    table = _table("runs", "first t/s", "last t/s", "workload", "machine")
    for one, points in sorted(series.items(), key=lambda pair: pair[0].label):
        first, last = points[0].tokens_per_second, points[-1].tokens_per_second
        table.add_row(str(len(points)), f"{first:.1f}", f"{last:.1f}", Text(one.label), Text(one.machine))
    return table


def _waiting(place: Address) -> str:
    from pytest_rwkvperf.history import spool

    count = len(spool.waiting(place))
    return f"{count} runs wait in {spool.folder(place)}; `rwkvperf history send` sends them." if count else ""


def _trend(options: argparse.Namespace, console: Console, place: Address) -> int:
    """Plot workloads over the runs, with their change points."""
    if options.output:
        _check_output(options.output)
    found = _trends(options, place, options.words)
    if options.output:
        from pytest_rwkvperf.history import page

        report_files.put(page.render(found, place.shown), options.output)
        console.text(f"{options.output}\n")
        return 0
    if len(found) > _MOST_PLOTS:
        raise OptionError(
            f"{len(found)} workloads are chosen, too many for a terminal; add words of their names, or -o FILE.html"
        )
    for one in found:
        console.result(_plot(one, console))
        console.result(_told(one))
    return 0


def _check_output(path: Path) -> None:
    """Refuse a page that could not be written or that nobody would take for one.

    Raises:
        OptionError: with the suffix there is, or what is wrong with the place.
    """
    report_files.check_target(f"-o {path}", path)
    if path.suffix.lower() != ".html" and not is_stream(path):
        raise OptionError(f"-o {path}: write a file ending in .html")


def _changes(options: argparse.Namespace, console: Console, place: Address) -> int:
    """Name every workload's change points, with the versions that changed there."""
    found = _trends(options, place, ())
    for one in found:
        if one.turns:
            console.result(_told(one))
    turns = sum(len(one.turns) for one in found)
    console.result(f"{turns} change points in {len(found)} workloads.")
    return 0


def _send(options: argparse.Namespace, console: Console, place: Address) -> int:  # noqa: ARG001 - all commands' shape
    """Send the runs that could not be stored when they ended."""
    from pytest_rwkvperf.history import spool

    if not spool.waiting(place):
        _check_there(place)
    outcome = spool.send(place)
    for aside in filter(None, outcome.asides):
        console.result(aside)
    if outcome.reason:
        raise HistoryError(f"{outcome.reason}; {outcome.stored} runs were stored, {outcome.waiting} wait")
    console.result(f"{outcome.stored} runs stored in {place.shown}.")
    return 0


def _add(options: argparse.Namespace, console: Console, place: Address) -> int:
    """Store records that --rwkv-report=FILE.json wrote."""
    from pytest_rwkvperf.store import record as records

    read = [records.read(path) for path in options.records]
    database = _open(place, new=True)
    stored, refused = [], []
    for path, one in zip(options.records, read, strict=True):
        try:
            stored.append(database.add(one))
        except RecordError as error:  # noqa: PERF203 - a file that is refused must not cost the others
            refused.append(f"{path}: {error}")
    console.result(f"{sum(stored)} runs stored in {place.shown}, {stored.count(False)} were there already.")
    if refused:
        raise RecordError("\n".join(refused))
    return 0


def _record(options: argparse.Namespace, console: Console, place: Address) -> int:
    """Print a run's whole record."""
    from pytest_rwkvperf.store import record as records

    found = _open(place).record(options.run)
    if found is None:
        raise HistoryError(
            f"no run of {place.shown} has an id that begins with {options.run!r}; "
            "rwkvperf history list shows those that are there"
        )
    console.text(records.dumps(found))
    return 0


_COMMANDS: dict[str, Callable[[argparse.Namespace, Console, Address], int]] = {
    "list": _list,
    "trend": _trend,
    "changes": _changes,
    "send": _send,
    "add": _add,
    "record": _record,
}


def _trends(options: argparse.Namespace, place: Address, words: tuple[str, ...] | list[str]) -> list[Trend]:
    from pytest_rwkvperf.history import trends

    smallest = share("--at-least=", options.at_least)
    chosen = trends.choose(_open(place).series(), words)
    found = [trends.trend(series, points, smallest) for series, points in chosen.items()]
    return sorted(found, key=lambda one: (one.series.label, one.series.machine))


def _told(one: Trend) -> str:
    """A trend in words."""
    from pytest_rwkvperf.history import trends

    runs = f"{len(one.points)} runs, {one.points[0].started} to {one.points[-1].started}"
    lines = [one.series.label, f"  {one.series.machine}, {runs}"]
    lines += [f"  {line}" for turn in one.turns for line in trends.describe(turn)] or ["  no change point"]
    return "\n".join(lines)


def _plot(one: Trend, console: Console) -> str:
    """Tokens per second by run, a vertical line at each change point; without colours, which not every terminal has."""
    from uniplot import plot_to_string

    return plot_to_string(
        xs=range(1, len(one.points) + 1),
        ys=[point.tokens_per_second for point in one.points],
        x_gridlines=[turn.change.index + 0.5 for turn in one.turns],
        y_gridlines=[],
        y_unit=" t/s",
        color=False,
        width=max(20, min(console.width, 120) - 16),
        height=_PLOT_HEIGHT,
    )


def _table(*columns: str) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in columns:
        numeric = name in {"exit", "workloads", "runs", "first t/s", "last t/s"}
        table.add_column(name, justify="right" if numeric else "left", no_wrap=True)
    return table
