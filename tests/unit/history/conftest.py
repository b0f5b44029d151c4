"""Histories in files of their own, and runs to store in them."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import Engine, event

from pytest_rwkvperf.history import address
from pytest_rwkvperf.history.database import Database
from tests.unit.building import record_of, recorded, report_record

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from pytest_rwkvperf.history.address import Address
    from pytest_rwkvperf.store.record import Record


def run_number(number: int, seconds: float = 1.0, llama: str = "b1", commit: str = "") -> Record:
    """The record of a run that took so long for pp512 on a day of its own."""
    times = [[round(seconds * 1e9) + row, round(seconds * 1e9) + 2 * row] for row in range(3)]
    measured = replace(record_of(times), versions={"llama.cpp": llama})
    day = f"2026-{1 + number // 28:02}-{1 + number % 28:02}T12:00:00Z"
    return report_record(recorded(measured), id=f"{number:032x}", started=day, commit=commit)


def stored(place: Address, runs: Sequence[Record]) -> Database:
    """A history that holds these runs."""
    database = Database(place)
    database.prepare()
    for one in runs:
        assert database.add(one)
    return database


@pytest.fixture(autouse=True)
def unflushed() -> Iterator[None]:
    """SQLite without its flushes to the disk, which took half the time of these tests: none of them cuts the power."""

    def relax(connection: object, _record: object) -> None:
        if isinstance(connection, sqlite3.Connection):
            connection.execute("PRAGMA synchronous = OFF")

    event.listen(Engine, "connect", relax)
    yield
    event.remove(Engine, "connect", relax)


@pytest.fixture(autouse=True)
def data_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's data folder, away from the real one."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return tmp_path / "data"


@pytest.fixture
def place(tmp_path: Path) -> Address:
    """An SQLite file that does not exist yet."""
    return address.parse("history.db", tmp_path)
