"""The errors that this project raises on purpose. Each message names the file or value at fault and what to do next.

How one ends, wherever it is raised:

* pytest, before the first test: a usage error, exit code 4, and nothing is measured;
* pytest, while a case is measured: that case's tests fail, exit code 1;
* pytest, while results are stored after the tests: a message in the summary, exit code 1 unless it already failed;
* the `rwkvperf` command: exit code 2 for an OptionError, 1 for the others. Neither prints a traceback.
"""

from __future__ import annotations


class RwkvPerfError(Exception):
    """Base of every error that this project raises on purpose."""


class OptionError(RwkvPerfError):
    """An option, ini value or marker argument is unknown, malformed or contradicts another."""


class ModelError(RwkvPerfError):
    """A model file or reference cannot be used: missing, truncated, mislabelled, hostile or not RWKV-7."""


class BackendError(RwkvPerfError):
    """An engine refuses a request, or raised an error of its own."""


class BackendMissingError(BackendError):
    """The engine is not installed in the interpreter that should run it."""


class DeviceError(BackendError):
    """The requested device does not exist, or the engine silently used another one."""


class WorkerError(RwkvPerfError):
    """A worker process failed to answer a request."""


class WorkerDiedError(WorkerError):
    """A worker process ended before it answered: it crashed, was killed, or ran out of memory."""


class WorkerTimeoutError(WorkerError):
    """A worker process missed its deadline and was ended."""


class ProtocolError(WorkerError):
    """A worker process sent something that is not a valid answer: garbled, too large or out of turn."""


class MeasurementError(RwkvPerfError):
    """Timings are unusable for a verdict: NaN, infinite, zero, negative or too few."""


class ParityError(MeasurementError):
    """An engine computes wrong logits, so its speed counts for nothing."""


class BaselineError(RwkvPerfError):
    """A stored baseline cannot be read or written; the file is unchanged."""


class RecordError(RwkvPerfError):
    """A measurement record cannot be read, or another run is stored under its id."""


class ConventionError(RwkvPerfError):
    """Speeds that were measured in different ways cannot be compared."""


class CertificateError(RwkvPerfError):
    """A certificate of the gate cannot be read or written, or is of something else."""


class ReportError(RwkvPerfError):
    """A report cannot be made or written; an older file in its place is unchanged."""


class StorageError(RwkvPerfError):
    """A file or folder cannot be made or written, or a file was written and could not be flushed to the disk."""


class RefusedError(StorageError):
    """The system refuses a folder or a lock that is needed before anything can be written."""


class FleetError(RwkvPerfError):
    """A cluster cannot be used: Ray is not installed, or no head node answers."""


class LockedError(RwkvPerfError):
    """Another process held a lock for longer than the caller waits; the message is the holder."""


class HistoryError(RwkvPerfError):
    """A history's database cannot be reached, read or written; unsent runs stay on this disk."""


def from_name(kind: str, message: str) -> RwkvPerfError:
    """Rebuild an error that crossed a pipe or a file as its class name and message.

    A name that is no class of this module (an engine's own exception) becomes a BackendError.
    """
    error_class = globals().get(kind)
    if isinstance(error_class, type) and issubclass(error_class, RwkvPerfError):
        return error_class(message)
    return BackendError(f"the engine raised {kind}: {message}")
