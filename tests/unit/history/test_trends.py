from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_rwkvperf.core.errors import OptionError
from pytest_rwkvperf.history import trends
from tests.unit.history.conftest import run_number, stored

if TYPE_CHECKING:
    from pytest_rwkvperf.history.address import Address
    from pytest_rwkvperf.history.trends import Trend
    from pytest_rwkvperf.store.record import Record

NOISE = (0.99, 1.004, 0.998, 1.01, 1.0, 1.006, 0.993)


def runs_with_step(step_at: int, new_llama_at: int) -> list[Record]:
    return [
        run_number(
            index,
            NOISE[index % len(NOISE)] * (1.08 if index >= step_at else 1),
            llama="b2" if index >= new_llama_at else "b1",
            commit="new" if index >= new_llama_at else "old",
        )
        for index in range(36)
    ]


def trend_of(place: Address, runs: list[Record], smallest: float = 0.01) -> Trend:
    (((series, points),)) = stored(place, runs).series().items()
    return trends.trend(series, points, smallest)


def test_a_change_point_is_named_with_what_changed_there(place: Address) -> None:
    one = trend_of(place, runs_with_step(24, 24))
    (found,) = one.change_points
    assert (found.change.index, found.offset) == (24, 0)
    assert found.differences == (trends.Difference("llama.cpp", "b1", "b2"), trends.Difference("commit", "old", "new"))
    first, *rest = trends.describe(found)
    assert first.startswith("from run 25 on (2026-01-25T12:00:00Z, 00000000): 8.0% slower, 512.0 -> 47")
    assert rest == ["  llama.cpp b1 -> b2", "  commit old -> new"]


@pytest.mark.parametrize(("new_llama_at", "says"), [(23, "one run before"), (25, "one run after")])
def test_a_version_that_changed_one_run_away_is_named(place: Address, new_llama_at: int, says: str) -> None:
    (found,) = trend_of(place, runs_with_step(24, new_llama_at)).change_points
    assert trends.describe(found)[1] == f"  llama.cpp b1 -> b2 ({says})"


def test_a_change_that_no_version_explains_says_so(place: Address) -> None:
    (found,) = trend_of(place, runs_with_step(24, 4)).change_points
    assert trends.describe(found)[1] == "  no recorded version changed there"


def test_smaller_changes_are_left_out(place: Address) -> None:
    assert trend_of(place, runs_with_step(24, 24), smallest=0.1).change_points == ()


def test_words_choose_series_and_unknown_words_list_them(place: Address) -> None:
    found = stored(place, [run_number(1)]).series()
    assert trends.choose(found, ["Q8_0", "pp512", "model-of-processor"]) == found
    with pytest.raises(OptionError, match=r"contains 'tg128'; there are:\n  llama-cpp \| .* \| pp512"):
        trends.choose(found, ["tg128"])
    assert trends.choose({}, ["tg128"]) == {}
