"""What the hooks do: SIGTERM ends a run as Ctrl-C does, once, and no handler of others; verdicts are gathered."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from pytest_rwkvperf.core.cases import Item, Workload
from pytest_rwkvperf.run import collection
from pytest_rwkvperf.run.fixtures import PROPERTY
from pytest_rwkvperf.verdict.judgement import Judgement, to_json
from tests.unit.building import CASE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

posix = pytest.mark.skipif(sys.platform == "win32", reason="there SIGTERM ends a process without a word")


ITEM = Item(CASE, Workload("prefill", 512))


def reported(told: Judgement) -> pytest.TestReport:
    """A test's report that a verdict travels with."""
    properties = [(PROPERTY, to_json(told))]
    return pytest.TestReport("test_it", ("", 0, ""), {}, "passed", None, "call", user_properties=properties)


class Configured:
    """A pytest.Config in what matters here."""

    def __init__(self) -> None:
        self.cleanups: list[Callable[[], None]] = []

    def add_cleanup(self, function: Callable[[], None]) -> None:
        self.cleanups.append(function)


@pytest.fixture
def default_sigterm() -> Iterator[None]:
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGTERM, before)


@posix
@pytest.mark.usefixtures("default_sigterm")
def test_the_first_sigterm_interrupts_and_afterwards_all_is_as_before() -> None:
    config = Configured()
    collection.heed_termination(config)  # type: ignore[arg-type]
    with pytest.raises(KeyboardInterrupt, match="ended by SIGTERM"):
        signal.raise_signal(signal.SIGTERM)
    signal.raise_signal(signal.SIGTERM)
    for cleanup in config.cleanups:
        cleanup()
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@posix
@pytest.mark.usefixtures("default_sigterm")
def test_a_sigterm_after_ctrl_c_cuts_off_nothing_and_a_second_ctrl_c_does(monkeypatch: pytest.MonkeyPatch) -> None:
    config, before = Configured(), signal.getsignal(signal.SIGINT)
    collection.heed_termination(config)  # type: ignore[arg-type]
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    try:
        signal.raise_signal(signal.SIGTERM)
    except KeyboardInterrupt:
        pytest.fail("it would have cut off the reports")
    monkeypatch.setattr(collection, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + 31))
    with pytest.raises(KeyboardInterrupt, match="ended by SIGTERM"):  # a test has caught that Ctrl-C
        signal.raise_signal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    for cleanup in config.cleanups:
        cleanup()
    assert signal.getsignal(signal.SIGINT) is before


@posix
@pytest.mark.usefixtures("default_sigterm")
def test_a_handler_for_sigterm_of_somebody_else_stays() -> None:
    def theirs(*_: object) -> None:
        """Theirs."""

    signal.signal(signal.SIGTERM, theirs)
    early, late = Configured(), Configured()
    collection.heed_termination(early)  # type: ignore[arg-type]
    assert signal.getsignal(signal.SIGTERM) is theirs
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    collection.heed_termination(late)  # type: ignore[arg-type]
    signal.signal(signal.SIGTERM, theirs)  # set while the run goes on
    for cleanup in (*early.cleanups, *late.cleanups):
        cleanup()
    assert signal.getsignal(signal.SIGTERM) is theirs


FORKS = """
import os, signal, time
from types import SimpleNamespace
from pytest_rwkvperf.run import collection
collection.heed_termination(SimpleNamespace(add_cleanup=lambda _: None))
reading, writing = os.pipe()
if (child := os.fork()) == 0:
    os.write(writing, b".")
    time.sleep(60)
os.read(reading, 1)  # what reaches it while Python is still forking is lost
os.kill(child, signal.SIGTERM)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@posix
def test_what_a_test_forks_dies_of_sigterm_as_ever() -> None:
    told = subprocess.run([sys.executable, "-c", FORKS], capture_output=True, text=True, timeout=300, check=True)
    assert (told.stdout.strip(), told.stderr) == (str(-signal.SIGTERM), "")


@pytest.mark.parametrize("order", [(0.03, 0.1, 0.05), (0.1, 0.05, 0.03)])
def test_of_several_verdicts_on_one_item_the_strictest_counts(order: tuple[float, ...]) -> None:
    session = SimpleNamespace(judgements={})
    gatherer = collection.Gatherer(session)  # type: ignore[arg-type]
    for tolerance in order:
        told = Judgement(ITEM, "REGRESSION" if tolerance < 0.05 else "PASS", "", tolerance)
        gatherer.pytest_runtest_logreport(reported(told))
    gatherer.pytest_sessionfinish()
    assert session.judgements[ITEM].verdict == "REGRESSION"


def test_of_a_test_that_was_run_again_the_later_verdict_counts() -> None:
    session = SimpleNamespace(judgements={})
    gatherer = collection.Gatherer(session)  # type: ignore[arg-type]
    for reason in ("first", "second"):
        gatherer.pytest_runtest_logreport(reported(Judgement(ITEM, "PASS", reason, 0.05)))
    gatherer.pytest_sessionfinish()
    assert session.judgements[ITEM].reason == "second"
