"""A history's database: migrated to the newest schema, written a run at a time, and read back as series.

A run is one transaction, so it is stored whole or not at all. Concurrent writers wait for each other.
"""

from __future__ import annotations

import logging
import sys
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import msgspec
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import func, select, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from pytest_rwkvperf.core.errors import HistoryError, RecordError
from pytest_rwkvperf.core.text import printable
from pytest_rwkvperf.history.connection import engine_for
from pytest_rwkvperf.history.tables import FIGURES, RUNS, VERSIONS, figure_rows, run_row, unpack_record, version_rows
from pytest_rwkvperf.stats.estimates import remark
from pytest_rwkvperf.store import record as records

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Connection, Table

    from pytest_rwkvperf.history.address import Address
    from pytest_rwkvperf.store.record import Record

_MAX_FLOAT = sys.float_info.max

_MIGRATIONS = Path(__file__).with_name("migrations")
_MIGRATION_LOCK = 0x52574B56  # "RWKV": one upgrade at a time, by PostgreSQL's advisory locks
_INSERT: dict[str, Callable[[Table], sqlite.Insert | postgresql.Insert]] = {
    "sqlite": sqlite.insert,
    "postgresql": postgresql.insert,
}
_ADVICE = {"sqlite": "check the file and its disk", "postgresql": "check the address, the server and ~/.pgpass"}


@dataclass(frozen=True, slots=True)
class StoredRun:
    """One run in a list; `figures` is how many of its workloads have a speed."""

    id: str
    started: str
    machine: str
    commit: str
    exit_status: int
    figures: int


@dataclass(frozen=True, slots=True)
class Series:
    """What must be equal for figures to be comparable over time."""

    machine: str
    case_key: str
    workload: str
    model_hash: str
    device_name: str
    protocol: int

    @property
    def label(self) -> str:
        """The case and its workload, for people."""
        return f"{self.case_key} | {self.workload}"


@dataclass(frozen=True, slots=True)
class Point:
    """A series' figure in one run: tokens per second with the 95 % interval, and the software's versions."""

    run: str
    started: str
    commit: str
    tokens_per_second: Annotated[float, msgspec.Meta(gt=0, le=_MAX_FLOAT)]
    low: Annotated[float, msgspec.Meta(ge=0, le=_MAX_FLOAT)]
    high: Annotated[float, msgspec.Meta(ge=0, le=_MAX_FLOAT)] | None
    versions: dict[str, str]

    @property
    def remark(self) -> str:
        """What stands behind the interval wherever it is shown: ` (unusable)`, or nothing."""
        return remark(None if self.high is None else (self.high - self.low) / 2 / self.tokens_per_second)


_Row = TypeVar("_Row", StoredRun, Series, Point)


class Database:
    """A history. Every method opens a connection of its own and raises HistoryError if the database fails."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._engine = engine_for(address.url)

    def prepare(self) -> None:
        """Make the tables, or migrate those of an older release.

        Raises:
            HistoryError: the database cannot be reached or written, or a newer release made it.
        """
        with self._clean_errors():
            if (file := self._address.file) is not None:
                file.parent.mkdir(parents=True, exist_ok=True)
            with self._engine.begin() as connection:
                if connection.dialect.name == "postgresql":
                    connection.execute(text(f"SELECT pg_advisory_xact_lock({_MIGRATION_LOCK})"))
                self._migrate(connection)

    def _migrate(self, connection: Connection) -> None:
        config = Config()
        config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
        scripts = ScriptDirectory.from_config(config)
        schema = MigrationContext.configure(connection).get_current_revision()
        if schema == scripts.get_current_head():
            return
        if schema is not None and schema not in {script.revision for script in scripts.walk_revisions()}:
            raise HistoryError(
                f"the history {self._address.shown} was made by a newer release (its schema is {schema}); "
                "upgrade pytest-rwkvperf"
            )
        config.attributes["connection"] = connection
        logging.getLogger("alembic").setLevel(logging.WARNING)
        command.upgrade(config, "head")

    def add(self, record: Record) -> bool:
        """Store a run; False if it is there already.

        Raises:
            HistoryError: the database fails; nothing of the run is stored then.
            RecordError: another run, or something that is no record, is stored under its id.
        """
        figures = [*figure_rows(record)]
        with self._clean_errors(), self._engine.begin() as connection:
            insert = _INSERT[connection.dialect.name](RUNS).values(run_row(record)).on_conflict_do_nothing()
            # Without the option, SQLAlchemy forgets the row count of an INSERT.
            if connection.execute(insert, execution_options={"preserve_rowcount": True}).rowcount == 0:
                packed = connection.execute(select(RUNS.c.record).where(RUNS.c.id == record.id)).scalar_one()
                self._check_same(record, packed)
                return False
            if figures:
                connection.execute(FIGURES.insert(), figures)
            connection.execute(VERSIONS.insert(), version_rows(record))
            return True

    def _check_same(self, record: Record, packed: bytes) -> None:
        """Refuse a record that has the id of another one. It is compared as read from a file, which escapes text."""
        if unpack_record(record.id, packed) != records.loads(records.dumps(record), Path(f"of run {record.id}")):
            raise RecordError(
                f"run {record.id} is there already and is another one: the history {self._address.shown} keeps what it "
                "has, which `rwkvperf history record` shows"
            )

    def runs(self) -> list[StoredRun]:
        """Every run, the oldest first.

        Raises:
            HistoryError: the database fails, or contains values that no run wrote.
        """
        count = select(func.count()).where(FIGURES.c.run == RUNS.c.id).scalar_subquery()
        columns = (RUNS.c.id, RUNS.c.started, RUNS.c.machine, RUNS.c.commit, RUNS.c.exit_status, count)
        query = select(*columns).order_by(RUNS.c.started, RUNS.c.id)
        return [self._checked(StoredRun, *row) for row in self._read(query)]

    def record(self, prefix: str) -> Record | None:
        """The whole record of the run whose id begins with `prefix`; None if there is none.

        Raises:
            HistoryError: the id of more than one run begins so.
            RecordError: the stored record is none that this release reads.
        """
        query = select(RUNS.c.id, RUNS.c.record).where(RUNS.c.id.startswith(prefix, autoescape=True)).limit(2)
        match self._read(query):
            case [(run, packed)]:
                return unpack_record(run, packed)
            case [(run, _), (other, _)]:
                raise HistoryError(
                    f"more than one run of {self._address.shown} has an id that begins with {prefix!r}, "
                    f"{run} and {other} among them; give more of its letters"
                )
            case _:
                return None

    def series(self) -> dict[Series, list[Point]]:
        """Every series with its points, the oldest run first.

        Raises:
            HistoryError: as `runs`.
        """
        versions: dict[tuple[str, str], dict[str, str]] = {}
        for run, case, name, version in self._read(select(*VERSIONS.c)):
            versions.setdefault((run, case), {})[name] = version
        key = (FIGURES.c[name] for name in ("case_key", "workload", "model_hash", "device_name", "protocol"))
        figure = (FIGURES.c[name] for name in ("tokens_per_second", "low", "high"))
        query = (
            select(RUNS.c.machine, *key, RUNS.c.id, RUNS.c.started, RUNS.c.commit, *figure)
            .join(FIGURES, FIGURES.c.run == RUNS.c.id)
            .order_by(RUNS.c.started, RUNS.c.id)
        )
        points: dict[Series, list[Point]] = {}
        for row in self._read(query):
            series = self._checked(Series, *row[:6])
            run, *values = row[6:]
            used = {**versions.get((run, ""), {}), **versions.get((run, series.case_key), {})}
            points.setdefault(series, []).append(self._checked(Point, run, *values, used))
        return points

    def _checked(self, row_type: type[_Row], *values: object) -> _Row:
        """Build a row of checked types: SQLite accepts any value in any column."""
        names = (field.name for field in fields(row_type))
        try:
            return msgspec.convert(dict(zip(names, values, strict=True)), type=row_type)
        except msgspec.ValidationError as error:
            message = f"the history {self._address.shown} contains a value that no run wrote: {error}"
            raise HistoryError(f"{message}; restore the database") from error

    def _read(self, query: Any) -> list[Any]:  # noqa: ANN401 - rows of whatever columns the query has
        with self._clean_errors(), self._engine.connect() as connection:
            # Other writers may have stored control characters.
            return [
                tuple(printable(value) if isinstance(value, str) else value for value in row)
                for row in connection.execute(query)
            ]

    @contextmanager
    def _clean_errors(self) -> Iterator[None]:
        """Turn a driver's error into one sentence without secrets."""
        try:
            yield
        except (SQLAlchemyError, OSError, OverflowError) as error:  # OverflowError: SQLite's driver, a number too large
            cause = error.orig if isinstance(error, DBAPIError) else error
            reason = " ".join(self._address.clean(str(cause)).split())
            message = f"the history {self._address.shown} failed: {reason}; {_ADVICE[self._engine.dialect.name]}"
            # Not chained: the driver's own message may contain the password.
            raise HistoryError(message) from None
