"""Savers of baselines that are killed, stand in each other's way, or find no room. Run as a script, with a folder.

    savers.py crash FOLDER      kill a save with SIGKILL before and after each call of the system that it makes
    savers.py race FOLDER N S   N processes save at once for S seconds, each its own cases and one that all have

Each prints one line of JSON with what it found. Forked from one interpreter, so that a thousand kills take seconds.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from pytest_rwkvperf.core import folders
from pytest_rwkvperf.core.cases import Case
from pytest_rwkvperf.core.engine import Device
from pytest_rwkvperf.machine.fingerprint import Fingerprint
from pytest_rwkvperf.stats.verdicts import MAX_SESSIONS
from pytest_rwkvperf.store import files
from pytest_rwkvperf.store.baseline import BaselineEntry, StoredCase

MACHINE = Fingerprint("Linux", "x86_64", "AMD EPYC 9B14", "family 25 model 17 stepping 1", 2, 1)
_SYSTEM = ("posix", "_io", "fcntl")
HOLDER = """
import sys, time
from pathlib import Path
from pytest_rwkvperf.core import folders, locks
with locks.hold(folders.lock_for(Path(sys.argv[1])), 0):
    print("held", flush=True)
    time.sleep(600)
"""
"""A script that holds the lock of the file it is given, and says so."""


def stored(backend: str, nanoseconds: int = 1000, recorded: str = "now") -> StoredCase:
    """A case with one session."""
    session = BaselineEntry(recorded, {backend: "1"}, 1, 0.0, 0.0, {"pp512": ((nanoseconds,),)})
    return StoredCase(Case(backend, "m", "f16", "cpu", 1, 1), "hash", Device("cpu", "CPU", "cpu"), (session,))


class Countdown:
    """A profile function that ends the process at the n-th call into the system or return from it."""

    def __init__(self, number: int) -> None:
        self.left = number
        self.names: list[str] = []

    def __call__(self, _frame: object, event: str, function: Any) -> None:  # noqa: ANN401 - as sys.setprofile gives it
        if event not in ("c_call", "c_return") or not self._is_system(function):
            return
        self.names.append(f"{event[2:]} {function.__name__}")
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    @staticmethod
    def _is_system(function: Any) -> bool:  # noqa: ANN401 - as above
        owner = getattr(function, "__self__", None)
        module = getattr(function, "__module__", None) or type(owner).__module__
        return module in _SYSTEM


def save_and_stop(folder: Path, number: int) -> list[str]:
    """Save one more case; dies at the n-th step."""
    countdown = Countdown(number)
    sys.setprofile(countdown)
    try:
        files.save(folder, MACHINE, [stored("second")], replacing=False)
    finally:
        sys.setprofile(None)
    return countdown.names


def forked(work: Any) -> int:  # noqa: ANN401 - a function without arguments
    """Run something in a forked process; how it ended, as `os.waitstatus_to_exitcode` says."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        except BaseException:  # noqa: BLE001 - the other process is told by the exit code
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def crash(folder: Path) -> dict[str, Any]:
    """At every step: the file is the old one or the new one, the lock is free, and the next save clears up."""
    path = files.save(folder, MACHINE, [stored("first")], replacing=False)
    old = path.read_bytes()
    steps = save_and_stop(folder, sys.maxsize)
    new = path.read_bytes()
    seen = {"old": 0, "new": 0}
    problems: list[str] = []
    slowest = 0.0
    for number in range(1, len(steps) + 1):
        path.write_bytes(old)
        code = forked(lambda number=number: save_and_stop(folder, number))
        found = path.read_bytes()
        if code != -signal.SIGKILL or found not in (old, new):
            problems.append(f"{number} ({steps[number - 1]}): ended with {code}, file of {len(found)} bytes")
        seen["old" if found == old else "new"] += 1
        started = time.monotonic()
        files.save(folder, MACHINE, [stored("third")], replacing=False)
        slowest = max(slowest, time.monotonic() - started)
        if [one.name for one in folder.iterdir()] != [path.name]:
            problems.append(f"{number} ({steps[number - 1]}): {sorted(one.name for one in folder.iterdir())}")
    return {"steps": steps, "seen": seen, "problems": problems, "slowest_next_save": slowest}


def race(folder: Path, savers: int, seconds: float) -> dict[str, Any]:
    """Every saver's cases and sessions are there at the end."""
    notes = folders.cache() / "notes"
    notes.mkdir(parents=True)
    limit = time.monotonic() + seconds

    def save_often(number: int) -> None:
        count, slowest, failed = 0, 0.0, ""
        try:
            while count < 2 or time.monotonic() < limit:
                recorded, started = f"{number}-{count}", time.monotonic()
                cases = [stored(f"own-{number}-{count % 8}", recorded=recorded), stored("shared", recorded=recorded)]
                files.save(folder, MACHINE, cases, replacing=False)
                count, slowest = count + 1, max(slowest, time.monotonic() - started)
        except BaseException as error:
            failed = f"{type(error).__name__}: {error}".replace(str(folder), "FOLDER")
            raise
        finally:
            told = {"saves": count, "slowest": slowest, "failed": failed}
            (notes / str(number)).write_text(json.dumps(told), encoding="utf-8")

    pids = []
    for number in range(savers):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                save_often(number)
                code = 0
            finally:
                os._exit(code)
        pids.append(pid)
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    told = {int(note.name): json.loads(note.read_text(encoding="utf-8")) for note in notes.iterdir()}
    counts = {number: one["saves"] for number, one in told.items()}
    baseline = files.read(files.path_for(folder, MACHINE))
    assert baseline is not None
    found = {one.case.backend: [session.recorded for session in one.sessions] for one in baseline.cases.values()}
    lost = []
    for number, count in counts.items():
        for slot in range(min(8, count)):
            wanted = [f"{number}-{turn}" for turn in range(slot, count, 8)][-MAX_SESSIONS:]
            if found.get(f"own-{number}-{slot}") != wanted:
                lost.append(f"own-{number}-{slot}")
    return {
        "exit_codes": codes,
        "failures": [one["failed"] for one in told.values() if one["failed"]],
        "saves": sum(counts.values()),
        "saves_of_one": [min(counts.values()), max(counts.values())],
        "slowest_save_seconds": round(max(one["slowest"] for one in told.values()), 3),
        "lost": lost,
        "shared": len(found.get("shared", [])),
        "files": sorted(path.name for path in folder.iterdir()),
    }


if __name__ == "__main__":
    what, where, *rest = sys.argv[1:]
    told = crash(Path(where)) if what == "crash" else race(Path(where), int(rest[0]), float(rest[1]))
    sys.stdout.write(json.dumps(told) + "\n")
