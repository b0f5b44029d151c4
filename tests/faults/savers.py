"""Processes that save baselines, and are killed or compete with each other. Run as a script:

    savers.py crash FOLDER      kill a save with SIGKILL before and after each of its system calls
    savers.py race FOLDER N S   N processes save at once for S seconds: cases of their own and one that they share

Both print their results as one line of JSON. Processes are forked from one interpreter, so that a thousand kills take
seconds.
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
"""A script that holds the lock of the given file, and prints `held`."""


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
    """Save one more case, and die at the n-th step; returns the steps."""
    countdown = Countdown(number)
    sys.setprofile(countdown)
    try:
        files.save(folder, MACHINE, [stored("second")], replacing=False)
    finally:
        sys.setprofile(None)
    return countdown.names


def fork(work: Any) -> int:  # noqa: ANN401 - a function without arguments
    """Run a function in a forked process; returns its id."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        except BaseException:  # noqa: BLE001 - the exit code reports it
            os._exit(1)
        os._exit(0)
    return pid


def crash(folder: Path) -> dict[str, Any]:
    """Kill a save at every step, and save again."""
    path = files.save(folder, MACHINE, [stored("first")], replacing=False)
    old = path.read_bytes()
    steps = save_and_stop(folder, sys.maxsize)
    new = path.read_bytes()
    seen = {"old": 0, "new": 0}
    problems: list[str] = []
    slowest = 0.0
    for number in range(1, len(steps) + 1):
        path.write_bytes(old)
        pid = fork(lambda number=number: save_and_stop(folder, number))
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        content = path.read_bytes()
        if code != -signal.SIGKILL or content not in (old, new):
            problems.append(f"{number} ({steps[number - 1]}): ended with {code}, file of {len(content)} bytes")
        seen["old" if content == old else "new"] += 1
        started = time.monotonic()
        files.save(folder, MACHINE, [stored("third")], replacing=False)
        slowest = max(slowest, time.monotonic() - started)
        if (names := sorted(item.name for item in folder.iterdir())) != [path.name]:
            problems.append(f"{number} ({steps[number - 1]}): {names}")
    return {"steps": steps, "seen": seen, "problems": problems, "slowest_next_save": slowest}


def race(folder: Path, savers: int, seconds: float) -> dict[str, Any]:
    """Save from many processes at once, and compare what is stored with what they saved."""
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
            note = {"saves": count, "slowest": slowest, "failed": failed}
            (notes / str(number)).write_text(json.dumps(note), encoding="utf-8")

    pids = [fork(lambda number=number: save_often(number)) for number in range(savers)]
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    results = {int(note.name): json.loads(note.read_text(encoding="utf-8")) for note in notes.iterdir()}
    counts = {number: result["saves"] for number, result in results.items()}
    baseline = files.read(files.path_for(folder, MACHINE))
    assert baseline is not None
    kept = {case.case.backend: [session.recorded for session in case.sessions] for case in baseline.cases.values()}
    lost = []
    for number, count in counts.items():
        for slot in range(min(8, count)):
            wanted = [f"{number}-{turn}" for turn in range(slot, count, 8)][-MAX_SESSIONS:]
            if kept.get(f"own-{number}-{slot}") != wanted:
                lost.append(f"own-{number}-{slot}")
    return {
        "exit_codes": codes,
        "failures": [result["failed"] for result in results.values() if result["failed"]],
        "saves": sum(counts.values()),
        "saves_of_one": [min(counts.values()), max(counts.values())],
        "slowest_save_seconds": round(max(result["slowest"] for result in results.values()), 3),
        "lost": lost,
        "shared": len(kept.get("shared", [])),
        "files": sorted(path.name for path in folder.iterdir()),
    }


if __name__ == "__main__":
    what, where, *rest = sys.argv[1:]
    result = crash(Path(where)) if what == "crash" else race(Path(where), int(rest[0]), float(rest[1]))
    sys.stdout.write(json.dumps(result) + "\n")
