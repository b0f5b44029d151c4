"""Workers of two kinds: real ones that run the scripted engine, and programs that speak the protocol badly."""

from __future__ import annotations

import sys
import textwrap
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psutil
import pytest

from pytest_rwkvperf.core.cases import Case
from pytest_rwkvperf.worker.parent import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

LOCATION = "scripted_backend:BACKEND"


def gone(pid: int, seconds: float = 60.0) -> bool:
    """Whether a process ends within so many seconds; one that nobody has reaped yet has ended."""
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.02)
    return False


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """What takes longer fails."""
    started = time.monotonic()
    yield
    elapsed = time.monotonic() - started
    assert elapsed < seconds, f"took {elapsed:.2f} s"


@dataclass(frozen=True)
class Scripted:
    """Starts workers with the scripted engine; `script` is what SCRIPTED_* says, in small letters."""

    stack: ExitStack
    model: Path

    def start(self, **script: str) -> Worker:
        """A worker that has said hello."""
        environment = {f"SCRIPTED_{name.upper()}": value for name, value in script.items()}
        return self.stack.enter_context(Worker(environment=environment))

    def open(self, **script: str) -> Worker:
        """A worker with a model open."""
        worker = self.start(**script)
        worker.open(LOCATION, self.model, Case("scripted", "m", "fp16", "cpu", 1, 64))
        return worker


@pytest.fixture
def scripted(scripted_environment: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Scripted]:  # noqa: ARG001 - sets it
    model = tmp_path / "model.st"
    model.touch()
    with ExitStack() as stack:
        yield Scripted(stack, model)


@pytest.fixture
def impostor(tmp_path: Path) -> Callable[[str], str]:
    """An interpreter, for `Worker(python=...)`, that runs the given lines instead of the worker's own code."""

    def make(lines: str) -> str:
        path = tmp_path / "im postor.py"
        head = (
            f"#!{sys.executable}\nimport os, sys, time, json, signal\n"
            "def say(message): os.write(1, json.dumps(message).encode() + b'\\n')\n"
            "def hello(): say({'hello': {'pid': os.getpid(), 'python': '3'}})\n"
            "def ask(): return json.loads(sys.stdin.readline())\n"
        )
        path.write_text(head + textwrap.dedent(lines), encoding="utf-8")
        path.chmod(0o755)
        return str(path)

    return make
