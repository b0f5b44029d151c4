"""What a CUDA device did during a repetition, kernel by kernel: NVIDIA's CUPTI through its package cupti-python.

Runs in workers and sees the whole process: kernels that an engine's native code launches, and each kernel of CUDA
graphs (CUPTI's guide, "Tracing CUDA Graphs"). Recording makes launching slower and widens the gaps between kernels, so
that the host's times mean nothing meanwhile; a kernel's own time is stamped on the device.
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
"""How many kernels are named, those with the most time first."""

_SUPPORTED = "install one that is: pip install cupti-python==13.0.1"
_NAME_LENGTH = 120
_PRIVILEGE = (
    "; let users profile (the driver's option NVreg_RestrictProfilingToAdminUsers=0, in a container also"
    " --cap-add=SYS_ADMIN)"
)


@dataclass(frozen=True, slots=True)
class KernelTime:
    """All runs of one kernel in a repetition; all copies, and all fills, count as one kernel each."""

    name: str
    count: int
    nanoseconds: int


@dataclass(frozen=True, slots=True)
class DeviceTime:
    """What a device did in one repetition of a workload with `tokens` tokens.

    `busy_nanoseconds` is the time in which anything ran on the device, `wall_nanoseconds` the recorded repetition's on
    the host. `copies` counts copies and fills; `launches` what the host started, a CUDA graph once.
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
    """A recorded repetition: activities, its start and end by CUPTI's clock, and its time on the host."""

    activities: tuple[Activity, ...]
    window: tuple[int, int]
    wall_nanoseconds: int

    @property
    def busy_nanoseconds(self) -> int:
        """The part of the window in which anything ran on the device.

        Raises:
            DeviceError: as `within`.
        """
        first, last = self.window
        return union((max(activity.start, first), min(activity.end, last)) for activity in self.within())

    def within(self) -> list[Activity]:
        """What ran in the window, or in a part of it.

        Raises:
            DeviceError: nothing did, or CUPTI could not time everything.
        """
        if untimed := sum(1 for activity in self.activities if not (activity.start and activity.end)):
            raise DeviceError(f"CUPTI could not time {untimed} of the device's {len(self.activities)} activities")
        first, last = self.window
        within = [activity for activity in self.activities if activity.start < last and activity.end > first]
        if not within:
            raise DeviceError(
                f"CUPTI recorded nothing in the repetition, and {len(self.activities)} activities outside"
            )
        return within


def union(intervals: Iterable[tuple[int, int]]) -> int:
    """Length that intervals `(start, end)` cover together; one that ends before it starts covers nothing."""
    covered, reached = 0, None
    for start, end in sorted(intervals):
        begin = start if reached is None else max(start, reached)
        if end > begin:
            covered, reached = covered + end - begin, end
    return covered


def summed(recorded: Recorded, tokens: int) -> DeviceTime:
    """The figures of a repetition; an activity counts only as far as it lies within.

    Raises:
        DeviceError: as `Recorded.within`.
    """
    within = recorded.within()
    lengths: Counter[str] = Counter()
    for activity in within:
        lengths[activity.name] += activity.end - activity.start
    counts = Counter(activity.name for activity in within)
    copies = sum(counts[name] for name in KINDS.values() if name)
    return DeviceTime(
        tokens,
        recorded.wall_nanoseconds,
        recorded.busy_nanoseconds,
        len(within) - copies,
        copies,
        len({activity.launch for activity in within}),
        tuple(KernelTime(readable(name), counts[name], length) for name, length in lengths.most_common(KEPT)),
    )


def installed() -> bool:
    """Whether cupti-python is installed."""
    spec = find_spec("cupti")
    return spec is not None and spec.origin is not None  # a mere folder of that name has no origin


def record(engine: Engine, repeat: Callable[[Engine], int], settling: int) -> Recorded:
    """Record one repetition, after `settling` that do not count; `repeat` gives its nanoseconds on the host.

    The first launches under CUPTI are slow, and CUDA graphs are recorded anew in them.

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
    """An engine that notes its last `synchronise`, which `protocol.run` calls right before its clock starts.

    From then to the end of the repetition the device does nothing else, so that nothing is cut off.
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
    """Records while a block runs. One per process, because CUPTI keeps one pair of callbacks.

    CUPTI is never detached (`finalize`): that has crashed processes with CUDA graphs, and the worker ends anyway.
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
            for recorded in KINDS:
                self._ask("activity_disable", self._kind(recorded))

    @property
    def taken(self) -> tuple[Activity, ...]:
        """What has been recorded since the last `forget`."""
        return tuple(self._buffers.taken)

    def forget(self) -> None:
        """Drop what has been recorded until now; the device is idle."""
        self._flush()
        self._buffers.taken.clear()

    def now(self) -> int:
        """CUPTI's clock, by which activities are timed."""
        return int(self._ask("get_timestamp"))

    def _flush(self) -> None:
        """Have CUPTI return all buffers, full or not (CUPTI_ACTIVITY_FLAG_FLUSH_FORCED).

        Raises:
            DeviceError: CUPTI refused, or its records have an unknown layout.
            BaseException: what interrupted their reading.
        """
        self._ask("activity_flush_all", 1)
        trouble = self._buffers.trouble
        if isinstance(trouble, MemoryError):
            raise DeviceError(f"CUPTI's records need {BUFFER_BYTES >> 20} MiB of memory; end other processes")
        if isinstance(trouble, Exception):
            reason = f"{type(trouble).__name__}: {trouble}"
            raise DeviceError(f"CUPTI's records cannot be read: {reason}; {_SUPPORTED}") from trouble
        if trouble is not None:
            raise trouble

    def _kind(self, name: str) -> Any:  # noqa: ANN401 - the package's enumeration
        return getattr(self._cupti.ActivityKind, name)

    def _ask(self, function: str, *arguments: object) -> Any:  # noqa: ANN401 - the package has types of its own
        with _asking(function):
            return getattr(self._cupti, function)(*arguments)


@contextmanager
def _asking(function: str) -> Iterator[None]:
    """Turn the package's errors in a call of `function` into a DeviceError."""
    try:
        yield
    except (AttributeError, KeyError) as error:
        raise DeviceError(f"this version of cupti-python is not supported: {error}; {_SUPPORTED}") from error
    except Exception as error:  # the package's errors have no common class
        message = f"CUPTI refused {function}: {str(error) or type(error).__name__}"
        raise DeviceError(message + (_PRIVILEGE if "PRIVILEGES" in message else "")) from error


_recorder = cache(Recorder)


def readable(name: str) -> str:
    """A kernel's name as in its source, without arguments; templates may be long, so it is cut."""
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
    """A name demangled by the C++ library, which every process that runs an engine has loaded; else unchanged."""
    functions = _cxx() if name.startswith("_Z") else None
    if functions is None:
        return name
    demangle, free = functions
    status = ctypes.c_int(-1)
    text = demangle(name.encode(), None, None, ctypes.byref(status))
    if status.value != 0 or not text:
        return name
    try:
        return ctypes.string_at(text).decode(errors="replace")
    finally:
        free(text)


@cache
def _cxx() -> tuple[Callable[..., Any], Callable[..., Any]] | None:
    """`abi::__cxa_demangle` and the function that frees its result; None off Linux."""
    try:
        demangle = ctypes.CDLL("libstdc++.so.6")["__cxa_demangle"]
        free = ctypes.CDLL(None)["free"]  # of the process's malloc, which may be preloaded
    except (OSError, AttributeError):
        return None
    demangle.restype = ctypes.c_void_p
    free.argtypes, free.restype = (ctypes.c_void_p,), None
    return demangle, free
