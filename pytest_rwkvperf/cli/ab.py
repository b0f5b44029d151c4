"""`rwkvperf ab`: two environments in alternation, without a test suite."""

from __future__ import annotations

import sys
import tempfile
from typing import TYPE_CHECKING

from pytest_rwkvperf.core import subprocesses

if TYPE_CHECKING:
    import argparse

    from pytest_rwkvperf.cli.console import Console

HELP = """measure this environment in alternation with another one
The same as pytest --rwkv-ab=PYTHON with the shipped suite: no project's tests or settings take part. Without PYTHON,
this environment against itself (--rwkv-aa), which keeps what it learns of this machine in baselines/ of this folder.
Options after -- go to pytest, relative paths in them from this folder, and its exit status comes back.

  rwkvperf ab old/.venv/bin/python --backend llama-cpp -- --rwkv-model=synthetic:0.1b --rwkv-quant=f16
"""

PASSES_ON = True
"""What stands after `--` is pytest's."""


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("python", metavar="PYTHON", nargs="?", help="the interpreter with the old version")
    parser.add_argument("--backend", default="all", help="what to measure; default all")


def run(options: argparse.Namespace, console: Console) -> int:
    """Run pytest in view."""
    console.text("")
    with tempfile.TemporaryDirectory(prefix="rwkvperf-ab-") as folder, subprocesses.leaving_nothing():
        mode = f"--rwkv-ab={options.python}" if options.python else "--rwkv-aa"
        own = (mode, f"--rwkv-backend={options.backend}")
        command = [*subprocesses.pytest_apart(sys.executable, folder), *own, *options.passed_on]
        code = subprocesses.run(command).returncode
    return code if code >= 0 else 128 - code  # ended by a signal: as a shell says it
