from __future__ import annotations

import sqlite3
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine

from pytest_rwkvperf.core import strict_json
from pytest_rwkvperf.core.errors import HistoryError, RecordError
from pytest_rwkvperf.history.database import Database, Series
from pytest_rwkvperf.history.tables import METADATA
from tests.unit.building import CASE, record_of, recorded, report_record
from tests.unit.history.conftest import run_number, stored

if TYPE_CHECKING:
    from pytest_rwkvperf.history.address import Address

VERSION_1 = Path(__file__).with_name("version_1.sql")


def file_of(place: Address) -> Path:
    return Path(str(place.url.database))


def test_a_run_is_read_back_whole(place: Address) -> None:
    run = run_number(3)
    database = stored(place, [run])
    assert database.record(run.id[:31]) == run
    assert database.record("no such") is None
    (listed,) = database.runs()
    assert (listed.id, listed.started, listed.machine) == (run.id, run.started, run.fingerprint.id)
    assert listed.figures == 1


@pytest.mark.parametrize("letters", ["", "0" * 31])
def test_an_ambiguous_id_is_refused_with_both_runs(place: Address, letters: str) -> None:
    one, other = run_number(1), run_number(2)
    with pytest.raises(HistoryError, match=f"begins with '{letters}', {one.id} and {other.id} among them; give more"):
        stored(place, [one, other]).record(letters)


def test_a_run_sent_twice_is_there_once(place: Address) -> None:
    database = stored(place, [run_number(1)])
    assert not database.add(run_number(1))
    assert len(database.runs()) == 1


def test_another_run_under_a_stored_id_is_refused(place: Address) -> None:
    database = stored(place, [run_number(1)])
    with pytest.raises(RecordError, match=f"run {run_number(1).id} is there already and is another one"):
        database.add(run_number(1, seconds=2.0))
    assert database.record(run_number(1).id) == run_number(1)


@pytest.mark.parametrize("packed", [zlib.compress(b" " * 2**20), b"no such thing", zlib.compress(b"{}")[:-2]])
def test_a_damaged_or_endless_record_is_refused(place: Address, packed: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    database = stored(place, [run_number(1)])
    with sqlite3.connect(file_of(place)) as connection:
        connection.execute("UPDATE runs SET record = ?", (packed,))
    connection.close()
    monkeypatch.setattr(strict_json, "MAX_BYTES", 2**16)
    with pytest.raises(RecordError, match=r"unpack") as caught:
        database.record(run_number(1).id)
    assert run_number(1).id in str(caught.value)


def test_a_series_is_sorted_by_time_and_has_versions(place: Address) -> None:
    runs = [run_number(5, 2.0, llama="b2", commit="c"), run_number(4, 1.0, llama="b1")]
    (((series, points),)) = stored(place, runs).series().items()
    assert series == Series(runs[0].fingerprint.id, CASE.key, "pp512", "a" * 64, "CPU", 1)
    assert [round(point.tokens_per_second) for point in points] == [512, 256]
    assert [point.versions["llama.cpp"] for point in points] == ["b1", "b2"]
    assert points[0].versions["NVIDIA driver"] == "580.1"
    assert [point.commit for point in points] == ["", "c"]


def test_incomparable_figures_are_separate_series(place: Address) -> None:
    one = run_number(1)
    (case,) = one.cases
    assert case.measured is not None
    others = [
        replace(case.measured, protocol=2),
        replace(case.measured, model=replace(case.measured.model, content_hash="b" * 64)),
        replace(case.measured, device=replace(case.measured.device, name="another")),
    ]
    runs = [one, *(replace(run_number(2 + i), cases=(replace(case, measured=m),)) for i, m in enumerate(others))]
    assert len(stored(place, runs).series()) == 4


def test_a_wrong_answer_and_a_failed_case_have_no_figure(place: Address) -> None:
    case = recorded(record_of([[10**9] * 3] * 3))
    wrong = replace(case, items=(replace(case.items[0], verdict="INVALID"),))
    failed = replace(case, measured=None, figures=None, items=(replace(case.items[0], rate=None),), failure="died")
    run = report_record(wrong, failed)
    database = stored(place, [run])
    assert database.series() == {}
    assert database.record(run.id) == run


def test_a_failed_write_stores_nothing(place: Address) -> None:
    database = stored(place, [])
    run = run_number(1)
    twice = replace(run, cases=(run.cases[0], run.cases[0]))  # one figure under two rows of one key
    with pytest.raises(HistoryError, match="UNIQUE constraint failed"):
        database.add(twice)
    assert database.runs() == []


def test_two_writers_at_once_lose_nothing(place: Address) -> None:
    """Connections of their own: SQLite's locks hold between them as between processes."""
    with ThreadPoolExecutor(2) as pool:
        numbers = [range(start, start + 10) for start in (0, 100)]
        list(pool.map(lambda own: stored(place, [run_number(one) for one in own]), numbers))
    assert len(Database(place).runs()) == 20


def test_the_migrations_make_the_tables_that_the_code_reads(place: Address) -> None:
    stored(place, [])
    with create_engine(f"sqlite:///{file_of(place)}").connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), METADATA) == []


def test_a_history_of_the_first_release_is_brought_up_to_date(place: Address) -> None:
    with sqlite3.connect(file_of(place)) as connection:
        connection.executescript(VERSION_1.read_text(encoding="utf-8"))
    connection.close()
    database = stored(place, [run_number(9)])
    old, new = database.runs()
    assert (old.started, new.started) == ("2025-11-01T12:00:00Z", run_number(9).started)
    record = database.record(old.id)
    assert record is not None
    assert record.system.python == "3.11.2"
    assert {len(points) for points in database.series().values()} == {2}


def test_a_history_of_a_newer_release_is_left_alone(place: Address) -> None:
    stored(place, [])
    with sqlite3.connect(file_of(place)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    before = file_of(place).read_bytes()
    with pytest.raises(HistoryError, match=r"newer release \(its schema is 9999\); upgrade"):
        Database(place).prepare()
    assert file_of(place).read_bytes() == before


def test_a_file_that_is_no_database_is_left_alone(place: Address) -> None:
    file_of(place).write_text("my diary", encoding="utf-8")
    with pytest.raises(HistoryError, match=r"history\.db failed: file is not a database"):
        Database(place).prepare()
    assert file_of(place).read_text(encoding="utf-8") == "my diary"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("figures SET tokens_per_second = -5", "contains a value that no run wrote: Expected `float` > 0.0"),
        ("figures SET tokens_per_second = 'fast'", "contains a value that no run wrote: Expected `float`, got `str`"),
        ("figures SET high = 9e999", "contains a value that no run wrote: Expected `float` <= 1.79"),
        ("runs SET machine = x'ff'", "contains a value that no run wrote: Expected `str`, got `bytes`"),
    ],
)
def test_impossible_values_are_refused(change: str, said: str, place: Address) -> None:
    database = stored(place, [run_number(1)])
    with closing(sqlite3.connect(file_of(place))) as connection, connection:
        connection.execute(f"UPDATE {change}")
    with pytest.raises(HistoryError, match=said):
        database.series()
