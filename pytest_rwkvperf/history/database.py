"""A history's database: brought up to date, written a run at a time, and read back as series.

A run is one transaction: it is there whole, or not at all. Two writers wait for each other.
"""

from __future__ import annotations

import logging
import sqlite3
import sys
import time
import zlib
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import msgspec
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, event, func, select, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from pytest_rwkvperf.core import strict_json
from pytest_rwkvperf.core.errors import HistoryError, RecordError
from pytest_rwkvperf.core.text import printable
from pytest_rwkvperf.history.tables import FIGURES, RUNS, VERSIONS
from pytest_rwkvperf.store import record as records

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Connection, Engine, Table

    from pytest_rwkvperf.history.address import Address
    from pytest_rwkvperf.store.record import Record, RecordedCase, RecordedItem

WAIT_SECONDS = 30
"""For another writer to an SQLite file."""

_STEP_SECONDS = 0.1
"""SQLite's own waiting at one go: Python hears no Ctrl-C in it."""

CONNECT_SECONDS = 10
"""For a server's answer; after a run a person waits for it."""

_POSTGRESQL: dict[str, Any] = {
    "connect_timeout": CONNECT_SECONDS,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
    "application_name": "pytest-rwkvperf",
}
"""A connection that went dead is noticed within half a minute; milliseconds and seconds as libpq has them."""

_LARGEST = sys.float_info.max

_MIGRATIONS = Path(__file__).with_name("migrations")
_MIGRATION_LOCK = 0x52574B56  # "RWKV": one upgrade at a time, by PostgreSQL's advisory locks
_INSERT: dict[str, Callable[[Table], sqlite.Insert | postgresql.Insert]] = {
    "sqlite": sqlite.insert,
    "postgresql": postgresql.insert,
}


@dataclass(frozen=True, slots=True)
class StoredRun:
    """One run as a list shows it; `figures` is how many of its workloads have one."""

    id: str
    started: str
    machine: str
    commit: str
    exit_status: int
    figures: int


@dataclass(frozen=True, slots=True)
class Series:
    """What makes figures comparable over time: one machine, case, workload, model content, device and protocol."""

    machine: str
    case_key: str
    workload: str
    model_hash: str
    device_name: str
    protocol: int

    @property
    def label(self) -> str:
        """For people: the case and its workload."""
        return f"{self.case_key} | {self.workload}"


@dataclass(frozen=True, slots=True)
class Point:
    """A series' figure in one run: tokens per second with the 95 % interval, and what it was measured with."""

    run: str
    started: str
    commit: str
    tokens_per_second: Annotated[float, msgspec.Meta(gt=0, le=_LARGEST)]
    low: Annotated[float, msgspec.Meta(ge=0, le=_LARGEST)]
    high: Annotated[float, msgspec.Meta(ge=0, le=_LARGEST)] | None
    versions: dict[str, str]


_Row = TypeVar("_Row", StoredRun, Series, Point)


class Database:
    """A history. Every method opens a connection of its own and raises HistoryError where the database fails."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._engine = _engine(address)

    def prepare(self) -> None:
        """Make the tables, or bring those of an older release up to date.

        Raises:
            HistoryError: the database cannot be reached or written, or a newer release made it.
        """
        if self._engine.dialect.name == "sqlite":
            with self._told():
                Path(str(self._address.url.database)).parent.mkdir(parents=True, exist_ok=True)
        with self._told(), self._engine.begin() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(text(f"SELECT pg_advisory_xact_lock({_MIGRATION_LOCK})"))
            self._migrate(connection)

    def _migrate(self, connection: Connection) -> None:
        config = Config()
        config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
        scripts = ScriptDirectory.from_config(config)
        found = MigrationContext.configure(connection).get_current_revision()
        if found == scripts.get_current_head():
            return
        if found is not None and found not in {one.revision for one in scripts.walk_revisions()}:
            raise HistoryError(
                f"the history {self._address.shown} was made by a newer release (its schema is {found}); "
                "upgrade pytest-rwkvperf"
            )
        config.attributes["connection"] = connection
        logging.getLogger("alembic").setLevel(logging.WARNING)
        command.upgrade(config, "head")

    def add(self, record: Record) -> bool:
        """Store a run; False when it is there already.

        Raises:
            HistoryError: the database fails; then nothing of the run is stored.
            RecordError: another run is stored under its id, or something that is none.
        """
        run, figures, versions = _rows(record)
        with self._told(), self._engine.begin() as connection:
            insert = _INSERT[connection.dialect.name](RUNS).values(run).on_conflict_do_nothing()
            # Otherwise SQLAlchemy forgets an INSERT's row count.
            if connection.execute(insert, execution_options={"preserve_rowcount": True}).rowcount == 0:
                packed = connection.execute(select(RUNS.c.record).where(RUNS.c.id == record.id)).scalar_one()
                self._check_same(record, packed)
                return False
            if figures:
                connection.execute(FIGURES.insert(), figures)
            connection.execute(VERSIONS.insert(), versions)
            return True

    def _check_same(self, record: Record, packed: bytes) -> None:
        """Refuse a record that only has the id of the stored one; as files have them, control characters as escapes."""
        if _unpacked(record.id, packed) != records.loads(records.dumps(record), Path(f"of run {record.id}")):
            raise RecordError(
                f"run {record.id} is there already and is another one: the history {self._address.shown} keeps what it "
                f"has, which `rwkvperf history record` shows"
            )

    def runs(self) -> list[StoredRun]:
        """Every run, the oldest first.

        Raises:
            HistoryError: the database fails, or holds what no run wrote.
        """
        count = select(func.count()).where(FIGURES.c.run == RUNS.c.id).scalar_subquery()
        columns = (RUNS.c.id, RUNS.c.started, RUNS.c.machine, RUNS.c.commit, RUNS.c.exit_status, count)
        return [self._as(StoredRun, *row) for row in self._read(select(*columns).order_by(RUNS.c.started, RUNS.c.id))]

    def record(self, run: str) -> Record | None:
        """A run's whole record by the first letters of its id; None when there is none.

        Raises:
            HistoryError: more than one run's id begins so.
            RecordError: what is stored is no record that this release reads.
        """
        query = select(RUNS.c.id, RUNS.c.record).where(RUNS.c.id.startswith(run, autoescape=True)).limit(2)
        match self._read(query):
            case [(name, packed)]:
                return _unpacked(name, packed)
            case [(one, _), (other, _)]:
                raise HistoryError(
                    f"more than one run of {self._address.shown} has an id that begins with {run!r}, "
                    f"{one} and {other} among them; give more of its letters"
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
        found: dict[Series, list[Point]] = {}
        for row in self._read(query):
            one = self._as(Series, *row[:6])
            run, started, commit, rate, low, high = row[6:]
            used = {**versions.get((run, ""), {}), **versions.get((run, one.case_key), {})}
            found.setdefault(one, []).append(self._as(Point, run, started, commit, rate, low, high, used))
        return found

    def _as(self, kind: type[_Row], *values: object) -> _Row:
        """What was read as what it has to be: SQLite takes anything into any column.

        Raises:
            HistoryError: it is something else.
        """
        names = (field.name for field in fields(kind))
        try:
            return msgspec.convert(dict(zip(names, values, strict=True)), type=kind)
        except msgspec.ValidationError as error:
            raise HistoryError(f"the history {self._address.shown} holds what no run wrote: {error}") from error

    def _read(self, query: Any) -> list[Any]:  # noqa: ANN401 - rows of whatever columns the query has
        with self._told(), self._engine.connect() as connection:
            # Whoever may write to the database may have written anything.
            return [tuple(map(_shown, row)) for row in connection.execute(query)]

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Turn a driver's error into one sentence without secrets."""
        try:
            yield
        except (SQLAlchemyError, OSError, OverflowError) as error:  # the last of SQLite's driver: a number too large
            cause = error.orig if isinstance(error, DBAPIError) else error
            reason = " ".join(self._address.clean(str(cause)).split())
            # The chain would show the driver's own words, password and all.
            raise HistoryError(f"the history {self._address.shown} failed: {reason}") from None


def _unpacked(run: str, packed: bytes) -> Record:
    """A stored record. Whoever may write to the database may have written a few bytes that unpack without an end.

    Raises:
        RecordError: it is none.
    """
    unpacking = zlib.decompressobj()
    try:
        data = unpacking.decompress(packed, strict_json.MAX_BYTES)
        text = data.decode()
    except (zlib.error, UnicodeDecodeError, TypeError) as error:
        raise RecordError(f"what is stored of run {run} cannot be unpacked: {error}") from error
    if not unpacking.eof:
        raise RecordError(
            f"what is stored of run {run} cannot be unpacked: it ends too early, or has more than the "
            f"{strict_json.MAX_BYTES:,} bytes that any record has"
        )
    return records.loads(text, Path(f"of run {run}"))


def _shown(value: Any) -> Any:  # noqa: ANN401 - a column's
    return printable(value) if isinstance(value, str) else value


def _engine(address: Address) -> Engine:
    if address.url.drivername.startswith("postgresql"):
        mine = {name: value for name, value in _POSTGRESQL.items() if name not in address.url.query}
        return create_engine(address.url, poolclass=NullPool, connect_args=mine, hide_parameters=True)
    engine = create_engine(
        address.url, poolclass=NullPool, connect_args={"timeout": _STEP_SECONDS}, hide_parameters=True
    )

    # Python's driver begins no transaction before DDL or SELECT; SQLAlchemy's documented remedy is to begin it here.
    @event.listens_for(engine, "connect")
    def _connected(connection: Any, _record: object) -> None:  # noqa: ANN401 - sqlite3's, untyped through the pool
        connection.isolation_level = None
        connection.execute("PRAGMA foreign_keys = ON")

    @event.listens_for(engine, "begin")
    def _begun(connection: Connection) -> None:
        # At once for writing: two that read first and write then would deadlock and one of them fail.
        limit = time.monotonic() + WAIT_SECONDS
        while not _begins(connection.connection.dbapi_connection) and time.monotonic() < limit:
            continue
        if not connection.connection.dbapi_connection.in_transaction:  # type: ignore[union-attr]  # sqlite3's own
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        connection.exec_driver_sql(f"PRAGMA busy_timeout = {WAIT_SECONDS * 1000}")

    return engine


def _begins(connection: Any) -> bool:  # noqa: ANN401 - as above
    """Try to begin; False when another process has its turn. Other errors are the next statement's to tell."""
    try:
        connection.execute("BEGIN IMMEDIATE")
    except sqlite3.DatabaseError as error:
        return "locked" not in str(error)
    return True


def _rows(record: Record) -> tuple[dict[str, Any], list[dict[str, Any]], list[dict[str, Any]]]:
    """A run as rows of the three tables."""
    run = {
        "id": record.id,
        "started": record.started,
        "machine": record.fingerprint.id,
        "commit": record.commit,
        "project_version": record.project_version,
        "exit_status": record.exit_status,
        "record": zlib.compress(records.dumps(record).encode()),
    }
    shared = {
        "operating system": record.system.operating_system,
        "Python": record.system.python,
        "pytest-rwkvperf": record.project_version,
        **record.system.drivers,
    }
    by_case = {"": shared, **{case.case.key: case.measured.versions for case in record.cases if case.measured}}
    versions = [
        {"run": record.id, "case_key": case, "name": name, "version": version}
        for case, names in by_case.items()
        for name, version in names.items()
    ]
    return run, [_figure(record.id, *pair) for pair in record.items() if _counts(*pair)], versions


def _counts(case: RecordedCase, item: RecordedItem) -> bool:
    """Whether a figure stands for a speed: a wrong answer's does not."""
    return case.measured is not None and item.rate is not None and item.verdict != "INVALID"


def _figure(run: str, case: RecordedCase, item: RecordedItem) -> dict[str, Any]:
    assert case.measured is not None  # noqa: S101 - _counts has asked
    assert item.rate is not None  # noqa: S101 - likewise
    return {
        "run": run,
        "case_key": case.case.key,
        "workload": item.workload,
        "backend": case.case.backend,
        "quant": case.case.quant,
        "model_hash": case.measured.model.content_hash,
        "device_name": case.measured.device.name,
        "protocol": case.measured.protocol,
        "tokens_per_second": item.rate.median,
        "low": item.rate.low,
        "high": item.rate.high,
        "verdict": item.verdict,
        "ratio": item.comparison.ratio if item.comparison else None,
        "peak_rss_bytes": max(one.peak_rss_bytes for one in case.measured.runs),
    }
