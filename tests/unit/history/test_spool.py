from __future__ import annotations

import os
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_rwkvperf.core.errors import HistoryError
from pytest_rwkvperf.history import address, spool
from pytest_rwkvperf.history.database import Database
from tests.unit.building import record_of, recorded
from tests.unit.history.conftest import run_number, stored

if TYPE_CHECKING:
    from pytest_rwkvperf.history.address import Address
    from pytest_rwkvperf.store.record import Record

# No server listens on port 1.
CLOSED = "postgresql://me:hush-hush@127.0.0.1:1/team"

STORE = """
import resource, signal, sys
from pathlib import Path
from pytest_rwkvperf.history import address, spool
from pytest_rwkvperf.store import record
place = address.parse(sys.argv[1], Path())
limit = int(sys.argv[3])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
for sentence in spool.store(record.read(Path(sys.argv[2])), place):
    print(sentence)
"""


def test_a_run_is_stored_and_leaves_no_file(place: Address) -> None:
    assert spool.store(run_number(1), place) == (f"Stored in the history {place.shown}.",)
    assert [one.id for one in Database(place).runs()] == [run_number(1).id]
    assert spool.waiting(place) == []


def test_a_run_that_no_server_takes_is_kept_for_its_owner_alone(tmp_path: Path) -> None:
    closed = address.parse(CLOSED, tmp_path)
    first, second = (spool.store(run_number(number), closed)[0] for number in (1, 2))
    kept = spool.waiting(closed)
    assert len(kept) == 2
    assert first.startswith(
        "Not stored yet: the history postgresql://me:***@127.0.0.1:1/team failed: connection failed"
    )
    assert f"The run is kept in {kept[0]};" in first
    assert f"{kept[1]} with 1 earlier ones;" in second
    assert spool.folder(closed).stat().st_mode & 0o077 == 0
    everything = first + second + "".join(f"{path}{path.read_text(encoding='utf-8')}" for path in kept)
    assert "hush" not in everything


def test_the_next_run_sends_waiting_runs(place: Address) -> None:
    for number in (1, 2):
        spool.keep(run_number(number), spool.folder(place))
    assert spool.store(run_number(3), place) == (f"Stored in the history {place.shown}, with 2 that had been waiting.",)
    assert [one.id for one in Database(place).runs()] == [run_number(number).id for number in (1, 2, 3)]
    assert spool.waiting(place) == []


def test_a_stored_run_whose_file_was_not_removed_is_stored_once(place: Address) -> None:
    stored(place, [run_number(1)])
    spool.keep(run_number(1), spool.folder(place))
    assert spool.send(place) == spool.Outcome(0, 0, "")
    assert len(Database(place).runs()) == 1


def test_a_damaged_file_is_set_aside(place: Address) -> None:
    bad = spool.keep(run_number(1), spool.folder(place))
    bad.write_text("{", encoding="utf-8")
    stored_now, aside = spool.store(run_number(2), place)
    assert stored_now == f"Stored in the history {place.shown}."
    assert f"It is kept as {bad.with_suffix('.unreadable')}" in aside
    assert bad.with_suffix(".unreadable").read_text(encoding="utf-8") == "{"


def noisy(run: Record, seed: int, samples: int) -> Record:
    """The run with that many random samples, which compress badly."""
    source = random.Random(seed)
    times = [[source.randrange(10**9, 10**10) for _ in range(samples)] for _ in range(3)]
    return replace(run, cases=(recorded(record_of(times)),))


def store_with_limit(place: Address, run: Record, folder: Path, limit: int) -> str:
    """Store from another process whose files are limited to `limit` bytes."""
    path = spool.keep(run, folder)
    command = [sys.executable, "-c", STORE, str(place.url.database), str(path), str(limit)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout


def test_another_run_under_a_stored_id_is_set_aside(place: Address) -> None:
    stored(place, [run_number(1)])
    path = spool.keep(run_number(1, seconds=2.0), spool.folder(place))
    outcome = spool.send(place)
    (sentence,) = outcome.asides
    assert (outcome.stored, outcome.waiting, outcome.reason) == (0, 0, "")
    assert "is there already and is another one" in sentence
    assert str(path.with_suffix(".unreadable")) in sentence
    assert path.with_suffix(".unreadable").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="file sizes are limited by POSIX's setrlimit")
def test_a_full_disk_loses_nothing(place: Address, tmp_path: Path) -> None:
    database = stored(place, [noisy(run_number(1), 1, 1500)])
    size = Path(str(place.url.database)).stat().st_size
    run = noisy(run_number(2), 2, 90)
    said = store_with_limit(place, run, tmp_path / "in", limit=size)
    assert "Not stored yet" in said
    assert "full" in said or "disk I/O error" in said
    assert len(database.runs()) == 1
    (kept,) = spool.waiting(place)
    assert str(kept) in said
    assert "with 1 that had been waiting" in spool.store(run_number(3), place)[0]
    assert database.record(run.id) == run


def test_without_a_data_folder_a_run_is_stored_directly(place: Address, data_home: Path) -> None:
    data_home.write_text("a file where the folder should be", encoding="utf-8")
    (sentence,) = spool.store(run_number(1), place)
    assert sentence.startswith(f"Stored in the history {place.shown}. A failing database would have lost the run: ")
    assert len(Database(place).runs()) == 1


def test_without_data_folder_and_database_a_run_is_kept_in_the_temporary_folder(
    tmp_path: Path, data_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data_home.write_text("a file where the folder should be", encoding="utf-8")
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path / "tmp"))
    closed = address.parse(CLOSED, tmp_path)
    (sentence,) = spool.store(run_number(1), closed)
    (kept,) = (tmp_path / "tmp").rglob("*.json")
    assert f"The run is kept in {kept}; store it with `rwkvperf history add`." in sentence
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(data_home / "nowhere"))
    with pytest.raises(HistoryError, match="this run is in no history"):
        spool.store(run_number(2), closed)
