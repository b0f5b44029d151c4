"""Locks between processes: waiting in turn, timeouts, and the holder's description."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from filelock import FileLock

from pytest_rwkvperf.core import locks
from pytest_rwkvperf.core.errors import LockedError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

GREEDY = """
import sys, time
from pathlib import Path
from pytest_rwkvperf.core import locks
lock, turns = Path(sys.argv[1]), Path(sys.argv[2])
while True:
    with locks.hold(lock), turns.open("a") as file:
        print("turn", file=file, flush=True)
        time.sleep(0.1)
"""
QUEUED = """
import sys
from pathlib import Path
from pytest_rwkvperf.core import locks
with locks.hold(Path(sys.argv[1]), on_wait=lambda holder: print("waits", flush=True)):
    pass
"""


@contextmanager
def process(program: str, *arguments: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-c", program, *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as started:
        try:
            yield started
        finally:
            started.kill()


def count_turns(turns: Path, more_than: int = -1) -> int:
    """Wait until the greedy process has had more turns than that; returns their number."""
    limit = time.monotonic() + 300
    while (count := turns.read_text("utf-8").count("turn") if turns.exists() else 0) <= more_than:
        assert time.monotonic() < limit
        time.sleep(0.01)
    return count


def test_a_greedy_process_does_not_starve_a_waiting_one(tmp_path: Path) -> None:
    lock, turns = tmp_path / "lock", tmp_path / "turns"
    passed: list[int] = []
    with process(GREEDY, lock, turns):
        for _ in range(50):
            before: list[int] = []
            count_turns(turns, count_turns(turns))
            with locks.hold(lock, 60, lambda _: before.append(count_turns(turns))):  # noqa: B023 - called within
                passed += [count_turns(turns) - count for count in before]
            if len(passed) == 5:
                break
    assert len(passed) == 5, "the greedy process usually holds the lock"
    assert max(passed) <= 3, "the holder's turn, and those of processes earlier in the queue"


def test_the_timeout_restarts_with_each_holder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "_STEP_SECONDS", 0.1)
    lock = tmp_path / "lock"
    free = threading.Event()

    def others() -> None:
        """Hold the lock with a new note each time, as a series of processes would."""
        with locks.hold(lock):
            for _ in range(13):
                held.set()
                time.sleep(0.1)
                (tmp_path / "lock.holder").write_text('{"pid": 1}', encoding="utf-8")
        free.set()

    held = threading.Event()
    thread = threading.Thread(target=others)
    thread.start()
    held.wait(60)
    with locks.hold(lock, 1.0):
        assert free.wait(60), "1.3 s of holders, 0.1 s each"
    thread.join()


def test_a_timeout_names_the_holder(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    notes: list[str] = []
    started = time.monotonic()
    with (
        locks.hold(lock),
        pytest.raises(LockedError, match=rf"process {os.getpid()} on "),
        locks.hold(lock, 0.3, notes.append),
    ):
        pytest.fail("two holders")
    assert 0.3 <= time.monotonic() - started < 60
    assert len(notes) == 1
    assert f"process {os.getpid()} on " in notes[0]
    with locks.hold(lock, 0):
        pass


@pytest.mark.skipif(os.name == "nt", reason="SIGSTOP is POSIX")
def test_a_stopped_process_in_the_queue_blocks_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "_STEP_SECONDS", 0.1)
    lock = tmp_path / "lock"
    with process(QUEUED, lock) as queued:
        with locks.hold(lock, 0):
            assert queued.stdout is not None
            # It was started while the lock was held, so now it is first in the queue.
            assert queued.stdout.readline() == b"waits\n"
            os.kill(queued.pid, signal.SIGSTOP)
        with locks.hold(lock, 60):
            pass


@pytest.mark.parametrize("stays", [True, False], ids=["notes itself", "leaves"])
def test_a_holder_without_a_note_yet_is_no_unknown_process(tmp_path: Path, *, stays: bool) -> None:
    """Between a process's taking the lock and its note, and between the note's removal and the lock's release."""
    lock, told = tmp_path / "lock", list[str]()
    bare = FileLock(lock, thread_local=False)

    def others() -> None:
        time.sleep(0.1)
        if stays:
            note = {"pid": os.getpid(), "host": "build-7", "since": "2026-11-23T17:03:00Z"}
            (tmp_path / "lock.holder").write_text(json.dumps(note), encoding="utf-8")
            time.sleep(0.1)
        bare.release()

    bare.acquire()
    thread = threading.Thread(target=others)
    thread.start()
    with locks.hold(lock, on_wait=told.append):
        pass
    thread.join()
    assert told == ([f"process {os.getpid()} on build-7 since 2026-11-23T17:03:00Z"] if stays else [])
