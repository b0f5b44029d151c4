"""As much of cupti-python as this project uses. Its names, the form of its errors and its clock are the package's
(13.0.1, read from its wheel, and called as far as that goes without a driver); what is recorded is made up.

    SCRIPTED_CUPTI    WHAT@FUNCTION: `refuse`, `abort`, `hang` or `strange` when that function is called

The device computes for the first half of every repetition, with one kernel that starts before and one that is in a
CUDA graph with a copy. Other kernels lie before and after.
"""

from __future__ import annotations

import enum
import os
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

_BEFORE = 10**9
_calls: dict[str, Callable[..., Any]] = {}
_enabled: set[int] = set()
_stamps: list[int] = []


class ActivityKind(enum.IntEnum):
    """CUpti_ActivityKind, as far as it is used."""

    MEMCPY = 1
    MEMSET = 2
    DRIVER = 4
    CONCURRENT_KERNEL = 10


class cuptiError(Exception):  # noqa: N801 - the package's name
    """A status that is not success; the text is the package's."""

    def __init__(self, status: int) -> None:
        self.status = status
        super().__init__(f"ERROR_INSUFFICIENT_PRIVILEGES ({status})")


def _play(function: str) -> bool:
    """Misbehave where that is asked for; whether strange records are to be given."""
    what, _, where = os.environ.get("SCRIPTED_CUPTI", "").partition("@")
    if where != function:
        return False
    if what == "refuse":
        raise cuptiError(35)
    if what == "abort":
        os.abort()
    if what == "hang":
        time.sleep(600)
    return what == "strange"


def activity_register_callbacks(
    requested: Callable[[], tuple[int, int]], completed: Callable[[list[Any]], None]
) -> int:
    """Keep both; the first is asked as CUPTI would."""
    _play("activity_register_callbacks")
    size, most = requested()
    assert size > 0
    assert most == 0
    _calls["completed"] = completed
    return 0


def activity_enable(kind: int) -> int:
    """Record a kind from now on."""
    _play("activity_enable")
    _enabled.add(kind)
    return 0


def activity_disable(kind: int) -> int:
    """No more of a kind."""
    _play("activity_disable")
    _enabled.remove(kind)
    return 0


def get_timestamp() -> int:
    """The worker's clock, which the scripted engine moves."""
    _play("get_timestamp")
    _stamps.append(int(time.perf_counter_ns()))
    return _stamps[-1]


def activity_flush_all(flag: int) -> int:
    """Hand over what was recorded since the last time."""
    assert flag == 1
    assert _enabled == {ActivityKind.MEMCPY, ActivityKind.MEMSET, ActivityKind.CONCURRENT_KERNEL}
    if _play("activity_flush_all"):
        _calls["completed"]([SimpleNamespace(kind=ActivityKind.CONCURRENT_KERNEL)])
    if len(_stamps) > 1:
        start, end = _stamps[-2:]
        half, kernel = start + (end - start) // 2, ActivityKind.CONCURRENT_KERNEL
        _calls["completed"](
            [
                _made(kernel, start - _BEFORE, start, 1, name="_Z6beforev"),
                _made(kernel, start - _BEFORE, start + 1000, 2, name="_Z5firstIiEvPKv"),
                _made(kernel, start, half, 3, name="_Z6secondv"),
                _made(ActivityKind.MEMCPY, half - 1000, half, 3),
                SimpleNamespace(kind=ActivityKind.DRIVER),
                _made(kernel, end, end + _BEFORE, 4, name="_Z5afterv"),
            ]
        )
        _stamps.clear()
    return 0


def _made(kind: int, start: int, end: int, correlation_id: int, **more: str) -> SimpleNamespace:
    return SimpleNamespace(kind=kind, start=start, end=end, correlation_id=correlation_id, **more)
