"""The clocks of this process, as they were when it started.

A project's fixtures may freeze or replace those of `time`; budgets, deadlines and waits must go on. What is timed is
timed in workers, which no fixture reaches.
"""

from __future__ import annotations

import time


class _Real:
    """Holds the functions: libraries that freeze time replace them wherever a module has them as an attribute."""

    monotonic = staticmethod(time.monotonic)
    time = staticmethod(time.time)


def monotonic() -> float:
    """Seconds of the system's clock that never jumps."""
    return _Real.monotonic()


def time_of_day() -> float:
    """Seconds since 1970, as `time.time`."""
    return _Real.time()
