"""A history in PostgreSQL: a server from the installed packages, started for these tests."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from pytest_rwkvperf.history import address, spool
from pytest_rwkvperf.history.database import Database
from tests.integration.conftest import lacking
from tests.unit.history.conftest import run_number, stored

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_rwkvperf.history.address import Address

WRITER = """
import sys
from pathlib import Path
from pytest_rwkvperf.history import address
from tests.unit.history.conftest import run_number, stored
stored(address.parse(sys.argv[1], Path()), [run_number(int(n)) for n in sys.argv[2:]])
"""

PASSWORD = "p@ss/w:rd 100%"  # noqa: S105 - of a server that lives for these tests


def programs() -> Path | None:
    """PostgreSQL's folder of programs: on the path, or where Debian has them."""
    if found := shutil.which("initdb"):
        return Path(found).parent
    return max(Path("/usr/lib/postgresql").glob("*/bin"), default=None)


@dataclass(frozen=True)
class Cluster:
    """A server in a folder of its own."""

    programs: Path
    folder: Path
    port: int
    user: dict[str, str]
    """Root may not run a server: Debian's package makes the user."""

    def run(self, program: str, *arguments: str) -> None:
        command = [str(self.programs / program), "-D", str(self.folder / "data"), *arguments]
        subprocess.run(command, check=True, cwd=self.folder, stdout=subprocess.DEVNULL, **self.user)  # type: ignore[call-overload]

    def start(self) -> None:
        # Durability is not what is tested, and costs seconds.
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={self.folder} -F"
        self.run("pg_ctl", "start", "-w", "-l", str(self.folder / "log"), "-o", options)

    def stop(self) -> None:
        self.run("pg_ctl", "stop", "-m", "immediate")

    def url(self, password: str = PASSWORD) -> str:
        return f"postgresql://tester:{quote(password, safe='')}@127.0.0.1:{self.port}/postgres"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    if (found := programs()) is None:
        lacking("PostgreSQL is not installed: apt-get install postgresql")
    # Not in pytest's folder, which is closed to the user that the server runs as.
    folder = Path(tempfile.mkdtemp(prefix="rwkvperf-postgres-"))
    user = {"user": "postgres", "group": "postgres"} if os.name == "posix" and os.geteuid() == 0 else {}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    one = Cluster(found, folder, port, user)
    (folder / "password").write_text(PASSWORD, encoding="utf-8")
    if user:
        for path in (folder, folder / "password"):
            shutil.chown(path, "postgres", "postgres")
    try:
        one.run("initdb", "-U", "tester", "-A", "scram-sha-256", f"--pwfile={folder / 'password'}", "--no-sync")
        one.start()
        yield one
        one.stop()
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def place(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Address:
    """A history without tables, and a data folder of its own."""
    import psycopg

    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    with psycopg.connect(cluster.url(), autocommit=True) as connection:
        connection.execute("DROP SCHEMA public CASCADE")
        connection.execute("CREATE SCHEMA public")
    return address.parse(cluster.url(), Path())


def test_runs_are_stored_and_read_back(place: Address) -> None:
    runs = [run_number(number, llama=f"b{number}") for number in range(3)]
    database = stored(place, runs)
    assert not database.add(runs[0])
    assert [database.record(one.id) for one in runs] == runs
    ((points,)) = database.series().values()
    assert [point.versions["llama.cpp"] for point in points] == ["b0", "b1", "b2"]


def test_two_writers_can_make_the_tables_at_once(place: Address, cluster: Cluster) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, cluster.url(), *map(str, numbers)], env=environment)
        for numbers in (range(15), range(100, 115))
    ]
    assert [writer.wait(300) for writer in writers] == [0, 0]
    assert len(Database(place).runs()) == 30


def test_a_dropped_connection_loses_nothing(place: Address, cluster: Cluster) -> None:
    import psycopg
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    dropped: list[object] = []

    def drop(*arguments: Any) -> None:  # noqa: ANN401 - what SQLAlchemy passes
        if "INSERT INTO figures" in str(arguments[2]) and not dropped:
            with psycopg.connect(cluster.url(), autocommit=True) as other:
                others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = %s"
                dropped.extend(other.execute(others, ["pytest-rwkvperf"]).fetchall())

    stored(place, [run_number(1)])
    event.listen(Engine, "before_cursor_execute", drop)
    try:
        (sentence,) = spool.store(run_number(2), place)
    finally:
        event.remove(Engine, "before_cursor_execute", drop)
    assert len(dropped) == 1
    assert sentence.startswith(f"Not stored yet: the history {place.shown} failed: terminating connection")
    assert [one.id for one in Database(place).runs()] == [run_number(1).id]
    assert spool.send(place) == spool.Outcome(1, 0, "")
    assert Database(place).record(run_number(2).id) == run_number(2)


def test_a_restarted_server_gets_the_waiting_runs(place: Address, cluster: Cluster) -> None:
    stored(place, [run_number(1)])
    cluster.stop()
    try:
        said = [spool.store(run_number(number), place)[0] for number in (2, 3)]
    finally:
        cluster.start()
    assert all(one.startswith("Not stored yet") for one in said)
    assert spool.store(run_number(4), place) == (f"Stored in the history {place.shown}, with 2 that had been waiting.",)
    assert [one.id for one in Database(place).runs()] == [run_number(number).id for number in (1, 2, 3, 4)]


def test_a_wrong_password_is_not_repeated(place: Address, cluster: Cluster) -> None:
    del place
    wrong = "the-wrong-one"
    (sentence,) = spool.store(run_number(1), address.parse(cluster.url(wrong), Path()))
    assert "password authentication failed" in sentence
    assert wrong not in sentence
