"""What is shown while a run works: on a terminal a live line, elsewhere a line now and then."""

from __future__ import annotations

import io
import sys
import time
from contextlib import contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest
from _pytest._io import TerminalWriter

from pytest_rwkvperf.run import progress as shown
from pytest_rwkvperf.run import relay
from pytest_rwkvperf.run.folder import RunFolder
from pytest_rwkvperf.run.progress import CaseProgress, Progress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

TEST = "tests/test_speed.py::test_it[a]"


class Screen(io.StringIO):
    """What pytest's writer and stdout write to."""

    def __init__(self, *, tty: bool) -> None:
        super().__init__()
        self.tty = tty

    def lines(self) -> list[str]:
        return self.getvalue().splitlines()


@contextmanager
def a_test_runs() -> Iterator[None]:
    """Inside, pytest names another test than the one that it really runs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTEST_CURRENT_TEST", f"{TEST} (call)")
        yield


def a_progress(
    screen: Screen, verbose: int = 0, relay: Callable[[str], None] | None = None
) -> tuple[Progress, TerminalWriter]:
    writer = TerminalWriter(screen)
    writer.fullwidth = 60
    plugins: dict[str, object] = {"capturemanager": None}
    if relay is None:  # an xdist worker has no terminal
        plugins["terminalreporter"] = SimpleNamespace(isatty=lambda: screen.tty)
    config = SimpleNamespace(
        pluginmanager=SimpleNamespace(hasplugin=plugins.__contains__, getplugin=plugins.__getitem__),
        option=SimpleNamespace(verbose=verbose),
        get_terminal_writer=lambda: writer,
    )
    return Progress(cast("pytest.Config", config), relay), writer


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setattr(shown, "LIVE_SECONDS", 0.01)
    monkeypatch.setattr(shown, "SILENT_SECONDS", 0.01)
    monkeypatch.setenv("TERM", "xterm")
    return monkeypatch


def until(condition: Callable[[], bool]) -> None:
    limit = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.002)


@pytest.mark.usefixtures("quick")
def test_without_a_terminal_what_is_done_is_a_line_now_and_then() -> None:
    screen = Screen(tty=False)
    progress, writer = a_progress(screen)
    writer.write("tests/test_speed.py .")
    progress.expect(80)
    with a_test_runs(), progress.busy("loading"):
        until(lambda: screen.getvalue().count("loading") > 1)
        progress("timing pp512")
        until(lambda: "timing" in screen.getvalue())
    writer.write("F")
    lines = screen.lines()
    assert lines[:2] == ["tests/test_speed.py .", "loading (1 s so far, about 1 min 20 s left)"]
    assert lines[-2:] == ["timing pp512 (1 s so far, about 1 min 20 s left)", "tests/test_speed.py F"]


@pytest.mark.usefixtures("quick")
def test_with_names_of_tests_pytests_line_is_repeated_with_the_test() -> None:
    screen = Screen(tty=False)
    progress, writer = a_progress(screen, verbose=1)
    writer.write(f"{TEST} ")
    with a_test_runs(), progress.busy():
        progress.line("waiting")
    writer.write("PASSED")
    assert screen.lines() == [f"{TEST} ", "waiting", f"{TEST} PASSED"]


def test_a_terminal_has_a_live_line_below_pytests_own(quick: pytest.MonkeyPatch) -> None:
    screen = Screen(tty=True)
    quick.setattr(sys, "stdout", screen)
    progress, writer = a_progress(screen)
    writer.write("tests/test_speed.py .")
    with a_test_runs(), progress.busy("loading a model with a long name, from a disk that is slow"):
        until(lambda: screen.getvalue().count("loading") > 1)
    writer.write("F")
    first, live = screen.getvalue().split("\n")
    assert first == "tests/test_speed.py ."
    drawn = live.split("\r")
    assert max(map(len, drawn)) < 60, "a line that wraps could not be drawn over"
    assert drawn[-2:] == [" " * 59, "tests/test_speed.py F"]
    assert writer.width_of_current_line == len(drawn[-1]), "pytest places its percentages by it"


@pytest.mark.usefixtures("quick")
def test_nothing_is_shown_under_q_and_after_the_work() -> None:
    screen = Screen(tty=False)
    progress, _ = a_progress(screen, verbose=-1)
    with progress.busy("loading"):
        time.sleep(0.05)
        progress.line("waiting")
    assert screen.getvalue() == ""
    progress, _ = a_progress(screen)
    with progress.busy("loading"), progress.busy("inside"):
        pass
    time.sleep(0.05)
    assert screen.getvalue() == ""


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("verbose", [0, -1])
def test_a_worker_passes_on_what_a_log_would_have(verbose: int) -> None:
    passed_on: list[str] = []
    progress, _ = a_progress(Screen(tty=True), verbose, passed_on.append)
    with progress.busy("loading"):
        time.sleep(0.05)
        progress.line("waiting")
        if verbose == 0:
            until(lambda: passed_on[-1] == "loading (1 s so far)")
    assert ("waiting" in passed_on) == (verbose == 0), "nothing under -q"


def test_the_controller_shows_each_line_once_and_the_last_ones_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "LOOK_SECONDS", 0.005)
    shown: list[str] = []
    worker, controller = RunFolder(tmp_path), RunFolder(tmp_path)
    passing = relay.Relay(controller.said, shown.append)
    worker.say("said before\nthe start")
    passing.start()
    passing.start()
    until(lambda: len(shown) == 1)
    monkeypatch.setattr(relay, "LOOK_SECONDS", 60)
    (lines,) = tmp_path.glob("*.said")
    lines.write_bytes(lines.read_bytes() + b'"half a l')
    time.sleep(0.02)
    lines.write_bytes(lines.read_bytes() + b'ine"\n')
    passing.stop()
    passing.stop()
    assert shown == ["said before\nthe start", "half a line"]


# Estimates


class Expecting:
    """A progress that notes what a case expects."""

    def __init__(self) -> None:
        self.sentences: list[str] = []
        self.seconds: list[float] = []
        self.expect = self.seconds.append

    __call__ = property(lambda self: self.sentences.append)


def test_the_estimate_is_the_budget_until_the_least_number_of_processes_takes_longer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [100.0]
    monkeypatch.setattr(shown, "clock", SimpleNamespace(monotonic=lambda: now[0]))
    told = Expecting()
    case = CaseProgress(cast("Progress", told), "a-fp16-cpu", number=2, cases=4, left_seconds=60)
    case("loading")
    assert told.sentences == ["case 2 of 4, a-fp16-cpu: loading"]
    for elapsed, done in ((4.0, 1), (30.0, 2)):
        now[0] = 100.0 + elapsed
        case.pace(done, 3)
    # 4 s a process: 8 more of 4 s each are less than the budget leaves. 15 s each: one more here, six of other cases.
    assert told.seconds == [60, 56, 105]
