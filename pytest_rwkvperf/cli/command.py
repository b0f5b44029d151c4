"""What every subcommand of `rwkvperf` declares."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import argparse

    from pytest_rwkvperf.cli.console import Console


class Command(Protocol):
    """One subcommand: a module of this folder, registered by one line in `cli/main.py`."""

    HELP: str
    """The first line is the summary in `rwkvperf --help`, the rest the description in `rwkvperf COMMAND --help`."""
    PASSES_ON: bool
    """Whether arguments after `--` are pytest's; `run` gets them as `options.passed_on`."""

    def add(self, parser: argparse.ArgumentParser) -> None:
        """Declare the arguments."""

    def run(self, options: argparse.Namespace, console: Console) -> int:
        """Do the work; returns the exit status."""
