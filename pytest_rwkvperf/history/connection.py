"""Connections to a history's database, with limits on every wait."""

from __future__ import annotations

import sqlite3
import time
from typing import TYPE_CHECKING, Any

from sqlalchemy import create_engine, event
from sqlalchemy.pool import NullPool

if TYPE_CHECKING:
    from sqlalchemy import URL, Connection, Engine

_WAIT_SECONDS = 30
"""For another writer to an SQLite file."""

_STEP_SECONDS = 0.1
"""The longest uninterrupted wait inside SQLite, in which Python cannot handle Ctrl-C."""

_POSTGRESQL: dict[str, Any] = {
    "connect_timeout": 10,  # a person waits for it after a run
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
    "application_name": "pytest-rwkvperf",
}
"""libpq's parameters, in seconds but for tcp_user_timeout (milliseconds): a dead connection is noticed in half a
minute."""


def engine_for(url: URL) -> Engine:
    """SQLAlchemy's engine for an address. It connects anew for each transaction."""
    if url.drivername.startswith("postgresql"):
        defaults = {name: value for name, value in _POSTGRESQL.items() if name not in url.query}
        return create_engine(url, poolclass=NullPool, connect_args=defaults, hide_parameters=True)
    engine = create_engine(url, poolclass=NullPool, connect_args={"timeout": _STEP_SECONDS}, hide_parameters=True)
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _record: object) -> None:  # noqa: ANN401 - sqlite3's, untyped in the pool
    """Leave transactions to `_begin_sqlite`: Python's driver begins none before DDL or SELECT (SQLAlchemy's advice)."""
    connection.isolation_level = None
    connection.execute("PRAGMA foreign_keys = ON")


def _begin_sqlite(connection: Connection) -> None:
    """Begin a writing transaction at once: two that read first and then write would deadlock, and one would fail."""
    driver: Any = connection.connection.dbapi_connection
    limit = time.monotonic() + _WAIT_SECONDS
    while not _tried_to_begin(driver) and time.monotonic() < limit:
        continue
    if not driver.in_transaction:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    connection.exec_driver_sql(f"PRAGMA busy_timeout = {_WAIT_SECONDS * 1000}")


def _tried_to_begin(driver: Any) -> bool:  # noqa: ANN401 - as above
    """Try to begin; False if another process holds the lock. The next statement reports any other error."""
    try:
        driver.execute("BEGIN IMMEDIATE")
    except sqlite3.DatabaseError as error:
        return "locked" not in str(error)
    return True
