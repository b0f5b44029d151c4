"""Runs on their way into a history: on this disk first, sent then, and removed when the database has them.

A run is never in memory alone: whatever ends the process, or keeps the database from answering, the file stays and goes
with the next run.
"""

from __future__ import annotations

import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_rwkvperf.core import folders
from pytest_rwkvperf.core.atomic import write_atomically
from pytest_rwkvperf.core.errors import HistoryError, RecordError, StorageError
from pytest_rwkvperf.store import record as records

if TYPE_CHECKING:
    from pytest_rwkvperf.history.address import Address
    from pytest_rwkvperf.store.record import Record

_UNREADABLE = ".unreadable"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What sending did: how many runs were stored, how many wait, why, and a sentence about each file set aside."""

    stored: int
    waiting: int
    reason: str
    asides: tuple[str, ...] = ()


def folder(address: Address) -> Path:
    """Where the runs wait that belong to a history; one folder for each."""
    return folders.data() / "history" / address.key


def waiting(address: Address) -> list[Path]:
    """The runs that wait, the oldest first."""
    return sorted(folder(address).glob("*.json"))


def keep(record: Record, place: Path) -> Path:
    """Write a run to a folder of this disk, readable by its owner alone.

    Raises:
        OSError: the disk refuses.
        StorageError: it does not vouch for what it took.
    """
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    # The time first, so that names sort as the runs went.
    path = place / f"{record.started.replace(':', '')}-{record.id}.json"
    write_atomically(path, records.dumps(record).encode())
    return path


def send(address: Address) -> Outcome:
    """Store every run that waits, and stop at the database's first failure; nobody's file is lost by it."""
    from pytest_rwkvperf.history.database import Database

    stored, asides = 0, []
    try:
        database = Database(address)
        database.prepare()
        for path in waiting(address):
            try:
                stored += database.add(records.read(path))
            except RecordError as error:
                asides.append(_set_aside(path, error))
                continue
            path.unlink(missing_ok=True)  # another process may have sent it too
    except HistoryError as error:
        return Outcome(stored, len(waiting(address)), str(error), tuple(asides))
    return Outcome(stored, 0, "", tuple(asides))


def _set_aside(path: Path, error: RecordError) -> str:
    """Keep a file that is no record from standing in the way of the others."""
    if not path.exists():  # another process has sent it
        return ""
    aside = path.with_suffix(_UNREADABLE)
    with suppress(OSError):
        path.replace(aside)
    return f"{error} It is kept as {aside}."


def store(record: Record, address: Address) -> tuple[str, ...]:
    """Keep a run and send all that wait; sentences for a person.

    Raises:
        HistoryError: no disk and no database takes the run.
    """
    try:
        path = keep(record, folder(address))
    except (OSError, StorageError) as error:
        return (_past_the_spool(record, address, f"{folder(address)} refuses it: {error}"),)
    outcome = send(address)
    asides = tuple(filter(None, outcome.asides))
    if outcome.reason:
        others = f" with {outcome.waiting - 1} earlier ones" if outcome.waiting > 1 else ""
        how = "the next run with the same --rwkv-history sends it, or `rwkvperf history send` does"
        return (f"Not stored yet: {outcome.reason}. The run is kept in {path}{others}; {how}.", *asides)
    earlier = f", with {outcome.stored - 1} that had been waiting" if outcome.stored > 1 else ""
    return (f"Stored in the history {address.shown}{earlier}.", *asides)


def _past_the_spool(record: Record, address: Address, refusal: str) -> str:
    """Store a run that the user's data folder does not take; where the database fails too, any disk is good enough.

    Raises:
        HistoryError: there is none.
    """
    from pytest_rwkvperf.history.database import Database

    try:
        database = Database(address)
        database.prepare()
        database.add(record)
    except HistoryError as error:
        try:
            path = keep(record, Path(tempfile.gettempdir()) / "pytest-rwkvperf-history")
        except (OSError, StorageError) as last:
            raise HistoryError(f"this run is in no history: {error}; {refusal}; {last}") from None
        return f"Not stored: {error}; {refusal}. The run is kept in {path}; store it with `rwkvperf history add`."
    return f"Stored in the history {address.shown}. Had that failed, the run would be lost: {refusal}."
