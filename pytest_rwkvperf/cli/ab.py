"""`rwkvperf ab`: compare two builds of an engine in alternation, without a test suite."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from pytest_rwkvperf.core import subprocesses

if TYPE_CHECKING:
    import argparse

    from pytest_rwkvperf.cli.console import Console

HELP = """measure this environment in alternation with another build of an engine
The same as pytest --rwkv-ab=OLD with the shipped suite: tests and settings of the current folder are not used.
Without OLD, this environment against itself (--rwkv-aa), which stores the machine's noise in baselines/ of this
folder. Options after -- go to pytest, relative paths in them from this folder, and its exit status is returned.

  rwkvperf ab llama-cpp-python==0.3.35 --backend llama-cpp -- --rwkv-model=synthetic:0.1b --rwkv-quant=f16
  rwkvperf ab old/.venv/bin/python --backend all
"""
PASSES_ON = True


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    old = "the old build, as --rwkv-ab takes it: another environment's Python, baseline, a requirement, a wheel, "
    old += "a source folder, or lib:FOLDER"
    parser.add_argument("old", metavar="OLD", nargs="?", help=old)
    parser.add_argument("--backend", default="all", help="what to measure; default all")


def run(options: argparse.Namespace, console: Console) -> int:
    """Run pytest with its output shown."""
    console.text("")
    mode = f"--rwkv-ab={options.old}" if options.old else "--rwkv-aa"
    with subprocesses.isolated_pytest(sys.executable, "ab") as (pytest, _):
        command = [*pytest, mode, f"--rwkv-backend={options.backend}", *options.passed_on]
        code = subprocesses.run(command).returncode
    return code if code >= 0 else 128 - code  # ended by a signal: as shells report it
