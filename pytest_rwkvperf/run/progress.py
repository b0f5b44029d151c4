"""Show progress: one live line on a terminal, one line per step elsewhere, nothing under -q."""

from __future__ import annotations

import os
import sys
from contextlib import nullcontext
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from contextlib import AbstractContextManager

    import pytest
    from _pytest._io import TerminalWriter  # the only name pytest has for it


class Progress:
    """Call it with a sentence for the live line; `line` shows what should stay.

    It writes through pytest's terminal writer and suspends pytest's capturing, because it writes while a test runs. An
    xdist worker has no terminal reporter and shows nothing.
    """

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._live = 0

    def __call__(self, sentence: str) -> None:
        """Show a sentence that the next one replaces."""
        writer = self._writer()
        if writer is None or not self._on_a_terminal():
            return
        text = sentence[: max(10, writer.fullwidth - 1)]
        with self._uncaptured():
            writer.write("\r" + text.ljust(self._live), flush=True)
        self._live = len(text)

    def line(self, sentence: str) -> None:
        """Show a sentence permanently, on its own line."""
        writer = self._writer()
        if writer is None:
            return
        with self._uncaptured():
            if self._live:
                writer.write("\r" + " " * self._live + "\r")
                self._live = 0
            else:
                writer.line()
            writer.line(sentence)
            writer.flush()

    def command(self, lines: Iterable[str]) -> None:
        """Write lines for the program that reads stdout, also under -q and without a terminal reporter."""
        for line in lines:
            with self._uncaptured():
                sys.stdout.write(f"\n{line}\n")
                sys.stdout.flush()

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
        reporter = self._config.pluginmanager.getplugin("terminalreporter")
        return bool(reporter.isatty()) and os.environ.get("TERM") != "dumb"
