"""The parent's side of a worker process: deadlines, the process group, and errors that name what went wrong."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
import weakref
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn

import psutil

from pytest_rwkvperf.core import clock, errors, folders
from pytest_rwkvperf.core.text import safe
from pytest_rwkvperf.worker import starting
from pytest_rwkvperf.worker.environment import allowed_variables
from pytest_rwkvperf.worker.messages import MAX_LINE_BYTES, decode, encode
from pytest_rwkvperf.worker.tail import Tail

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import TracebackType

    from typing_extensions import Self

    from pytest_rwkvperf.core.cases import Case

_BOOTSTRAP = Path(__file__).with_name("bootstrap.py")

_QUEUED_MESSAGES = 16
"""Messages that are read ahead; a worker that sends more waits."""

MESSAGES_PER_SECOND = 1000
"""More progress messages than this, plus a second's worth, are a protocol error."""

_PROGRESS_SECONDS = 0.05
"""Pause between two shown reports of progress with the same sentence."""

_FOR_LAST_LINES = {"PYTHONUNBUFFERED": "1", "GGML_NO_BACKTRACE": "1"}
"""For useful last lines: Python's output before a native crash is kept, and ggml starts no debugger, whose backtrace
of a hundred lines would push its assertion out (and take seconds)."""

_OTHER_PROCESSOR = "an instruction that this processor lacks: compile the engine on this machine, or for any processor"

_DESCRIBING = ("describe", "open", "device_time", "count_work")
"""Requests whose answers contain an engine's texts. Paths in other answers must stay unchanged."""

_POLL_SECONDS = 0.5
"""Pause between two looks at whether a worker, or the wish to read from it, has ended."""

_GRACE_SECONDS = 3.0
"""How long a process gets to end after it was told to."""

START_SECONDS = 60.0
"""Deadline for the interpreter's own start."""
IMPORT_SECONDS = 300.0
"""Deadline for importing an engine and listing its devices; a cold torch on a slow disk takes a minute."""
LOAD_SECONDS = 1800.0
"""Deadline for loading a model: 13.3 B parameters from a slow disk."""
SAMPLE_SECONDS = 1800.0
"""Deadline for one repetition of a workload, before its speed is known."""
DEVICE_TIME_SECONDS = 60.0
"""Deadline for a few repetitions under CUPTI; beyond it only that figure is lost."""
WITNESS_SECONDS = 600.0
"""Deadline for counting the work of a workload; beyond it only the count is lost."""
QUICK_SECONDS = 60.0
"""Deadline for everything else."""

_LIVE: weakref.WeakSet[Worker] = weakref.WeakSet()
"""Every worker that has not been ended."""


def end_all() -> None:
    """End every worker that this process has started, also those that other threads wait for."""
    for worker in [*_LIVE]:
        worker.kill()


class Worker:
    """One process that runs one engine. Use it as a context manager; leaving it ends the process.

    `environment` is added to `allowed_variables`; None unsets a variable. `command` stands before the interpreter.
    """

    def __init__(
        self,
        *,
        python: str = sys.executable,
        environment: Mapping[str, str | None] | None = None,
        command: Sequence[str] = (),
    ) -> None:
        self._folder = folders.new_temporary_folder("worker")
        self._kills_before = starting.oom_kills()
        own = dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(self._folder.path))
        given = {**allowed_variables(), **_FOR_LAST_LINES, **own, **(environment or {})}
        variables = {name: value for name, value in given.items() if value is not None}
        try:
            self._process = starting.start([*command, python, str(_BOOTSTRAP)], variables)
        except BaseException:
            self._folder.remove()
            raise
        self._replies: queue.Queue[bytes | None] = queue.Queue(_QUEUED_MESSAGES)
        assert self._process.stderr is not None  # noqa: S101 - opened with PIPE
        self._stderr = Tail(self._process.stderr)
        self._number = 0
        self._ended = threading.Event()
        replies = (self._process.stdout, self._replies, self._ended)
        self._reader = threading.Thread(target=_read_replies, args=replies, daemon=True)
        self._reader.start()
        _LIVE.add(self)  # complete by now: another thread may end it at once
        try:
            self._await_hello()
        except BaseException:
            self.kill()
            raise

    @property
    def pid(self) -> int:
        """The worker's process id."""
        return self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            self.kill()

    def request(
        self, do: str, deadline: float, progress: Callable[[str, float], None] | None = None, **arguments: object
    ) -> Any:  # noqa: ANN401 - JSON; each caller knows the shape of its answer
        """Send a request and wait for the answer, at most `deadline` seconds.

        Raises:
            WorkerDiedError: the process ended; the message names the signal and has its last lines.
            WorkerTimeoutError: the deadline passed; the process tree has been ended.
            ProtocolError: the answer is garbled, too large or another request's.
            RwkvPerfError: what the worker itself raised, with the same class.
        """
        self._number += 1
        self._send({"id": self._number, "do": do, "with": arguments}, do)
        started = clock.monotonic()
        limit, shown_at, shown = started + deadline, 0.0, ""
        count = 0
        while True:
            message = self._receive(limit, f"{do} ({deadline:.0f} s allowed)")
            count += 1
            if count > MESSAGES_PER_SECOND * (1 + clock.monotonic() - started):
                self._fail(errors.ProtocolError(f"more than {MESSAGES_PER_SECOND} messages a second during {do}"))
            if message.get("id") != self._number:
                self._fail(errors.ProtocolError(f"an answer to another request than {do}: {message.get('id')!r}"))
            match message:
                case {"progress": [str(sentence), int() | float() as fraction]}:
                    fresh = sentence != shown or fraction >= 1 or clock.monotonic() - shown_at > _PROGRESS_SECONDS
                    if progress is not None and fresh:
                        progress(safe(sentence), fraction)
                        shown_at, shown = clock.monotonic(), sentence
                case {"failed": {"kind": str(kind), "message": str(text)}}:
                    raise errors.from_name(safe(kind), safe(text, keep="\n"))
                case {"done": answer}:
                    return _safe(answer) if do in _DESCRIBING else answer
                case _:
                    self._fail(errors.ProtocolError(f"no answer to {do}: {str(message)[:80]}"))

    def open(self, location: str, path: Path, case: Case, witness: str = "") -> Any:  # noqa: ANN401 - JSON
        """Load a case's model, for a witness if one is named; the answer has the load time, device and versions.

        Raises:
            RwkvPerfError: as `request`.
        """
        return self.request(
            "open",
            LOAD_SECONDS,
            location=location,
            path=str(path),
            quant=case.quant,
            device=case.device,
            threads=case.threads,
            chunk=case.chunk,
            settings=dict(case.settings),
            witness=witness,
        )

    def close(self) -> None:
        """Let the process end; end it when it does not."""
        if self._process.poll() is None:
            try:
                self._number += 1
                self._send({"id": self._number, "do": "close", "with": {}}, "close")
                self._process.wait(_GRACE_SECONDS)
            except (errors.WorkerDiedError, subprocess.TimeoutExpired):
                pass
        self.kill()

    def kill(self) -> None:
        """End the process and everything it started: TERM, then KILL; reap it and close the pipes."""
        _LIVE.discard(self)
        self._ended.set()
        _end_tree(self._process)
        self._folder.remove()
        assert self._process.stdin is not None  # noqa: S101 - opened with PIPE
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        # A process that escaped may hold the other end; then closing would block until it ends.
        self._reader.join(_GRACE_SECONDS)
        if self._process.stdout is not None and not self._reader.is_alive():
            self._process.stdout.close()
        self._stderr.join(_GRACE_SECONDS)

    def _await_hello(self) -> None:
        """Skip the output of the interpreter's start-up files, which run before the bootstrap takes the pipe."""
        limit = clock.monotonic() + START_SECONDS
        while b'"hello"' not in self._next_line(limit, f"its first message ({START_SECONDS:.0f} s allowed)"):
            continue

    def _send(self, message: dict[str, Any], do: str) -> None:
        assert self._process.stdin is not None  # noqa: S101 - opened with PIPE
        try:
            self._process.stdin.write(encode(message))
            self._process.stdin.flush()
        except (BrokenPipeError, OSError) as error:
            raise self._death(do) from error

    def _receive(self, limit: float, what: str) -> dict[str, Any]:
        line = self._next_line(limit, what)
        try:
            return decode(line)
        except errors.ProtocolError as error:
            self._fail(error)

    def _next_line(self, limit: float, what: str) -> bytes:
        while True:
            remaining = limit - clock.monotonic()
            if remaining <= 0:
                self._fail(errors.WorkerTimeoutError(f"the worker did not finish {what}; it has been ended"))
            try:
                line = self._replies.get(timeout=min(_POLL_SECONDS, remaining))
            except queue.Empty:
                if self._process.poll() is None:
                    continue
                line = None
            if line is None:
                raise self._death(what)
            return line

    def _fail(self, error: errors.WorkerError) -> NoReturn:
        self.kill()
        raise type(error)(f"{error}{self._last_lines()}")

    def _death(self, what: str) -> errors.WorkerDiedError:
        try:
            code = self._process.wait(_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            code = None
        self.kill()
        return errors.WorkerDiedError(
            f"the worker {_how_ended(code, self._kills_before)} during {what}{self._last_lines()}"
        )

    def _last_lines(self) -> str:
        lines = "\n  ".join(self._stderr.lines())
        return f"; its last lines:\n  {lines}" if lines else "; it wrote nothing on stderr"


def _read_replies(pipe: BinaryIO, replies: queue.Queue[bytes | None], ended: threading.Event) -> None:
    while line := pipe.readline(MAX_LINE_BYTES + 1):
        if not _put(replies, line, ended) or len(line) > MAX_LINE_BYTES:
            break
    _put(replies, None, ended)


def _put(replies: queue.Queue[bytes | None], line: bytes | None, ended: threading.Event) -> bool:
    """Queue a line; while the queue is full, the worker blocks on its pipe."""
    while not ended.is_set():
        with suppress(queue.Full):
            replies.put(line, timeout=_POLL_SECONDS)
            return True
    return False


def _safe(answer: Any) -> Any:  # noqa: ANN401 - JSON
    """An answer whose texts are safe to show."""
    if isinstance(answer, dict):
        return {safe(key): _safe(value) for key, value in answer.items()}
    if isinstance(answer, list):
        return [_safe(value) for value in answer]
    return safe(answer) if isinstance(answer, str) else answer


def _end_tree(process: subprocess.Popen[bytes]) -> None:
    try:
        root = psutil.Process(process.pid)
        tree = [*root.children(recursive=True), root]
    except psutil.NoSuchProcess:
        tree = []
    if process.poll() is None or len(tree) > 1:
        for member in tree:
            with suppress(psutil.NoSuchProcess):
                member.terminate()
        _, alive = psutil.wait_procs(tree, timeout=_GRACE_SECONDS)
        started_since = [child for member in alive for child in _descendants(member)]
        for member in dict.fromkeys([*alive, *started_since]):
            with suppress(psutil.NoSuchProcess):
                member.kill()
    process.wait()
    _end_group(process.pid)


def _descendants(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _end_group(leader: int) -> None:
    """End orphans that a dead worker left in its process group. POSIX only."""
    if sys.platform != "win32":
        # PermissionError: on macOS, when only zombies are left.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(leader, signal.SIGKILL)


def _how_ended(code: int | None, kills_before: int | None) -> str:
    """How a process ended; for SIGKILL also whether the out-of-memory killer sent it, by the kernel's count."""
    if code is None:
        return "closed its pipe and stayed alive"
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    if name != "SIGKILL":
        hint = f" ({_OTHER_PROCESSOR})" if name == "SIGILL" else ""
        return f"was ended by {name}{hint}"
    kills = starting.oom_kills()
    if kills is None or kills_before is None:
        return "was ended by SIGKILL (most often the kernel's out-of-memory killer)"
    if kills > kills_before:
        return "was ended by SIGKILL, from the kernel's out-of-memory killer: it needs more memory than there is"
    return "was ended by SIGKILL (from another process: the kernel's out-of-memory killer ended nothing meanwhile)"
