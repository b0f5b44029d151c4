"""Show what a run is doing: a live line on a terminal, elsewhere a line at least every 20 s, nothing under -q."""

from __future__ import annotations

import os
import sys
import threading
from contextlib import contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING

from pytest_rwkvperf.core import clock
from pytest_rwkvperf.core.text import duration

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from contextlib import AbstractContextManager

    import pytest
    from _pytest._io import TerminalWriter  # the only name pytest has for it

LIVE_SECONDS = 1.0
"""Between two changes of the live line."""

SILENT_SECONDS = 15.0
"""Without a terminal, nothing is shown for at most this long: less than 20 s, also on a machine that is busy."""


class Progress:
    """Call it with a sentence about what is being done now; `line` shows what should stay.

    A thread shows the last sentence while the process works (`busy`), with the time that it has taken and how long the
    run still takes (`expect`): nothing is written between the samples of a measurement. Everything goes through
    pytest's terminal writer, with pytest's capturing suspended, because a test is running. An xdist worker has no
    terminal reporter: `relay` takes the lines that a log would have, and its controller shows them (relay.py).
    """

    def __init__(self, config: pytest.Config, relay: Callable[[str], None] | None = None) -> None:
        self._config = config
        self._relay = relay
        self._lock = threading.RLock()
        self._busy = 0
        self._sentence = ""
        self._since = self._shown = clock.monotonic()
        self._ends: float | None = None
        self._live = 0
        """Columns of the live line that is on the terminal."""
        self._interrupted = False
        """Whether pytest's own line was left unfinished."""

    def __call__(self, sentence: str) -> None:
        """Say what is being done from now on."""
        self._sentence = sentence

    def expect(self, seconds: float | None) -> None:
        """Set how long the run still takes; None if that is unknown."""
        self._ends = None if seconds is None else clock.monotonic() + seconds

    def line(self, sentence: str) -> None:
        """Show a sentence permanently, on its own line."""
        if self._relay is not None and self._config.option.verbose >= 0:
            self._relay(sentence)
            self._shown = clock.monotonic()
        writer = self._writer()
        if writer is None:
            return
        with self._lock, self._uncaptured():
            self._leave_pytests_line(writer)
            writer.line(sentence)
            writer.flush()
            self._shown = clock.monotonic()

    def command(self, lines: Iterable[str]) -> None:
        """Write lines for the program that reads stdout, also under -q and without a terminal reporter."""
        for line in lines:
            with self._uncaptured():
                sys.stdout.write(f"\n{line}\n")
                sys.stdout.flush()

    @contextmanager
    def busy(self, sentence: str = "") -> Iterator[None]:
        """Show from time to time what is being done until the block ends; nothing of it stays on a terminal.

        pytest's own line, the file's name and dots, stays, and the file's name is repeated for the dots to come.
        """
        if self._busy or (self._writer() is None and self._relay is None):
            yield
            return
        ended, self._sentence, self._since, self._shown = threading.Event(), sentence, *[clock.monotonic()] * 2
        thread = threading.Thread(target=self._show_until, args=(ended,), name="rwkvperf progress", daemon=True)
        thread.start()
        self._busy += 1
        try:
            yield
        finally:
            self._busy -= 1
            ended.set()
            thread.join()
            self._resume_pytests_line()

    def _show_until(self, ended: threading.Event) -> None:
        """The thread's work. `busy` waits for its end, so that pytest never changes its capturing at the same time."""
        with suppress(OSError, ValueError):  # the reader of the output has gone
            while not ended.wait(self._pause()):
                if self._on_a_terminal():
                    self._show_live()
                elif self._sentence and self._pause() <= 0:
                    self.line(self._text())

    def _pause(self) -> float:
        if self._on_a_terminal():
            return LIVE_SECONDS
        silent = max(0.0, self._shown + SILENT_SECONDS - clock.monotonic())
        return silent if self._sentence else min(LIVE_SECONDS, SILENT_SECONDS)

    def _text(self) -> str:
        now = clock.monotonic()
        seconds = 0.0 if self._ends is None else self._ends - now
        left = f", about {duration(seconds)} left" if seconds >= 1 else ""
        return f"{self._sentence} ({duration(max(1.0, now - self._since))} so far{left})"

    def _show_live(self) -> None:
        writer = self._writer()
        if writer is None or not self._sentence:
            return
        # To stdout itself: pytest's writer counts columns up to the next line break, to place its percentages.
        with self._lock, self._uncaptured():
            if not self._live:
                self._leave_pytests_line(writer)
            text = self._text()[: max(10, writer.fullwidth - 1)]
            sys.stdout.write("\r" + text.ljust(self._live))
            sys.stdout.flush()
            self._live = len(text)

    def _leave_pytests_line(self, writer: TerminalWriter) -> None:
        """Go to the beginning of an empty line."""
        if self._live:
            sys.stdout.write("\r" + " " * self._live + "\r")
            sys.stdout.flush()
            self._live = 0
        elif writer.width_of_current_line:
            writer.line()
        self._interrupted = True

    def _resume_pytests_line(self) -> None:
        """Leave what pytest had begun to write as it was: its dots follow the name of their file."""
        writer = self._writer()
        if not self._interrupted or writer is None:
            return
        with self._uncaptured():
            self._leave_pytests_line(writer)
            if test := os.environ.get("PYTEST_CURRENT_TEST", "").rpartition(" ")[0]:
                writer.write((test if self._config.option.verbose > 0 else test.partition("::")[0]) + " ", flush=True)
        self._interrupted = False

    def _uncaptured(self) -> AbstractContextManager[None]:
        manager = self._config.pluginmanager.getplugin("capturemanager")
        return nullcontext() if manager is None else manager.global_and_fixture_disabled()

    def _writer(self) -> TerminalWriter | None:
        """None under -q, in an xdist worker, and with `-p no:terminal`, which also removes the option -q."""
        if not self._config.pluginmanager.hasplugin("terminalreporter") or hasattr(self._config, "workerinput"):
            return None
        return None if self._config.option.verbose < 0 else self._config.get_terminal_writer()

    def _on_a_terminal(self) -> bool:
        """Colours do not tell: NO_COLOR disables them on a terminal, and FORCE_COLOR enables them in a log."""
        if self._relay is not None:
            return False
        reporter = self._config.pluginmanager.getplugin("terminalreporter")
        isatty = reporter.isatty  # a property before pytest 9, then a method
        return bool(isatty() if callable(isatty) else isatty) and os.environ.get("TERM") != "dumb"


class CaseProgress:
    """What is told of one case while it is measured: which of how many it is, and when the run ends.

    The run ends when its budget is used up, or when every case has had its least number of processes, if that is later.
    How long a process takes is known after the first one; before that, of the cases before this one.
    """

    def __init__(self, progress: Progress, label: str, *, number: int, cases: int, left_seconds: float) -> None:
        self._progress = progress
        self._name = f"case {number} of {cases}, {label}"
        self._others = max(0, cases - number)
        self._left_seconds = left_seconds
        self._began = clock.monotonic()
        progress.expect(left_seconds)

    def __call__(self, sentence: str) -> None:
        """Say what is being done for the case."""
        self._progress(f"{self._name}: {sentence}")

    def pace(self, done: int, least: int) -> None:
        """Correct the estimate: so many processes of the case's `least` are done, or pairs of them."""
        elapsed = clock.monotonic() - self._began
        minimum = (max(0, least - done) + self._others * least) * elapsed / done
        self._progress.expect(max(minimum, self._left_seconds - elapsed))
