"""A stand-in for the part of cupti-python that this project uses.

Its names, errors, clock and the layout of its records are the package's (13.0.1, from its wheel and from calls that
work without a driver). The records are invented, and are written into the caller's buffer as CUPTI writes them.

    SCRIPTED_CUPTI    WHAT@FUNCTION: `refuse`, `abort` or `hang` when that function is called; `strange` records from
                      cuptiActivityGetNextRecord
                      `absent`: CUPTI lacks the functions that are called by their addresses

The device is busy for the first half of every repetition: one kernel starts before it, one is in a CUDA graph together
with a copy. Further kernels run before and after the repetition.
"""

from __future__ import annotations

import ctypes
import enum
import os
import time
from types import SimpleNamespace
from typing import Any

_BEFORE = 10**9
_int32, _uint32, _uint64, _pad, _some = ctypes.c_int32, ctypes.c_uint32, ctypes.c_uint64, ctypes.c_byte, ctypes.c_size_t
_callbacks: list[Any] = []
_enabled: set[int] = set()
_stamps: list[int] = []


class ActivityKind(enum.IntEnum):
    """The part of CUpti_ActivityKind that is used."""

    MEMCPY = 1
    MEMSET = 2
    DRIVER = 4
    CONCURRENT_KERNEL = 10


class Result(enum.IntEnum):
    """The part of CUptiResult that is used."""

    ERROR_INVALID_PARAMETER = 1
    ERROR_MAX_LIMIT_REACHED = 12
    ERROR_INSUFFICIENT_PRIVILEGES = 35


class cuptiError(Exception):  # noqa: N801 - the package's name
    """A status other than success, with the package's text."""

    def __init__(self, status: int) -> None:
        self.status = status
        super().__init__(f"{Result(status).name} ({status})")


def check_status(status: int) -> int:
    """Raise any status other than success."""
    if status:
        raise cuptiError(status)
    return status


# Records


class _Kernel(ctypes.Structure):
    """The part of CUpti_ActivityKernel10 that is used."""

    _fields_ = (
        ("kind", _int32), ("_to_start", _pad * 12), ("start", _uint64), ("end", _uint64),
        ("_to_launch", _pad * 60), ("correlation_id", _uint32), ("_to_name", _pad * 8),
        ("name", ctypes.c_char_p), ("_rest", _pad * 104),
    )  # fmt: skip


def _fields_without_name(size: int) -> tuple[tuple[str, Any], ...]:
    """The fields of CUpti_ActivityMemcpy6 and CUpti_ActivityMemset4 that are used."""
    return (
        ("kind", _int32), ("_to_start", _pad * 12), ("start", _uint64), ("end", _uint64),
        ("_to_launch", _pad * 12), ("correlation_id", _uint32), ("_rest", _pad * (size - 48)),
    )  # fmt: skip


class _Copy(ctypes.Structure):
    _fields_ = _fields_without_name(96)


class _Fill(ctypes.Structure):
    _fields_ = _fields_without_name(88)


def _dtype(record: type[ctypes.Structure]) -> SimpleNamespace:
    """A stand-in for a NumPy dtype: the type and the offset of each field."""
    return SimpleNamespace(fields={field[0]: (field[1], getattr(record, field[0]).offset) for field in record._fields_})


activity_kernel10_dtype = _dtype(_Kernel)
# The package has only 10; 9 stands for an older version that must not be chosen.
activity_kernel9_dtype = SimpleNamespace(fields={})
activity_memcpy6_dtype = _dtype(_Copy)
activity_memcpy_pto_p4_dtype = SimpleNamespace(fields={})
activity_memset4_dtype = _dtype(_Fill)

_SIZES = {
    ActivityKind.CONCURRENT_KERNEL: 216,
    ActivityKind.MEMCPY: 96,
    ActivityKind.MEMSET: 88,
    ActivityKind.DRIVER: 48,
}


# Functions


def _play(function: str) -> str:
    """Misbehave if asked to; return faults that the caller must play."""
    what, _, where = os.environ.get("SCRIPTED_CUPTI", "").partition("@")
    if where != function:
        return ""
    if what == "abort":
        os.abort()
    if what == "hang":
        time.sleep(600)
    return what


def _refusing(function: str) -> None:
    if _play(function) == "refuse":
        raise cuptiError(Result.ERROR_INSUFFICIENT_PRIVILEGES)


def _register(requested: int, completed: int) -> int:
    """Keep both callbacks."""
    if _play("activity_register_callbacks") == "refuse":
        return Result.ERROR_INSUFFICIENT_PRIVILEGES
    pointer = ctypes.POINTER
    _callbacks[:] = (
        ctypes.CFUNCTYPE(None, pointer(ctypes.c_void_p), pointer(_some), pointer(_some))(requested),
        ctypes.CFUNCTYPE(None, ctypes.c_void_p, _uint32, ctypes.c_void_p, _some, _some)(completed),
    )
    return 0


def _next_record(buffer: int, valid: int, record: ctypes._Pointer[ctypes.c_void_p]) -> int:
    """Give the record after the caller's, or the first."""
    if _play("cuptiActivityGetNextRecord") == "strange":
        return Result.ERROR_INVALID_PARAMETER
    last = record[0]
    following = last + _SIZES[ActivityKind(ctypes.c_int32.from_address(last).value)] if last else buffer
    if following >= buffer + valid:
        return Result.ERROR_MAX_LIMIT_REACHED
    record[0] = following
    return 0


_functions = {
    "__cuptiActivityRegisterCallbacks": ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)(_register),
    "__cuptiActivityGetNextRecord": ctypes.CFUNCTYPE(
        ctypes.c_int, ctypes.c_void_p, _some, ctypes.POINTER(ctypes.c_void_p)
    )(_next_record),
}


def _inspect_function_pointers() -> dict[str, int]:
    """The addresses of CUPTI's functions."""
    if os.environ.get("SCRIPTED_CUPTI") == "absent":
        return dict.fromkeys(_functions, 0)
    return {name: ctypes.cast(function, ctypes.c_void_p).value or 0 for name, function in _functions.items()}


def activity_enable(kind: int) -> int:
    """Record a kind from now on."""
    _refusing("activity_enable")
    _enabled.add(kind)
    return 0


def activity_disable(kind: int) -> int:
    """Stop recording a kind."""
    _refusing("activity_disable")
    _enabled.remove(kind)
    return 0


def get_timestamp() -> int:
    """The worker's clock, which the scripted engine moves."""
    _refusing("get_timestamp")
    _stamps.append(int(time.perf_counter_ns()))
    return _stamps[-1]


def activity_flush_all(flag: int) -> int:
    """Hand over the records since the last call."""
    assert flag == 1
    assert _enabled == {ActivityKind.MEMCPY, ActivityKind.MEMSET, ActivityKind.CONCURRENT_KERNEL}
    _refusing("activity_flush_all")
    if len(_stamps) > 1:
        start, end = _stamps[-2:]
        half = start + (end - start) // 2
        _hand_over(
            _kernel(start - _BEFORE, start, 1, b"_Z6beforev"),
            _kernel(start - _BEFORE, start + 1000, 2, b"_Z5firstIiEvPKv"),
            _kernel(start, half, 3, b"_Z6secondv"),
            bytes(_Copy(kind=ActivityKind.MEMCPY, start=half - 1000, end=half, correlation_id=3)),
            int(ActivityKind.DRIVER).to_bytes(_SIZES[ActivityKind.DRIVER], "little"),
            _kernel(end, end + _BEFORE, 4, b"_Z5afterv"),
        )
        _stamps.clear()
    return 0


def _kernel(start: int, end: int, correlation_id: int, name: bytes) -> bytes:
    _names.append(ctypes.create_string_buffer(name))  # the record holds its address
    kind, address = ActivityKind.CONCURRENT_KERNEL, ctypes.cast(_names[-1], ctypes.c_char_p)
    return bytes(_Kernel(kind=kind, start=start, end=end, correlation_id=correlation_id, name=address))


_names: list[Any] = []


def _hand_over(*records: bytes) -> None:
    """Request a buffer, fill it and complete it."""
    buffer, size, most = ctypes.c_void_p(), ctypes.c_size_t(), ctypes.c_size_t(7)
    requested, completed = _callbacks
    requested(ctypes.byref(buffer), ctypes.byref(size), ctypes.byref(most))
    assert most.value == 0
    if not size.value:
        return  # no room: CUPTI drops them
    filled = b"".join(records)
    assert buffer.value
    assert len(filled) <= size.value
    ctypes.memmove(buffer.value, filled, len(filled))
    completed(None, 0, buffer.value, size.value, len(filled))
