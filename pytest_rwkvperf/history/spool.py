"""The spool: runs on this disk that a history's database has not yet stored.

A run is written to the spool, sent to the database, and removed when the database has committed it. If the process is
killed or the database does not answer, the file stays, and the next run sends it.
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
    """What `send` did: runs stored, runs that wait and why, and a sentence about each file that was set aside."""

    stored: int
    waiting: int
    reason: str
    asides: tuple[str, ...] = ()


def folder(address: Address) -> Path:
    """The folder in which the runs of one history wait."""
    return folders.data() / "history" / address.key


def waiting(address: Address) -> list[Path]:
    """The files of the waiting runs, the oldest first."""
    return sorted(folder(address).glob("*.json"))


def keep(record: Record, place: Path) -> Path:
    """Write a run to a folder on this disk that only its owner can read.

    Raises:
        OSError: the disk refuses.
        StorageError: the file was written and could not be flushed.
    """
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    # The time comes first, so that names sort in the order of the runs.
    path = place / f"{record.started.replace(':', '')}-{record.id}.json"
    write_atomically(path, records.dumps(record).encode())
    return path


def send(address: Address) -> Outcome:
    """Store every waiting run; after the database's first failure the others stay in the spool."""
    from pytest_rwkvperf.history.database import Database

    stored, asides = 0, []
    try:
        database = Database(address)
        database.prepare()
        for path in waiting(address):
            try:
                stored += database.add(records.read(path))
                path.unlink(missing_ok=True)  # another process may have sent it too
            except RecordError as error:  # noqa: PERF203 - an unusable file must not cost the others
                if path.exists():  # otherwise another process has sent it
                    asides.append(_set_aside(path, error))
    except HistoryError as error:
        return Outcome(stored, len(waiting(address)), str(error), tuple(asides))
    return Outcome(stored, 0, "", tuple(asides))


def _set_aside(path: Path, error: RecordError) -> str:
    """Rename an unusable file, so that later runs do not try it again."""
    aside = path.with_suffix(_UNREADABLE)
    with suppress(OSError):
        path.replace(aside)
    return f"{error} It is kept as {aside}."


def store(record: Record, address: Address) -> tuple[str, ...]:
    """Write a run to the spool and send all waiting ones; returns sentences for the summary.

    Raises:
        HistoryError: neither a disk nor the database accepts the run.
    """
    try:
        path = keep(record, folder(address))
    except (OSError, StorageError) as error:
        return (_store_directly(record, address, f"{folder(address)} refuses it: {error}"),)
    outcome = send(address)
    if outcome.reason:
        others = f" with {outcome.waiting - 1} earlier ones" if outcome.waiting > 1 else ""
        how = "the next run with the same --rwkv-history sends it, or `rwkvperf history send` does"
        return (f"Not stored yet: {outcome.reason}. The run is kept in {path}{others}; {how}.", *outcome.asides)
    earlier = f", with {outcome.stored - 1} that had been waiting" if outcome.stored > 1 else ""
    return (f"Stored in the history {address.shown}{earlier}.", *outcome.asides)


def _store_directly(record: Record, address: Address, refusal: str) -> str:
    """Store a run that the spool refuses; if the database fails too, keep the run in the temporary folder."""
    from pytest_rwkvperf.history.database import Database

    try:
        database = Database(address)
        database.prepare()
        database.add(record)
    except HistoryError as error:
        try:
            path = keep(record, Path(tempfile.gettempdir()) / "pytest-rwkvperf-history")
        except (OSError, StorageError) as last:
            lost = f"this run is in no history: {error}; {refusal}; {last}"
            raise HistoryError(f"{lost}; make room on a disk and run again") from None
        return f"Not stored: {error}; {refusal}. The run is kept in {path}; store it with `rwkvperf history add`."
    return f"Stored in the history {address.shown}. A failing database would have lost the run: {refusal}."
