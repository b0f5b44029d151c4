"""What a CUDA device did during a piece of work, kernel by kernel: NVIDIA's CUPTI through its package cupti-python.

Runs in workers and sees the whole process: kernels that an engine's native code launches, and those of CUDA graphs,
each of which CUPTI records by itself unless it is asked for graphs as wholes (CUPTI's guide, "Tracing CUDA Graphs").
Recording makes launching slower and widens the gaps between kernels, so that the host's times mean nothing while it is
on; a kernel's own time is stamped on the device. What is known about the package is in `Recorder` and cupti_buffers.py.
"""

from __future__ import annotations

import ctypes
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, cast

from pytest_rwkvperf.core.errors import DeviceError
from pytest_rwkvperf.machine.cupti_buffers import BUFFER_BYTES, KINDS, Activity, Buffers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import TracebackType

    from typing_extensions import Self

    from pytest_rwkvperf.core.engine import Engine

KEPT = 12
"""Names of kernels that are told, those with the most time first."""

_KNOWN = "install one that is: pip install cupti-python==13.0.1"
_NAME_LENGTH = 120
_PRIVILEGE = (
    "; let users profile (the driver's option NVreg_RestrictProfilingToAdminUsers=0, in a container also"
    " --cap-add=SYS_ADMIN)"
)


@dataclass(frozen=True, slots=True)
class KernelTime:
    """All runs of one kernel in a repetition; of copies and of fills all together."""

    name: str
    count: int
    nanoseconds: int


@dataclass(frozen=True, slots=True)
class DeviceTime:
    """What a device did in one repetition of so many tokens.

    `busy_nanoseconds` is the time in which anything ran there, `wall_nanoseconds` the repetition's on the host while it
    was recorded. `copies` are copies and fills; `launches` is how often the host started something, a CUDA graph once.
    """

    tokens: int
    wall_nanoseconds: int
    busy_nanoseconds: int
    kernels: int
    copies: int
    launches: int
    longest: tuple[KernelTime, ...] = ()


@dataclass(frozen=True, slots=True)
class Recorded:
    """A repetition as it was recorded: its activities, its first and last moment by CUPTI's clock, and the host's."""

    activities: tuple[Activity, ...]
    window: tuple[int, int]
    wall_nanoseconds: int

    def within(self) -> list[Activity]:
        """What ran in the window.

        Raises:
            DeviceError: nothing did, or CUPTI could not time everything.
        """
        if untimed := sum(1 for one in self.activities if not (one.start and one.end)):
            raise DeviceError(f"CUPTI could not time {untimed} of the device's {len(self.activities)} activities")
        first, last = self.window
        found = [one for one in self.activities if one.start < last and one.end > first]
        if not found:
            raise DeviceError(f"CUPTI recorded nothing in the repetition, and {len(self.activities)} activities beside")
        return found


def union(intervals: Iterable[tuple[int, int]]) -> int:
    """Length that intervals `(start, end)` cover together; one that ends before it starts covers nothing."""
    covered, reached = 0, None
    for start, end in sorted(intervals):
        begin = start if reached is None else max(start, reached)
        if end > begin:
            covered, reached = covered + end - begin, end
    return covered


def summed(recorded: Recorded, tokens: int) -> DeviceTime:
    """The figures of a repetition; what reaches over its edges counts as far as it lies within.

    Raises:
        DeviceError: as `Recorded.within`.
    """
    within, (first, last) = recorded.within(), recorded.window
    lengths: Counter[str] = Counter()
    for one in within:
        lengths[one.name] += one.end - one.start
    counts = Counter(one.name for one in within)
    copies = sum(counts[name] for name in KINDS.values() if name)
    return DeviceTime(
        tokens,
        recorded.wall_nanoseconds,
        union((max(one.start, first), min(one.end, last)) for one in within),
        len(within) - copies,
        copies,
        len({one.launch for one in within}),
        tuple(KernelTime(readable(name), counts[name], length) for name, length in lengths.most_common(KEPT)),
    )


def installed() -> bool:
    """Whether cupti-python is there."""
    found = find_spec("cupti")
    return found is not None and found.origin is not None  # a folder of that name is a package without one


def record(engine: Engine, repeat: Callable[[Engine], int], settling: int) -> Recorded:
    """Record one repetition, after `settling` that do not count; `repeat` gives its nanoseconds on the host.

    The first launches under CUPTI are slow, and a CUDA graph that is recorded anew is recorded in those.

    Raises:
        DeviceError: CUPTI refused.
    """
    recorder = _recorder()
    watched = _Stamped(engine, recorder.now)
    with recorder:
        for _ in range(settling):
            repeat(cast("Engine", watched))
        recorder.forget()
        wall = repeat(cast("Engine", watched))
        ended = recorder.now()
    return Recorded(recorder.taken, (watched.idle, ended), wall)


class _Stamped:
    """An engine that notes when it was last waited for: `protocol.run` does so right before its clock starts.

    From then on to the end of a repetition the device does nothing else, so that a late stamp cuts nothing off.
    """

    def __init__(self, engine: Engine, now: Callable[[], int]) -> None:
        self._engine, self._now = engine, now
        self.idle = 0

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the engine has
        return getattr(self._engine, name)

    def synchronise(self) -> None:
        """Wait for the device."""
        self._engine.synchronise()
        self.idle = self._now()


class Recorder:
    """The package's part: records while a block runs. One a process, for CUPTI keeps one pair of callbacks.

    It is never taken out again (`finalize`): that has crashed processes with CUDA graphs, and the worker ends anyway.
    """

    def __init__(self) -> None:
        try:
            self._cupti: Any = import_module("cupti.cupti")
            table = import_module("cupti._internal.cupti")
        except ImportError as error:
            raise DeviceError(f"cupti-python cannot be imported: {error}") from error
        with _asking("activity_register_callbacks"):
            self._buffers = Buffers(self._cupti, table)

    def __enter__(self) -> Self:
        self._buffers.taken, self._buffers.trouble = [], None
        for kind in KINDS:
            self._ask("activity_enable", self._kind(kind))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._flush()
        finally:
            for one in KINDS:
                self._ask("activity_disable", self._kind(one))

    @property
    def taken(self) -> tuple[Activity, ...]:
        """What has been recorded since it was last forgotten."""
        return tuple(self._buffers.taken)

    def forget(self) -> None:
        """Drop what has been recorded until now; the device is idle."""
        self._flush()
        self._buffers.taken.clear()

    def now(self) -> int:
        """CUPTI's clock, by which activities are timed."""
        return int(self._ask("get_timestamp"))

    def _flush(self) -> None:
        """Have all that is recorded handed over, full buffers or not (CUPTI_ACTIVITY_FLAG_FLUSH_FORCED).

        Raises:
            DeviceError: CUPTI refused, or its records are not what they were.
            BaseException: what interrupted their reading.
        """
        self._ask("activity_flush_all", 1)
        trouble = self._buffers.trouble
        if isinstance(trouble, MemoryError):
            raise DeviceError(f"CUPTI's records need {BUFFER_BYTES >> 20} MiB of memory; end what else takes it")
        if isinstance(trouble, Exception):
            told = f"{type(trouble).__name__}: {trouble}"
            raise DeviceError(f"CUPTI's records cannot be read: {told}; {_KNOWN}") from trouble
        if trouble is not None:
            raise trouble

    def _kind(self, name: str) -> Any:  # noqa: ANN401 - the package's enumeration
        return getattr(self._cupti.ActivityKind, name)

    def _ask(self, function: str, *arguments: object) -> Any:  # noqa: ANN401 - the package has types of its own
        with _asking(function):
            return getattr(self._cupti, function)(*arguments)


@contextmanager
def _asking(function: str) -> Iterator[None]:
    """What goes wrong here is CUPTI's refusal of `function`, or that the package is another one."""
    try:
        yield
    except (AttributeError, KeyError) as error:
        raise DeviceError(f"this cupti-python is not as known: {error}; {_KNOWN}") from error
    except Exception as error:  # the package's errors have no common class
        told = f"CUPTI refused {function}: {str(error) or type(error).__name__}"
        raise DeviceError(told + (_PRIVILEGE if "PRIVILEGES" in told else "")) from error


_recorder = cache(Recorder)


def readable(name: str) -> str:
    """A kernel's name as its source has it, without its arguments; cut where a template fills lines."""
    text = _demangled(name).removeprefix("void ")
    if text.endswith(")"):
        depth = 0
        for index in range(len(text) - 1, -1, -1):
            depth += {")": 1, "(": -1}.get(text[index], 0)
            if depth == 0:
                text = text[:index]
                break
    return text if len(text) <= _NAME_LENGTH else f"{text[: _NAME_LENGTH - 1]}…"


def _demangled(name: str) -> str:
    """By the C++ library's own function, which is in every process that runs an engine; else as it is."""
    functions = _cxx() if name.startswith("_Z") else None
    if functions is None:
        return name
    demangle, free = functions
    status = ctypes.c_int(-1)
    found = demangle(name.encode(), None, None, ctypes.byref(status))
    if status.value != 0 or not found:
        return name
    try:
        return ctypes.string_at(found).decode(errors="replace")
    finally:
        free(found)


@cache
def _cxx() -> tuple[Callable[..., Any], Callable[..., Any]] | None:
    """`abi::__cxa_demangle` and what frees its answer; None off Linux."""
    try:
        demangle = ctypes.CDLL("libstdc++.so.6")["__cxa_demangle"]
        free = ctypes.CDLL(None)["free"]  # the one that the process's malloc goes with: it may be a preloaded one
    except (OSError, AttributeError):
        return None
    demangle.restype = ctypes.c_void_p
    free.argtypes, free.restype = (ctypes.c_void_p,), None
    return demangle, free
