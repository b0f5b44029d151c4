"""Work on a stream of blocks: several computed ahead on threads, handed over in order, progress told now and then."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Progress = Callable[[str, float], None]
"""Told a sentence and a fraction from 0 to 1, at most a few times a second."""

_Result = TypeVar("_Result")
_WORKERS = min(4, os.cpu_count() or 1)
_AHEAD = 2 * _WORKERS
_SECONDS_BETWEEN = 0.3


def in_order(tasks: Iterable[Callable[[], _Result]]) -> Iterator[_Result]:
    """Results of tasks in the tasks' order, at most `_AHEAD` of them computed and not yet taken.

    NumPy's generators and copies, hashlib and file writes let go of the interpreter lock, so threads do overlap; memory
    stays bounded by the blocks' size times the look-ahead. Whatever ends the consumer early also drops what is queued.
    """
    waiting: deque[Future[_Result]] = deque()
    pool = ThreadPoolExecutor(_WORKERS, thread_name_prefix="rwkvperf-blocks")
    try:
        for task in tasks:
            waiting.append(pool.submit(task))
            if len(waiting) > _AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


class Ticker:
    """Counts work towards a total and tells `progress` at most three times a second, and at the end if it spoke."""

    def __init__(self, progress: Progress, sentence: str, total: int) -> None:
        self._progress = progress
        self._sentence = sentence
        self._total = max(total, 1)
        self._done = 0
        self._spoke = time.monotonic()
        self._silent = True

    def add(self, count: int) -> None:
        """Count `count` more units."""
        self._done += count
        now = time.monotonic()
        finished = self._done >= self._total and not self._silent
        if finished or now - self._spoke >= _SECONDS_BETWEEN:
            self._spoke, self._silent = now, False
            self._progress(self._sentence, min(self._done / self._total, 1.0))
