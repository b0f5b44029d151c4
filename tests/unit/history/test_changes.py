from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_rwkvperf.history import changes


def series(seed: int, count: int, step_at: int | None = None, step: float = 1.08, noise: float = 0.013) -> list[float]:
    """Tokens per second of unchanged code with noise, from `step_at` on slower by `step`."""
    source = random.Random(seed)
    return [
        500 * math.exp(source.gauss(0, noise)) / (step if step_at is not None and index >= step_at else 1)
        for index in range(count)
    ]


@pytest.mark.parametrize("seed", range(10))
def test_a_step_is_found_at_its_run_and_nothing_else(seed: int) -> None:
    (change,) = changes.find(series(seed, 36, 24))
    assert change.index == 24
    assert change.ratio == pytest.approx(1 / 1.08, abs=0.01)


@pytest.mark.parametrize("seed", range(10))
def test_unchanged_code_has_no_change_point(seed: int) -> None:
    assert changes.find(series(seed, 36, noise=0.03)) == []


def test_single_slow_runs_are_no_change() -> None:
    rates = series(1, 40)
    for index in (7, 19, 20, 33):
        rates[index] *= 0.6
    assert changes.find(rates) == []


def test_a_change_and_its_reversal_are_two_changes() -> None:
    rates = [rate * (0.85 if 12 <= index < 26 else 1) for index, rate in enumerate(series(2, 40))]
    assert [one.index for one in changes.find(rates)] == [12, 26]


def test_a_level_needs_three_runs() -> None:
    assert changes.find(series(3, 22, 20, step=1.5)) == []
    assert [one.index for one in changes.find(series(3, 23, 20, step=1.5))] == [20]


def test_a_step_without_noise_is_a_change() -> None:
    assert changes.find([5.0] * 30) == []
    assert [one.index for one in changes.find([5.0] * 10 + [5.1] * 10)] == [10]


def test_only_the_newest_runs_of_a_long_history_are_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "MAX_RUNS", 60)
    rates = [9.0] * 10 + [5.0] * changes.MAX_RUNS
    rates[-8:] = [4.0] * 8
    assert [one.index for one in changes.find(rates)] == [len(rates) - 8]


@settings(max_examples=50)
@given(st.lists(st.floats(1e-6, 1e9), max_size=30))
def test_any_rates_give_valid_change_points(rates: list[float]) -> None:
    found = changes.find(rates)
    assert all(changes.MIN_RUNS <= one.index <= len(rates) - changes.MIN_RUNS for one in found)
    assert all(one.before != one.after for one in found)
