"""`rwkvperf ab`: compare two builds of an engine in alternation, without a test suite."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from pytest_rwkvperf.core import subprocesses
from pytest_rwkvperf.core.errors import OptionError

if TYPE_CHECKING:
    import argparse

    from pytest_rwkvperf.cli.console import Console

HELP = """compare two builds of an engine, measured in alternation
Runs pytest --rwkv-ab=OLD --rwkv-new=NEW with the shipped suite; tests and settings of the current folder are not used.
Without NEW, this environment is the new side. Without OLD, this environment is compared with itself (--rwkv-aa), and
the machine's noise is stored in baselines/ of the current folder. Options after -- go to pytest; relative paths in them
start at the current folder. The exit status is pytest's.

  rwkvperf ab llama-cpp-python==0.3.35 --backend llama-cpp -- --rwkv-model=synthetic:0.1b --rwkv-quant=f16
  rwkvperf ab llama.cpp@b9868 llama.cpp@b9890 --repo ../llama.cpp -- --rwkv-quant=q8_0
  rwkvperf ab ../llama.cpp@HEAD ../llama.cpp
  rwkvperf ab old/.venv/bin/python --backend all
"""
PASSES_ON = True


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    old = "the old build, as --rwkv-ab takes it: another environment's Python, baseline, a requirement, a wheel, "
    old += "an engine's source (ENGINE@REVISION, REPOSITORY@REVISION, a folder as it is), or lib:FOLDER"
    parser.add_argument("old", metavar="OLD", nargs="?", help=old)
    parser.add_argument(
        "new", metavar="NEW", nargs="?", help="the new build, in the same forms; default: this environment"
    )
    parser.add_argument(
        "--repo", help="the repository of the revisions in ENGINE@REVISION, a path or a URL; default: the engine's own"
    )
    parser.add_argument(
        "--backend",
        help="the backends to measure, as --rwkv-backend; default: the engine that is built from source, else all",
    )


def run(options: argparse.Namespace, console: Console) -> int:
    """Run pytest with its output shown."""
    console.text("")
    sides, backend = _sides(options)
    with subprocesses.isolated_pytest(sys.executable, "ab") as (pytest, _):
        command = [*pytest, *sides, f"--rwkv-backend={options.backend or backend}", *options.passed_on]
        code = subprocesses.run(command).returncode
    return code if code >= 0 else 128 - code  # ended by a signal: as shells report it


def _sides(options: argparse.Namespace) -> tuple[list[str], str]:
    """What pytest is told of the sides, and the backend that measures what is built from source."""
    from pytest_rwkvperf.environments import named_builds, sources, trees

    given = [text for text in (options.old, options.new) if text]
    texts = [sources.in_repository(text, options.repo) if options.repo else text for text in given]
    if options.repo and texts == given:
        raise OptionError(
            "--repo is the repository of ENGINE@REVISION, and neither OLD nor NEW has that form; leave --repo out"
        )
    found = (named_builds.parse(text) for text in texts)
    engines = {trees.engine_of(each.source).backend for each in found if each.source}
    if len(engines) > 1:
        raise OptionError(
            f"OLD and NEW are sources of two engines, {' and '.join(sorted(engines))}; name two of one engine"
        )
    names = ("--rwkv-ab", "--rwkv-new")
    sides = [f"{name}={text}" for name, text in zip(names, texts, strict=False)] or ["--rwkv-aa"]
    return sides, next(iter(engines), "all")
