"""Output of the commands: results on stdout, progress on stderr."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console as RichConsole
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeElapsedColumn

from pytest_rwkvperf.core.text import printable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from rich.console import RenderableType
    from rich.table import Table
    from typing_extensions import Self

_WIDEST = 1000
"""Columns, more than any table needs."""


def prepare_streams() -> None:
    """Make stdout and stderr accept any text, whatever the caller did to them.

    A closed stream becomes the null device: otherwise a file opened later would get its descriptor and its output.
    Outside a terminal the encoding is UTF-8, as in files, unless PYTHONIOENCODING is set; characters that an encoding
    lacks become escapes.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115 - for the process's life
        elif isinstance(stream, io.TextIOWrapper):
            chosen = stream.isatty() or "PYTHONIOENCODING" in os.environ
            stream.reconfigure(encoding=None if chosen else "utf-8", errors="backslashreplace")


def discard_stdout() -> None:
    """Redirect a broken stdout to the null device: Python would flush it again at exit and print a traceback."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class Console:
    """Progress is a live bar on a terminal, elsewhere one line for each step."""

    def __init__(self) -> None:
        self._out = RichConsole(file=sys.stdout, highlight=False, soft_wrap=True)
        self._err = RichConsole(file=sys.stderr, highlight=False, soft_wrap=True)
        columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn())
        self._bar = Progress(*columns, TimeElapsedColumn(), console=self._err, transient=True)
        self._task: TaskID | None = None
        self._sentence = ""

    def __enter__(self) -> Self:
        if self._err.is_terminal:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    @property
    def width(self) -> int:
        """Columns of stdout's terminal."""
        return self._out.width

    def progress(self, sentence: str, fraction: float) -> None:
        """Show a step and how much of it is done, from 0 to 1."""
        if self._err.is_terminal:
            if self._task is None or sentence != self._sentence:
                if self._task is not None:
                    self._bar.remove_task(self._task)
                self._task = self._bar.add_task(sentence, total=1.0)
            self._bar.update(self._task, completed=fraction)
        elif sentence != self._sentence:
            self._err.print(sentence, markup=False)
        self._sentence = sentence

    def result(self, renderable: RenderableType) -> None:
        """Print a result. Text is printed as it is, without markup."""
        self._stop()
        self._out.print(renderable, markup=False, crop=False)

    def wide(self, table: Table) -> None:
        """Print a table whose cells are never cut; a narrower terminal wraps its lines."""
        self._stop()
        RichConsole(file=sys.stdout, highlight=False, width=_WIDEST).print(table)

    def text(self, text: str) -> None:
        """Write text unchanged: a report may go into a file or another program."""
        self._stop()
        sys.stdout.write(text)
        sys.stdout.flush()

    def notes(self, lines: Sequence[str]) -> None:
        """Write lines about a result on stderr, so that stdout has the result alone."""
        self._stop()
        for line in lines:
            self._err.print(printable(line), markup=False)

    def _stop(self) -> None:
        if self._err.is_terminal:  # stopping a bar that was never started prints an empty line
            self._bar.stop()
