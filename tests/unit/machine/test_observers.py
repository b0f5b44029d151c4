"""Whoever watches a process is noticed by it; in an ordinary one there is nobody."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec

import pytest

ASK = "from pytest_rwkvperf.machine.observers import names; "


@pytest.mark.parametrize(
    ("arguments", "seen"),
    [
        (["-c", ASK + "print(names())"], "[]"),
        (["-X", "dev", "-c", ASK + "print(names())"], "['python -X dev']"),
        (["-X", "tracemalloc", "-c", ASK + "print(names())"], "['tracemalloc']"),
        (["-c", ASK + "import sys; sys.setprofile(lambda *_: 0); w = names()\nprint(w)"], "profiler"),
        (["-c", ASK + "import bdb, sys; b = bdb.Bdb(); b.reset(); sys.settrace(b.trace_dispatch); "
                "w = names(); sys.settrace(None); print(w)"], "['a debugger']"),
    ],
    ids=["nobody", "dev", "tracemalloc", "profiler", "bdb"],
)  # fmt: skip
def test_watchers_are_named(arguments: list[str], seen: str) -> None:
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=True)
    assert seen in done.stdout.splitlines()[-1]


def test_coverage_is_named() -> None:
    if find_spec("coverage") is None:
        pytest.skip("coverage is not installed; `make setup` installs it")
    code = ASK + "import coverage; c = coverage.Coverage(data_file=None); c.start(); w = names(); c.stop(); print(w)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "coverage" in done.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="ptrace as /proc tells it")
def test_a_native_tracer_is_named() -> None:
    # A child that asks to be traced by its parent, as a debugger's does (PTRACE_TRACEME).
    code = f"import ctypes; ctypes.CDLL(None).ptrace(0, 0, 0, 0); {ASK}print(names())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    if done.returncode < 0 or "[" not in done.stdout:
        pytest.skip("ptrace is not allowed here")
    assert done.stdout.strip() == "['a native debugger or strace']"
