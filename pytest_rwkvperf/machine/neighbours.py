"""Waiting for other processes to leave the processors that a measurement needs."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

import psutil

from pytest_rwkvperf.machine import usage

if TYPE_CHECKING:
    from collections.abc import Callable

_LOOK_SECONDS = 1.0
"""Pause between two readings of the processors' counters, which count in hundredths of a second."""


class Neighbours:
    """Notices that others use the processors that `threads` threads want, and waits `most_seconds` for them in all."""

    def __init__(self, threads: int, limit: float, most_seconds: float, progress: Callable[[str], None]) -> None:
        self._threads = threads
        self._limit = limit
        self._left = most_seconds
        self._progress = progress
        self._before = usage.now()

    def wait(self) -> float:
        """Wait until others take no more than the limit, a share of the processors; returns the share they take then.

        Each share is of the time since the reading before.
        """
        while (taken := self._taken()) > self._limit and self._left > 0:
            self._progress(
                f"other processes take {taken:.0%} of the processors that it needs: waiting, at most {self._left:.0f} s"
            )
            pause = min(_LOOK_SECONDS, self._left)
            time.sleep(pause)
            self._left -= pause
        return taken

    def _taken(self) -> float:
        before, self._before = self._before, usage.now()
        return usage.crowding(before, self._before, psutil.cpu_count() or 1, self._threads)


def free_threads(threads: int, limit: float, most_seconds: float, progress: Callable[[str], None]) -> int:
    """How many of `threads` threads find a processor: all, if others leave enough within `most_seconds`."""
    neighbours = Neighbours(threads, limit, most_seconds, progress)
    time.sleep(_LOOK_SECONDS)
    taken = neighbours.wait()
    return threads if taken <= limit else max(1, math.floor(threads * (1 - taken)))
