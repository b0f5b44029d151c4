"""Everything that can go wrong, by whose turn it is to act.

Each message names the file or value at fault and ends with what to do next; nothing below the command line
prints a traceback for one of these.
"""

from __future__ import annotations


class RwkvPerfError(Exception):
    """Base of every error this project raises on purpose."""


class OptionError(RwkvPerfError):
    """An option, ini value or marker argument is unknown, malformed or contradicts another."""


class ModelError(RwkvPerfError):
    """A model file or reference cannot be used: missing, truncated, mislabelled, hostile or not RWKV-7."""


class BackendError(RwkvPerfError):
    """An engine cannot do what was asked of it."""


class BackendMissingError(BackendError):
    """The engine is not installed in the interpreter that should run it."""


class DeviceError(BackendError):
    """The device asked for is not there, or the engine silently took another."""


class WorkerError(RwkvPerfError):
    """A worker process did not answer as it should."""


class WorkerDiedError(WorkerError):
    """A worker process ended before its answer: crashed, was killed, or ran out of memory."""


class WorkerTimeoutError(WorkerError):
    """A worker process broke its deadline and was ended."""


class ProtocolError(WorkerError):
    """A worker process said something that is not an answer: garbled, too large or out of turn."""


class MeasurementError(RwkvPerfError):
    """Timings came back that no verdict may rest on: NaN, infinite, zero, negative or too few."""


class ParityError(MeasurementError):
    """An engine's answer is wrong, so its speed counts for nothing."""


class BaselineError(RwkvPerfError):
    """A stored baseline cannot be read or written; it is left as it was."""


class RecordError(RwkvPerfError):
    """A measurement record cannot be read."""


class ReportError(RwkvPerfError):
    """A report cannot be made or written."""


class StorageError(RwkvPerfError):
    """A file of this project could not be written, or was written and the disk does not vouch for it."""


class FleetError(RwkvPerfError):
    """A cluster cannot be used: Ray is not installed, or nobody answers."""


class LockedError(RwkvPerfError):
    """Another process has held a lock for longer than one waits."""


class HistoryError(RwkvPerfError):
    """A history's database cannot be reached, read or written; what was to be stored is kept."""


def named(kind: str, message: str) -> RwkvPerfError:
    """An error of this module by its class's name, after a trip through text; any other name is a BackendError."""
    found = globals().get(kind)
    if isinstance(found, type) and issubclass(found, RwkvPerfError):
        return found(message)
    return BackendError(f"the engine raised {kind}: {message}")
