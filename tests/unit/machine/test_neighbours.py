"""Waiting for neighbours, with counters that a test sets."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from pytest_rwkvperf.machine import neighbours
from pytest_rwkvperf.machine.neighbours import Neighbours, free_threads


class Machine:
    """Two cores of which others take these shares, one after the other; time passes by sleeping and by `work`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *shares: float) -> None:
        self.shares = [*shares]
        self.slept: list[float] = []
        self.said: list[str] = []
        usage = SimpleNamespace(now=lambda: None, crowding=lambda *_: self.shares.pop(0))
        monkeypatch.setattr(neighbours, "usage", usage)
        monkeypatch.setattr(neighbours, "time", SimpleNamespace(sleep=self.slept.append))

    def neighbours(self, most_seconds: float) -> Neighbours:
        return Neighbours(2, 0.1, most_seconds, self.said.append)


def test_a_quiet_machine_costs_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, 0.1)
    machine.neighbours(60).wait()
    assert (machine.slept, machine.said) == ([], [])


def test_it_waits_until_the_others_have_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, 0.41, 0.5, 0.0)
    machine.neighbours(60).wait()
    assert machine.slept == [1.0, 1.0]
    assert machine.said[0] == "other processes take 41% of the processors that it needs: waiting, at most 60 s"


def test_the_waiting_of_a_case_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, *[0.5] * 9)
    waiting = machine.neighbours(2.5)
    for _ in range(3):
        waiting.wait()
    assert machine.slept == [1.0, 1.0, 0.5]


@pytest.mark.parametrize(("others", "threads"), [(0.05, 2), (0.41, 1), (0.99, 1)])
def test_what_others_do_not_use_is_left_for_fewer_threads(
    monkeypatch: pytest.MonkeyPatch, others: float, threads: int
) -> None:
    machine = Machine(monkeypatch, *[others] * 9)
    assert free_threads(2, 0.1, 3.0, machine.said.append) == threads


def test_all_threads_are_used_once_the_others_have_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, 0.5, 0.5, 0.0)
    assert free_threads(2, 0.1, 3.0, machine.said.append) == 2
