from __future__ import annotations

import threading
import time
from functools import partial
from typing import TYPE_CHECKING

import pytest

from pytest_rwkvperf.models import streams
from pytest_rwkvperf.models.streams import Ticker, in_order

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def test_results_come_in_order() -> None:
    def slow_first(number: int) -> int:
        time.sleep(0.02 if number % 5 == 0 else 0)
        return number

    assert list(in_order(partial(slow_first, number) for number in range(40))) == list(range(40))


def test_only_a_bounded_number_is_computed_ahead() -> None:
    started: list[int] = []

    def note(number: int) -> int:
        started.append(number)
        return number

    results = in_order(partial(note, number) for number in range(1000))
    next(results)
    time.sleep(0.05)
    assert len(started) <= streams._AHEAD + 2
    results.close()  # type: ignore[attr-defined]
    assert len(started) <= streams._AHEAD + 2


def test_a_failing_block_ends_the_stream_and_the_threads() -> None:
    def fail(number: int) -> int:
        if number == 3:
            raise OSError("disk gone")
        return number

    results = in_order(partial(fail, number) for number in range(100))
    with pytest.raises(OSError, match="disk gone"):
        list(results)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("rwkvperf-blocks")]


def test_no_tasks_no_results() -> None:
    nothing: Iterator[Callable[[], int]] = iter(())
    assert list(in_order(nothing)) == []


def test_ticker_does_not_report_quick_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "monotonic", lambda: 0.0)
    reports: list[float] = []
    ticker = Ticker(lambda _sentence, fraction: reports.append(fraction), "writing", 10)
    for _ in range(10):
        ticker.add(1)
    assert reports == []


def test_ticker_reports_a_few_times_a_second_and_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    reports: list[float] = []
    ticker = Ticker(lambda _sentence, fraction: reports.append(fraction), "writing", 1000)
    for _ in range(1000):
        clock[0] += 0.01  # ten seconds in all
        ticker.add(1)
    assert 25 <= len(reports) <= 34
    assert reports[-1] == 1.0
