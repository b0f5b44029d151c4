"""The folder in which the processes of one run, pytest-xdist's workers among them, share what they have measured."""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from pytest_rwkvperf.core import errors, folders, locks
from pytest_rwkvperf.core.atomic import write_atomically
from pytest_rwkvperf.core.cases import Item
from pytest_rwkvperf.measure import record
from pytest_rwkvperf.measure.record import CaseRecord, Pairing
from pytest_rwkvperf.run.discovery import MissingEngine

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_rwkvperf.core.cases import Case

Measured = TypeVar("Measured", CaseRecord, Pairing)

_SUFFIXES: Mapping[type[CaseRecord | Pairing], str] = {CaseRecord: ".json", Pairing: ".pair"}
_FAILURES: Mapping[type[CaseRecord | Pairing], str] = {CaseRecord: ".failure", Pairing: ".pair-failure"}
_CEILINGS, _OUTLINE, _WAIT, _SAID = ".ceilings", "outline", ".wait", ".said"


@dataclass(frozen=True, slots=True)
class Outline:
    """What a run set out to do. An xdist controller collects nothing, and yet schedules tests and writes reports."""

    items: tuple[Item, ...] = ()
    missing: tuple[MissingEngine, ...] = ()
    hardware: dict[str, str] = field(default_factory=dict)
    """The hardware (`lease.hardware`) that each test measures on, by node id."""


class RunFolder:
    """A run's folder. Only this class knows its layout.

    `HASH.json` is the record of a case, `HASH.pair` its records of both environments in A/B, `HASH.failure` and
    `HASH.pair-failure` the reason why measuring these failed, as `ERROR: sentence`; `ADDRESS.ceilings` is what a GPU
    can reach, `outline` an Outline, `PID.wait` how many seconds a process waited for devices, `PID.said` what one of
    pytest-xdist's workers said, a JSON text a line.
    Reading raises a MeasurementError where a record is damaged, writing a StorageError where the disk refuses.
    """

    def __init__(self, path: Path, owner: folders.OwnedFolder | None = None) -> None:
        self.path = path
        self._owner = owner
        self._seconds: dict[str, float] = {}
        self._unwritten: dict[Path, bytes] = {}
        self._waited = 0.0
        self._read: dict[Path, int] = {}
        """The bytes of each worker's lines that `said` has given."""

    @classmethod
    def new(cls) -> RunFolder:
        """A folder for a new run; the process that made it removes it.

        Raises:
            StorageError: the cache takes no folder, or no lock.
        """
        owned = folders.new_run_folder()
        return cls(owned.path, owned)

    def measured(self, case: Case, kind: type[Measured]) -> Measured | None:
        """What was measured of a case; None before that."""
        path = self._path_of(case, _SUFFIXES[kind])
        if path in self._unwritten:
            return record.from_json(self._unwritten[path], kind)
        return record.from_json(path.read_bytes(), kind) if path.exists() else None

    def keep(self, case: Case, measured: CaseRecord | Pairing) -> str:
        """Keep what was measured of a case, in this process alone where the disk refuses it.

        Returns: why it refuses; empty where it does not.
        """
        path, data = self._path_of(case, _SUFFIXES[type(measured)]), record.to_json(measured)
        try:
            self._write(path, data)
        except errors.StorageError as error:
            self._unwritten[path] = data
            return str(error)
        return ""

    def failure(self, case: Case, kind: type[CaseRecord | Pairing]) -> str:
        """Why measuring a case failed, as `ERROR: sentence`; empty when it did not."""
        path = self._path_of(case, _FAILURES[kind])
        return path.read_text(encoding="utf-8") if path.exists() else ""

    def keep_failure(self, case: Case, kind: type[CaseRecord | Pairing], error: errors.RwkvPerfError) -> None:
        """Keep why measuring a case failed, so that no other process of the run tries again."""
        sentence = f"{type(error).__name__}: {error}"
        self._write(self._path_of(case, _FAILURES[kind]), sentence.encode(errors="backslashreplace"))

    def records(self) -> list[CaseRecord]:
        """Every case's record, in a stable order; none in A/B."""
        return self._all(CaseRecord)

    def pairings(self) -> list[Pairing]:
        """Every case's pairing of an A/B run, in a stable order."""
        return self._all(Pairing)

    def anything_measured(self) -> bool:
        """Whether a case was measured, judged or not: a test may call measure() alone."""
        return bool(self._unwritten) or any(next(self.path.glob(f"*{suffix}"), None) for suffix in _SUFFIXES.values())

    def spent(self, case: Case) -> tuple[float, int]:
        """The seconds that all cases took until now, and how many others than `case` were begun.

        Failed ones took nothing. Every record is read only once.
        """
        with os.scandir(self.path) as entries:
            for entry in entries:
                if entry.name not in self._seconds and (seconds := _seconds(Path(entry.path))) is not None:
                    self._seconds[entry.name] = seconds
        others = {Path(name).stem for name in self._seconds} - {_stem(case)}
        return sum(self._seconds.values()), len(others)

    def add_wait(self, seconds: float) -> None:
        """Keep that this process waited so long for a device that another run used; in it alone if the disk refuses."""
        self._waited += seconds
        if seconds:
            with suppress(errors.StorageError):
                self._write(self.path / f"{os.getpid()}{_WAIT}", str(self._waited).encode())

    def waited(self) -> float:
        """The seconds that a process of the run waited for devices: of several processes, the one that waited most."""
        written = (float(path.read_text(encoding="utf-8")) for path in self.path.glob(f"*{_WAIT}"))
        return max(self._waited, *written, 0.0)

    def say(self, sentence: str) -> None:
        """Tell the run's controller something to show; a disk that refuses it costs no more than the line."""
        with suppress(OSError), self._lines_of(os.getpid()).open("a", encoding="utf-8") as file:
            file.write(json.dumps(sentence) + "\n")

    def join(self) -> None:
        """Let the run's other processes know that this one is a worker of the run."""
        with suppress(OSError):
            self._lines_of(os.getpid()).touch()

    def said(self) -> list[str]:
        """What the run's workers have said since this was asked last."""
        lines: list[str] = []
        for path in sorted(self.path.glob(f"*{_SAID}")):
            known = self._read.get(path, 0)
            new = path.read_bytes()[known:]
            whole = new[: new.rfind(b"\n") + 1]  # a worker may be writing the next line
            self._read[path] = known + len(whole)
            lines += map(json.loads, whole.splitlines())
        return lines

    def is_worker(self, process: int) -> bool:
        """Whether a process is one of the run's workers."""
        return self._lines_of(process).exists()

    def ceilings(self, address: str) -> dict[str, Any] | None:
        """What the GPU at a PCI address can reach; None before it was timed, empty where it could not be."""
        path = self._ceilings_of(address)
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None

    def keep_ceilings(self, address: str, ceilings: Mapping[str, Any]) -> None:
        """Keep what a GPU can reach."""
        self._write(self._ceilings_of(address), json.dumps(ceilings).encode())

    def outline(self) -> Outline:
        """What the run set out to do; empty when it ended before that was known."""
        path = self.path / _OUTLINE
        return msgspec.json.decode(path.read_bytes(), type=Outline) if path.exists() else Outline()

    def keep_outline(self, outline: Outline) -> None:
        """Keep what the run set out to do; every process of a run keeps the same."""
        self._write(self.path / _OUTLINE, msgspec.json.encode(outline))

    def remove(self) -> None:
        """Remove the folder, in the process that made it."""
        if self._owner is not None:
            self._owner.remove()

    def _path_of(self, case: Case, suffix: str) -> Path:
        return self.path / f"{_stem(case)}{suffix}"

    def _lines_of(self, process: int) -> Path:
        return self.path / f"{process}{_SAID}"

    def _ceilings_of(self, address: str) -> Path:
        return self.path / f"{address.replace(':', '-')}{_CEILINGS}"

    def _all(self, kind: type[Measured]) -> list[Measured]:
        suffix: str = _SUFFIXES[kind]
        written = {*self.path.glob(f"*{suffix}")}
        kept = {path: data for path, data in self._unwritten.items() if path.suffix == suffix}
        return [
            record.from_json(kept[path] if path in kept else path.read_bytes(), kind)
            for path in sorted(written | kept.keys())
        ]

    def _write(self, path: Path, data: bytes) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            write_atomically(path, data)
        except OSError as error:
            raise errors.StorageError(f"{path} cannot be written: {error}; make room, or {locks.ELSEWHERE}") from error


def _stem(case: Case) -> str:
    return hashlib.sha256(case.key.encode()).hexdigest()[:24]


def _seconds(path: Path) -> float | None:
    """What measuring the case of a file took; None where it is no case's file."""
    if path.suffix == _SUFFIXES[CaseRecord]:
        return record.from_json(path.read_bytes(), CaseRecord).seconds
    if path.suffix == _SUFFIXES[Pairing]:
        return record.from_json(path.read_bytes(), Pairing).new.seconds
    return 0.0 if path.suffix in _FAILURES.values() else None
