"""`rwkvperf ab`: compare two environments in alternation, without a test suite."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from pytest_rwkvperf.core import subprocesses

if TYPE_CHECKING:
    import argparse

    from pytest_rwkvperf.cli.console import Console

HELP = """measure this environment in alternation with another one
The same as pytest --rwkv-ab=PYTHON with the shipped suite: tests and settings of the current folder are not used.
Without PYTHON, this environment against itself (--rwkv-aa), which stores the machine's noise in baselines/ of this
folder. Options after -- go to pytest, relative paths in them from this folder, and its exit status is returned.

  rwkvperf ab old/.venv/bin/python --backend llama-cpp -- --rwkv-model=synthetic:0.1b --rwkv-quant=f16
"""
PASSES_ON = True


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("python", metavar="PYTHON", nargs="?", help="the interpreter with the old version")
    parser.add_argument("--backend", default="all", help="what to measure; default all")


def run(options: argparse.Namespace, console: Console) -> int:
    """Run pytest with its output shown."""
    console.text("")
    mode = f"--rwkv-ab={options.python}" if options.python else "--rwkv-aa"
    with subprocesses.isolated_pytest(sys.executable, "rwkvperf-ab-") as (pytest, _):
        command = [*pytest, mode, f"--rwkv-backend={options.backend}", *options.passed_on]
        code = subprocesses.run(command).returncode
    return code if code >= 0 else 128 - code  # ended by a signal: as shells report it
