"""SIGTERM unwinds a process as Ctrl-C does: once, without replacing other handlers."""

from __future__ import annotations

import math
import signal
import subprocess
import sys
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from pytest_rwkvperf.core import signals
from pytest_rwkvperf.core.signals import first_signal_unwinds

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there SIGTERM ends a process without a word")


class EndedError(Exception):
    """Raised at SIGTERM."""


@pytest.fixture(autouse=True)
def default_sigterm() -> Iterator[None]:
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGTERM, before)


def test_only_the_first_sigterm_raises() -> None:
    with first_signal_unwinds(EndedError, math.inf):
        with pytest.raises(EndedError):
            signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_ctrl_c_always_interrupts_and_a_sigterm_soon_after_it_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.getsignal(signal.SIGINT)
    with first_signal_unwinds(EndedError, 30):
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        monkeypatch.setattr(signals, "clock", SimpleNamespace(monotonic=lambda: time.monotonic() + 31))
        with pytest.raises(EndedError):
            signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_closed_terminal_ends_the_process_likewise_unless_that_is_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        with first_signal_unwinds(EndedError, math.inf):
            with pytest.raises(EndedError) as caught:
                signal.raise_signal(signal.SIGHUP)
            assert caught.value.args == (signal.SIGHUP,)
            signal.raise_signal(signal.SIGTERM)
        assert signal.signal(signal.SIGHUP, signal.SIG_IGN) == signal.SIG_DFL
        with first_signal_unwinds(EndedError, math.inf):
            signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_other_handlers_are_kept() -> None:
    def other(*_: object) -> None:
        """Another handler."""

    signal.signal(signal.SIGTERM, other)
    with first_signal_unwinds(EndedError, math.inf):
        assert signal.getsignal(signal.SIGTERM) is other
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with first_signal_unwinds(EndedError, math.inf):
        signal.signal(signal.SIGTERM, other)
    assert signal.getsignal(signal.SIGTERM) is other


FORKS = """
import os, signal, time
from pytest_rwkvperf.core.signals import first_signal_unwinds
with first_signal_unwinds(KeyboardInterrupt, 30):
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        os.write(writing, b".")
        time.sleep(60)
    os.read(reading, 1)  # what reaches it while Python is still forking is lost
    os.kill(child, signal.SIGTERM)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_forked_process_dies_of_sigterm() -> None:
    ended = subprocess.run([sys.executable, "-c", FORKS], capture_output=True, text=True, timeout=300, check=True)
    assert (ended.stdout.strip(), ended.stderr) == (str(-signal.SIGTERM), "")
