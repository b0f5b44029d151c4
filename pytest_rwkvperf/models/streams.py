"""Computing a stream of blocks: several ahead on threads, yielded in order, with progress reports."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Progress = Callable[[str, float], None]
"""Called with a sentence and a fraction from 0 to 1, at most a few times a second."""

_Result = TypeVar("_Result")
_WORKERS = min(4, os.cpu_count() or 1)
_AHEAD = 2 * _WORKERS
_SECONDS_BETWEEN = 0.3


def in_order(tasks: Iterable[Callable[[], _Result]]) -> Iterator[_Result]:
    """Yield the tasks' results in order, computing at most `_AHEAD` of them ahead.

    NumPy's generators and copies, hashlib and file writes release the interpreter lock, so threads overlap. Memory is
    bounded by the size of a block times `_AHEAD`. When the consumer stops early, queued tasks are cancelled.
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
    """Counts work and reports to `progress` at most three times a second; at the end only if it has reported before."""

    def __init__(self, progress: Progress, sentence: str, total: int) -> None:
        self._progress = progress
        self._sentence = sentence
        self._total = max(total, 1)
        self._done = 0
        self._last_report = time.monotonic()
        self._reported = False

    def add(self, count: int) -> None:
        """Count `count` more units."""
        self._done += count
        now = time.monotonic()
        finished = self._done >= self._total and self._reported
        if finished or now - self._last_report >= _SECONDS_BETWEEN:
            self._last_report, self._reported = now, True
            self._progress(self._sentence, min(self._done / self._total, 1.0))
