"""Starting a worker so that it cannot outlive this process, and the kernel's count of out-of-memory kills."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from subprocess import PIPE, Popen  # bound now: a project's fixtures may forbid `subprocess.Popen` in its tests
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_VMSTAT = Path("/proc/vmstat")


class _Starter:
    """One thread that starts every worker and lives as long as this process.

    On Linux a worker asks to be killed with its parent, which to the kernel is the thread that started it
    (PR_SET_PDEATHSIG, prctl(2)): a worker started by a thread of a pool would end with that thread.
    """

    def __init__(self) -> None:
        self._forget()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        """Start anew after a fork, which copies only the forking thread, and locks in the state that they are in."""
        self._pool: ThreadPoolExecutor | None = None
        self._making = threading.Lock()

    def start(self, command: Sequence[str], environment: Mapping[str, str]) -> Popen[bytes]:
        """Start a command in that thread."""
        # Engines are described in parallel; a second pool would be dropped, and its thread and worker would end.
        with self._making:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="rwkvperf-starter")
        return self._pool.submit(_start, command, environment).result()


_STARTER = _Starter()


def start(command: Sequence[str], environment: Mapping[str, str]) -> Popen[bytes]:
    """Start a worker with pipes for stdin, stdout and stderr, in a process group of its own."""
    return _STARTER.start(command, environment)


def _start(command: Sequence[str], environment: Mapping[str, str]) -> Popen[bytes]:
    return Popen(command, stdin=PIPE, stdout=PIPE, stderr=PIPE, env=environment, **_own_group())


def _own_group() -> dict[str, Any]:
    """A process group of its own, so that a Ctrl-C at the terminal reaches the parent alone."""
    if sys.platform == "win32":
        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
    return {"start_new_session": True}


def oom_kills() -> int | None:
    """How many processes the kernel's out-of-memory killer has ended on this machine, in any control group (proc(5)).

    None where there is no such count: not Linux, or Linux before 4.13.
    """
    try:
        lines = _VMSTAT.read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError):
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), None)
