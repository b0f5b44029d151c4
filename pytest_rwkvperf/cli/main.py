"""The `rwkvperf` command: its subcommands, how a command line is run, and what its errors become.

Results go to stdout, progress and errors to stderr. Exit statuses: 0; 1 for a failure; 2 for a mistake in the command
line; 130 after Ctrl-C; 143 after SIGTERM, 129 after SIGHUP. `ab` returns pytest's.
"""

from __future__ import annotations

import argparse
import math
import sys
from typing import TYPE_CHECKING, NoReturn

from pytest_rwkvperf import __version__
from pytest_rwkvperf.cli import (
    ab,
    bisect,
    certify,
    compare,
    console,
    convert,
    explain,
    fleet,
    history,
    inspect,
    merge,
    report,
    synth,
)
from pytest_rwkvperf.cli.console import Console
from pytest_rwkvperf.core.errors import OptionError, RwkvPerfError
from pytest_rwkvperf.core.signals import first_signal_unwinds
from pytest_rwkvperf.core.text import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_rwkvperf.cli.command import Command

COMMANDS: dict[str, Command] = {
    "convert": convert,
    "inspect": inspect,
    "synth": synth,
    "report": report,
    "history": history,
    "compare": compare,
    "explain": explain,
    "ab": ab,
    "bisect": bisect,
    "certify": certify,
    "merge": merge,
    "fleet": fleet,
}
"""Every subcommand, in the order that `--help` lists them."""

_FAILED, _USAGE, _INTERRUPTED = 1, 2, 130  # the last: 128 and the signal's number


class _Parser(argparse.ArgumentParser):
    """argparse, with each mistake reported in one line."""

    def error(self, message: str) -> NoReturn:
        """Exit with the mistake, and the command that shows the help."""
        self.exit(_USAGE, f"{self.prog}: {message}; see {self.prog} --help\n")


def parser() -> argparse.ArgumentParser:
    """The command line of `rwkvperf`."""
    top = _Parser(
        prog="rwkvperf",
        description="Inspect, convert and make RWKV-7 model files; compare, explain and report measurement records; "
        "compare builds of engines, search for slowdowns, and merge runs of many machines.",
        allow_abbrev=False,
    )
    top.add_argument("--version", action="version", version=f"rwkvperf {__version__}")
    subparsers = top.add_subparsers(metavar="COMMAND", dest="command", required=True)
    for name, command in COMMANDS.items():
        summary, description = command.HELP.split("\n", 1)
        subparser = subparsers.add_parser(
            name,
            help=summary,
            description=f"{summary[:1].upper()}{summary[1:]}.\n{description.rstrip()}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        command.add(subparser)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line, by default the process's own; returns the exit status."""
    console.prepare_streams()
    own, passed_on = _split(list(sys.argv[1:] if arguments is None else arguments))
    try:
        options = parser().parse_args(own)
    except OptionError as error:
        return _fail(str(error), _USAGE)
    options.passed_on = passed_on
    with first_signal_unwinds(lambda number: SystemExit(128 + number), math.inf):
        return _run(options)


def _split(arguments: list[str]) -> tuple[list[str], list[str]]:
    """The command's own arguments, and those after `--` if the command passes them on."""
    command = COMMANDS.get(arguments[0]) if arguments else None
    if command is None or not command.PASSES_ON or "--" not in arguments:
        return arguments, []
    at = arguments.index("--")
    return arguments[:at], arguments[at + 1 :]


def _run(options: argparse.Namespace) -> int:
    try:
        with Console() as streams:
            return COMMANDS[options.command].run(options, streams)
    except OptionError as error:
        separator = "\n" if "\n" in str(error) else "; "
        return _fail(f"{error}{separator}see rwkvperf {options.command} --help", _USAGE)
    except RwkvPerfError as error:
        return _fail(str(error), _FAILED)
    except KeyboardInterrupt:
        return _fail("interrupted; nothing was left behind", _INTERRUPTED)
    except BrokenPipeError:  # the reader of stdout has closed it, as `head` does
        console.discard_stdout()
        return _FAILED
    except OSError as error:  # a full disk behind stdout, for example
        console.discard_stdout()
        return _fail(str(error), _FAILED)


def _fail(message: str, status: int) -> int:
    # The message may quote a file, whose control characters must not reach the terminal.
    print("rwkvperf:", printable(message, keep="\n"), file=sys.stderr)  # noqa: T201 - errors go to stderr
    return status
