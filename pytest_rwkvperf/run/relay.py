"""The controller of pytest-xdist shows the progress of its workers, which have no terminal.

They write it into the run's folder (`RunFolder.say`), from which a thread of the controller reads it: xdist calls no
hook of the controller's while its workers measure.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

LOOK_SECONDS = 1.0
"""Between two looks for new lines."""


class Relay:
    """Passes lines on from the first worker's start until `stop`. Nothing runs before that."""

    def __init__(self, said: Callable[[], Iterable[str]], show: Callable[[str], None]) -> None:
        self._said = said
        self._show = show
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread, once."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="rwkvperf relay", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Pass on the last lines, and end the thread."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._ended.set()
            thread.join()
            self._pass_on()

    def _run(self) -> None:
        while not self._ended.wait(LOOK_SECONDS):
            self._pass_on()

    def _pass_on(self) -> None:
        with suppress(OSError, ValueError):  # the reader of the output has gone
            for line in self._said():
                self._show(line)
