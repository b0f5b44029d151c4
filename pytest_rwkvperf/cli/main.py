"""The `rwkvperf` command: what people do with model files and with records outside a pytest run.

One module per subcommand, each with `add`, which declares its arguments, and `run`, which does the work and gives the
exit status. Results go to stdout, progress and errors to stderr. Exit statuses: 0, 1 for what went wrong, 2 for a
mistake in the command line, 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import math
import sys
from typing import TYPE_CHECKING, NoReturn

from pytest_rwkvperf import __version__
from pytest_rwkvperf.cli import ab, bisect, compare, console, convert, fleet, history, inspect, merge, report, synth
from pytest_rwkvperf.cli.console import Console
from pytest_rwkvperf.core.errors import OptionError, RwkvPerfError
from pytest_rwkvperf.core.signals import first_signal_unwinds
from pytest_rwkvperf.core.text import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

COMMANDS = {
    "convert": convert,
    "inspect": inspect,
    "synth": synth,
    "report": report,
    "history": history,
    "compare": compare,
    "ab": ab,
    "bisect": bisect,
    "merge": merge,
    "fleet": fleet,
}
"""Every subcommand, in the order that `--help` lists them."""

_FAILED, _USAGE, _INTERRUPTED, _TERMINATED = 1, 2, 130, 143  # the last two: 128 and the signal's number


_LINES = "\n"


class _Parser(argparse.ArgumentParser):
    """argparse, with a mistake told in one sentence."""

    def error(self, message: str) -> NoReturn:
        """End with the mistake and where to read on."""
        self.exit(_USAGE, f"{self.prog}: {message}; see {self.prog} --help\n")


def parser() -> argparse.ArgumentParser:
    """The command line of `rwkvperf`."""
    top = _Parser(
        prog="rwkvperf",
        description="Look at, convert and make RWKV-7 model files, and make reports of records.",
        allow_abbrev=False,
    )
    top.add_argument("--version", action="version", version=f"rwkvperf {__version__}")
    commands = top.add_subparsers(metavar="COMMAND", dest="command", required=True)
    for name, module in COMMANDS.items():
        summary, description = module.HELP.split("\n", 1)
        own = commands.add_parser(
            name,
            help=summary,
            description=f"{summary}.\n{description.rstrip()}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        module.add(own)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line; default the process's own. Gives the exit status."""
    console.prepare_streams()
    given = list(sys.argv[1:] if arguments is None else arguments)
    own, passed_on = _split(given)
    options = parser().parse_args(own)
    options.passed_on = passed_on
    with first_signal_unwinds(SystemExit(_TERMINATED), math.inf):
        return _run(options)


def _run(options: argparse.Namespace) -> int:
    try:
        with Console() as shown:
            status: int = COMMANDS[options.command].run(options, shown)
            return status
    except OptionError as error:
        return _told(f"{error}; see rwkvperf {options.command} --help", _USAGE)
    except RwkvPerfError as error:
        return _told(str(error), _FAILED)
    except KeyboardInterrupt:
        return _told("interrupted; nothing was left behind", _INTERRUPTED)
    except BrokenPipeError:  # whoever read stdout has gone, as `head` does
        console.give_up_stdout()
        return _FAILED
    except OSError as error:  # what no command has a better sentence for
        console.give_up_stdout()
        return _told(str(error), _FAILED)


def _split(given: list[str]) -> tuple[list[str], list[str]]:
    """The command's own arguments, and what stands after `--` for the program that it runs."""
    if not given or not getattr(COMMANDS.get(given[0]), "PASSES_ON", False) or "--" not in given:
        return given, []
    at = given.index("--")
    return given[:at], given[at + 1 :]


def _told(sentence: str, status: int) -> int:
    # It may quote a file, whose text no terminal should obey.
    print(f"rwkvperf: {printable(sentence, keep=_LINES)}", file=sys.stderr)  # noqa: T201 - errors go to stderr
    return status
