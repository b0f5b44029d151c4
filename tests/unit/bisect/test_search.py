"""The search over releases: correct with any broken releases, and logarithmic."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from pytest_rwkvperf.bisect.search import first_slow

if TYPE_CHECKING:
    from pytest_rwkvperf.bisect.search import Answer


def search(count: int, slow: int, broken: set[int]) -> tuple[object, list[int]]:
    """What is found among `count` releases of which all from `slow` on are slower, and which were asked."""
    asked: list[int] = []

    def ask(version: str) -> Answer:
        asked.append(int(version))
        if int(version) in broken:
            return "skip"
        return "slower" if int(version) >= slow else "same"

    return first_slow([str(index) for index in range(count)], ask), asked


@given(st.integers(2, 40), st.data())
def test_the_first_slow_release_that_runs_is_named(count: int, data: st.DataObject) -> None:
    slow = data.draw(st.integers(1, count - 1))
    broken = data.draw(st.sets(st.integers(1, count - 1)))
    found, asked = search(count, slow, broken)
    running = [index for index in range(slow, count) if index not in broken]
    assert len(asked) == len(set(asked))
    if not running:
        assert found is None
        return
    before = max(index for index in range(slow) if index not in broken)
    assert found is not None
    assert (found.slow, found.before) == (str(running[0]), str(before))  # type: ignore[attr-defined]
    assert found.skipped == tuple(str(index) for index in range(before + 1, running[0]))  # type: ignore[attr-defined]


@given(st.integers(2, 500), st.data())
def test_the_number_of_questions_is_logarithmic(count: int, data: st.DataObject) -> None:
    _, asked = search(count, data.draw(st.integers(1, count - 1)), set())
    assert len(asked) <= 2 + math.log2(count)


def test_nothing_else_is_asked_if_the_newest_is_as_fast() -> None:
    assert search(9, 99, set()) == (None, [8])


def test_no_answer_if_nothing_runs() -> None:
    assert search(4, 1, {1, 2, 3})[0] is None
