"""CUPTI's buffers of activity records, read where they lie, through ctypes.

cupti-python would hand over an object for every record, made of NumPy arrays: 120 µs, and 6 µs more for each field that
is asked for (13.0.1), where a generation of sixteen tokens has 35 000 records. So what is taken from the package here
are the addresses of CUPTI's functions, where the fields of its records lie, and its errors.

Source: CUPTI's headers cupti_activity.h (`cuptiActivityRegisterCallbacks`, `cuptiActivityGetNextRecord`) and
cupti_result.h.
"""

from __future__ import annotations

import ctypes
import re
from dataclasses import dataclass
from typing import Any

KINDS = {"CONCURRENT_KERNEL": "", "MEMCPY": "[copy]", "MEMSET": "[fill]"}
"""Of cupti.ActivityKind, and what is told instead of a name. KERNEL would keep streams from running side by side."""

BUFFER_BYTES = 64 << 20
"""CUPTI fills a buffer of this size with records of some 200 bytes before it hands it over: between repetitions, where
they fit."""

_LAYOUTS = {"CONCURRENT_KERNEL": "kernel", "MEMCPY": "memcpy", "MEMSET": "memset"}
"""As the package names a kind's layout, `activity_kernel10_dtype`: it has the one of its CUPTI, the number rises."""

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

    Everything of one CUDA graph has the `launch` of that graph; whatever the host started by itself has one of its own.
    """

    name: str
    start: int
    end: int
    launch: int


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where the fields of a record lie, in bytes from its start; `told` stands for a name where it has none."""

    told: str
    start: int
    end: int
    launch: int
    name: int = 0

    @classmethod
    def of(cls, package: Any, kind: str, told: str) -> _Layout:  # noqa: ANN401 - the package
        """By the package's NumPy type of that kind of record."""
        pattern = re.compile(rf"activity_{_LAYOUTS[kind]}(\d+)_dtype")
        names = {int(found[1]): name for name in dir(package) if (found := pattern.fullmatch(name))}
        if not names:
            raise AttributeError(f"{package.__name__} has no {pattern.pattern}")
        fields = getattr(package, names[max(names)]).fields
        wanted = ("start", "end", "correlation_id", *(() if told else ("name",)))
        return cls(told, *(fields[field][1] for field in wanted))

    def read(self, record: int, names: dict[int, str]) -> Activity:
        """The record at that address; `names` keeps those of this buffer by their addresses."""
        return Activity(
            self.told or _name(ctypes.c_uint64.from_address(record + self.name).value, names),
            ctypes.c_uint64.from_address(record + self.start).value,
            ctypes.c_uint64.from_address(record + self.end).value,
            ctypes.c_uint32.from_address(record + self.launch).value,
        )


def _name(address: int, names: dict[int, str]) -> str:
    if address not in names:
        names[address] = ctypes.string_at(address).decode(errors="replace") if address else "[unnamed]"
    return names[address]


class Buffers:
    """What CUPTI writes its records to; `taken` has those of KINDS that were read, `trouble` what kept others from it.

    CUPTI keeps the addresses of its two callbacks for as long as the process lives, and so must the caller keep this.

    Raises:
        AttributeError, KeyError: the package is not as known.
        Exception: the package's error, where CUPTI refuses.
    """

    def __init__(self, package: Any, table: Any) -> None:  # noqa: ANN401 - the package, and its module of addresses
        layouts = {kind: _Layout.of(package, kind, told) for kind, told in KINDS.items()}
        self._layouts = {int(getattr(package.ActivityKind, kind)): found for kind, found in layouts.items()}
        addresses = table._inspect_function_pointers()  # noqa: SLF001 - the one place where it tells them
        self._next = _NEXT(_there(addresses, "__cuptiActivityGetNextRecord"))
        self._check = package.check_status
        self._lent: dict[int, ctypes.Array[ctypes.c_ubyte]] = {}
        self._free: list[ctypes.Array[ctypes.c_ubyte]] = []
        self._callbacks = _REQUESTED(self._requested), _COMPLETED(self._completed)
        self.taken: list[Activity] = []
        self.trouble: BaseException | None = None
        self._check(_REGISTER(_there(addresses, "__cuptiActivityRegisterCallbacks"))(*self._callbacks))

    def _requested(self, buffer: Any, size: Any, most: Any) -> None:  # noqa: ANN401 - ctypes' pointers
        """Give CUPTI a buffer, for as many records as fit: one that came back, as a new one takes 35 ms to clear."""
        buffer[0], size[0], most[0] = None, 0, 0
        try:
            given = self._free.pop() if self._free else (ctypes.c_ubyte * BUFFER_BYTES)()
            self._lent[ctypes.addressof(given)] = given
            buffer[0], size[0] = ctypes.addressof(given), BUFFER_BYTES
        except BaseException as error:  # noqa: BLE001 - it would be lost here: raised when the records are asked for
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


def _there(addresses: dict[str, int], name: str) -> int:
    """A function's address, which is 0 where the library lacks it: calling that would end the process."""
    if not addresses[name]:
        raise AttributeError(f"CUPTI has no {name.lstrip('_')}")
    return addresses[name]
