"""The end of a worker's stderr, bounded in size and shown without secrets."""

from __future__ import annotations

import threading
from typing import IO

from pytest_rwkvperf.core.text import safe

_KEPT_BYTES = 64 << 10
_CHUNK_BYTES = 64 << 10

_LINES = 30
_LINE_LETTERS = 1000
"""How many lines are shown, and how much of each."""


class Tail:
    """Reads a pipe to its end in a thread of its own and remembers the last 64 KiB."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self._pipe = pipe
        self._kept = b""
        self._whole = True
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def lines(self) -> list[str]:
        """The last lines, at most 30, without secrets and control characters."""
        text = self._kept.decode(errors="replace")
        if not self._whole:  # a secret that the cut has halved would not be recognised
            text = text.partition("\n")[2] or text[_LINE_LETTERS:]
        # Redacted before it is cut into lines: a private key has many.
        safe_text = safe(text.replace("\r\n", "\n"), keep="\n\t")
        lines = [line.rstrip() for line in safe_text.splitlines() if line.strip()]
        return [line if len(line) <= _LINE_LETTERS else f"{line[:_LINE_LETTERS]} ..." for line in lines[-_LINES:]]

    def join(self, seconds: float) -> bool:
        """Wait for the pipe's end and close it; False if another process still holds the other end."""
        self._thread.join(seconds)
        if self._thread.is_alive():
            return False
        self._pipe.close()
        return True

    def _read(self) -> None:
        # A raw read returns what is there; a buffered one would wait until the chunk is full.
        raw = getattr(self._pipe, "raw", self._pipe)
        while chunk := raw.read(_CHUNK_BYTES):
            self._whole = self._whole and len(self._kept) + len(chunk) <= _KEPT_BYTES
            self._kept = (self._kept + chunk)[-_KEPT_BYTES:]
