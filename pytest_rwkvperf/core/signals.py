"""SIGTERM and SIGHUP as exceptions, so that workers end, temporary files go and reports are written."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pytest_rwkvperf.core import clock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType


@contextmanager
def first_signal_unwinds(ending: Callable[[signal.Signals], BaseException], unwinding_seconds: float) -> Iterator[None]:
    """Raise what `ending` makes of the first SIGTERM or SIGHUP in the main thread, and ignore every later one.

    SIGHUP comes when a terminal is closed or an ssh connection breaks; `nohup` ignores it, which stays so.

    CI runners send SIGTERM to the process group and then to its leader, or after Ctrl-C; the second signal must not cut
    off the tidying that the first one started. So a SIGTERM within `unwinding_seconds` of Ctrl-C is ignored too; after
    that we assume a test caught the KeyboardInterrupt, and SIGTERM ends the run. Ctrl-C itself always raises
    KeyboardInterrupt, also for the second time, for a person who does not want to wait. Handlers that others have set
    stay. A forked process dies of SIGTERM as it would without this.
    """
    is_ours = threading.current_thread() is threading.main_thread()
    if not is_ours or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return
    process, raised, unwinding_until = os.getpid(), False, 0.0

    def terminate(number: int, _frame: FrameType | None) -> None:
        nonlocal raised
        __tracebackhide__ = True  # pytest names the line that the signal interrupted, not this one
        if os.getpid() != process:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        elif not raised and clock.monotonic() > unwinding_until:
            raised = True
            raise ending(signal.Signals(number))

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal unwinding_until
        __tracebackhide__ = True
        unwinding_until = clock.monotonic() + unwinding_seconds
        signal.default_int_handler(number, frame)

    handlers: dict[signal.Signals, Callable[[int, FrameType | None], None]] = {signal.SIGTERM: terminate}
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) == signal.SIG_DFL:
        handlers[signal.SIGHUP] = terminate
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        handlers[signal.SIGINT] = interrupt
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            if signal.getsignal(number) is handler:
                signal.signal(number, before[number])
