"""CUPTI's buffers of activity records, read in place through ctypes.

cupti-python makes an object of NumPy arrays for every record: 120 µs, and 6 µs for each field that is read (13.0.1),
where a generation of sixteen tokens has 35 000 records. So only the addresses of CUPTI's functions, the offsets of its
records' fields and its errors are used from the package.

Source: CUPTI's headers cupti_activity.h (`cuptiActivityRegisterCallbacks`, `cuptiActivityGetNextRecord`) and
cupti_result.h.
"""

from __future__ import annotations

import ctypes
import re
from dataclasses import dataclass
from typing import Any

KINDS = {"CONCURRENT_KERNEL": "", "MEMCPY": "[copy]", "MEMSET": "[fill]"}
"""Recorded members of cupti.ActivityKind, each with the name for activities that have none. KERNEL, which is left out,
would serialize the streams."""

BUFFER_BYTES = 64 << 20
"""CUPTI fills a buffer of this size with records of some 200 bytes before it returns it: between repetitions, if they
fit."""

_LAYOUTS = {"CONCURRENT_KERNEL": "kernel", "MEMCPY": "memcpy", "MEMSET": "memset"}
"""How the package names a kind's layout: `activity_kernel10_dtype`, with a number that rises with CUPTI's version."""

_NO_MORE = 12
"""CUPTI_ERROR_MAX_LIMIT_REACHED: the buffer has no further record."""

_REQUESTED = ctypes.CFUNCTYPE(
    None, ctypes.POINTER(ctypes.c_void_p), ctypes.POINTER(ctypes.c_size_t), ctypes.POINTER(ctypes.c_size_t)
)
_COMPLETED = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t)
_REGISTER = ctypes.CFUNCTYPE(ctypes.c_int, _REQUESTED, _COMPLETED)
_NEXT = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.POINTER(ctypes.c_void_p))


@dataclass(frozen=True, slots=True)
class Activity:
    """A kernel, copy or fill on the device, from `start` to `end` in CUPTI's nanoseconds.

    All activities of one CUDA graph share its `launch`; everything else that the host started has its own.
    """

    name: str
    start: int
    end: int
    launch: int


@dataclass(frozen=True, slots=True)
class _Layout:
    """Offsets of a record's fields in bytes; `fixed_name` is for kinds that have no name."""

    fixed_name: str
    start: int
    end: int
    launch: int
    name: int = 0

    @classmethod
    def of(cls, package: Any, kind: str, fixed_name: str) -> _Layout:  # noqa: ANN401 - the package
        """The layout of one kind of record, from the package's NumPy type of it."""
        pattern = re.compile(rf"activity_{_LAYOUTS[kind]}(\d+)_dtype")
        names = {int(match[1]): name for name in dir(package) if (match := pattern.fullmatch(name))}
        if not names:
            raise AttributeError(f"{package.__name__} has no {pattern.pattern}")
        fields = getattr(package, names[max(names)]).fields
        wanted = ("start", "end", "correlation_id", *(() if fixed_name else ("name",)))
        return cls(fixed_name, *(fields[field][1] for field in wanted))

    def read(self, record: int, names: dict[int, str]) -> Activity:
        """The record at an address; `names` caches this buffer's names by address."""
        return Activity(
            self.fixed_name or _name(ctypes.c_uint64.from_address(record + self.name).value, names),
            ctypes.c_uint64.from_address(record + self.start).value,
            ctypes.c_uint64.from_address(record + self.end).value,
            ctypes.c_uint32.from_address(record + self.launch).value,
        )


def _name(address: int, names: dict[int, str]) -> str:
    if address not in names:
        names[address] = ctypes.string_at(address).decode(errors="replace") if address else "[unnamed]"
    return names[address]


class Buffers:
    """What CUPTI writes its records to; `taken` has the records of KINDS, `trouble` the error that reading them had.

    CUPTI keeps the addresses of its two callbacks until the process ends, so the caller must keep this object as long.

    Raises:
        AttributeError, KeyError: the package's version is not supported.
        Exception: the package's error, where CUPTI refuses.
    """

    def __init__(self, package: Any, table: Any) -> None:  # noqa: ANN401 - the package, and its module of addresses
        layouts = {kind: _Layout.of(package, kind, fixed_name) for kind, fixed_name in KINDS.items()}
        self._layouts = {int(getattr(package.ActivityKind, kind)): layout for kind, layout in layouts.items()}
        addresses = table._inspect_function_pointers()  # noqa: SLF001 - no public function gives them
        self._next = _NEXT(_address(addresses, "__cuptiActivityGetNextRecord"))
        self._check = package.check_status
        self._lent: dict[int, ctypes.Array[ctypes.c_ubyte]] = {}
        self._free: list[ctypes.Array[ctypes.c_ubyte]] = []
        self._callbacks = _REQUESTED(self._requested), _COMPLETED(self._completed)
        self.taken: list[Activity] = []
        self.trouble: BaseException | None = None
        self._check(_REGISTER(_address(addresses, "__cuptiActivityRegisterCallbacks"))(*self._callbacks))

    def _requested(self, buffer: Any, size: Any, most: Any) -> None:  # noqa: ANN401 - ctypes' pointers
        """Give CUPTI a buffer: preferably a returned one, because a new one takes 35 ms to clear."""
        buffer[0], size[0], most[0] = None, 0, 0
        try:
            given = self._free.pop() if self._free else (ctypes.c_ubyte * BUFFER_BYTES)()
            self._lent[ctypes.addressof(given)] = given
            buffer[0], size[0] = ctypes.addressof(given), BUFFER_BYTES
        except BaseException as error:  # noqa: BLE001 - ctypes would drop it here; `Recorder` raises it
            self.trouble = error

    def _completed(self, _context: int | None, _stream: int, buffer: int, _size: int, valid: int) -> None:
        """Take a buffer back and read it, possibly in a thread of CUPTI's."""
        try:
            self._read(buffer, valid)
        except BaseException as error:  # noqa: BLE001 - as above
            self.trouble = error
        finally:
            self._free.append(self._lent.pop(buffer))

    def _read(self, buffer: int, valid: int) -> None:
        record, names = ctypes.c_void_p(), dict[int, str]()
        while (status := self._next(buffer, valid, ctypes.byref(record))) == 0:
            address = int(record.value or 0)
            layout = self._layouts.get(ctypes.c_uint32.from_address(address).value)
            if layout is not None:
                self.taken.append(layout.read(address, names))
        if status != _NO_MORE:
            self._check(status)


def _address(addresses: dict[str, int], name: str) -> int:
    """A function's address. The package gives 0 where the library lacks it, and calling that ends the process."""
    if not addresses[name]:
        raise AttributeError(f"CUPTI has no {name.lstrip('_')}")
    return addresses[name]
