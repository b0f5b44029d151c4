"""The search: right with any states that give no answer, logarithmic, and right as often as it says with noise."""

from __future__ import annotations

import math
import random

from hypothesis import given
from hypothesis import strategies as st

from pytest_rwkvperf.bisect.search import Rates, Search, expected_answers

SURE = Rates(1e-9, 1e-9)


def search(count: int, slow: int, broken: set[int], rates: Rates = SURE, seed: int = 0) -> tuple[Search, list[int]]:
    """A search among `count` states of which all from `slow` on are slower, and which were asked about."""
    source = random.Random(seed)
    made, asked = Search(count, rates), []
    enough = 1 - 1e-6 if rates is SURE else 0.95
    while made.suspects.probability < enough and (state := made.next_state()) is not None:
        asked.append(state)
        if state in broken:
            made.add(state, "skip")
            continue
        error = rates.false_same if state >= slow else rates.false_slower
        is_slow = (state >= slow) != (source.random() < error)
        made.add(state, "slower" if is_slow else "same")
    return made, asked


@given(st.integers(2, 20), st.data())  # of more, all but one that are broken have a probability of 0.95 at once
def test_the_first_slow_state_is_among_the_suspects_and_they_are_as_few_as_can_be(
    count: int, data: st.DataObject
) -> None:
    slow = data.draw(st.integers(1, count - 1))
    broken = data.draw(st.sets(st.integers(1, count - 1))) - {count - 1}
    found, asked = search(count, slow, broken)
    suspects = found.suspects
    last = min(state for state in range(slow, count) if state not in broken)
    before = max(state for state in range(slow) if state not in broken)
    assert (suspects.first, suspects.last) == (before + 1, last)
    assert len(asked) == len(set(asked))


@given(st.integers(2, 500), st.data())
def test_the_number_of_questions_is_logarithmic(count: int, data: st.DataObject) -> None:
    _, asked = search(count, data.draw(st.integers(1, count - 1)), set())
    assert len(asked) <= 1 + math.ceil(math.log2(count))


def test_noisy_answers_mislead_no_more_often_than_the_search_says() -> None:
    rates, searches = Rates(0.1, 0.2), 1000
    source = random.Random(7)
    wrong, claimed = 0, 0.0
    for seed in range(searches):
        slow = source.randint(1, 23)
        found, _ = search(24, slow, set(), rates, seed)
        wrong += found.suspects.last != slow
        claimed += 1 - found.suspects.probability
    assert abs(wrong - claimed) < 4 * math.sqrt(claimed)
    assert wrong > 5


def test_states_with_the_same_code_have_no_change_between_them() -> None:
    found = Search(9, SURE)
    found.same_code(0, 4)
    found.same_code(5, 8)
    assert (found.suspects.first, found.suspects.last, found.suspects.probability) == (5, 5, 1.0)


def test_a_confirmation_that_fails_makes_others_more_probable() -> None:
    found = Search(3, Rates(0.02, 0.02))
    found.add(1, "slower")
    suspects = found.suspects
    assert suspects.last == 1
    found.confirm(suspects, slower=False)
    assert found.suspects.probability == 0.5
    found.confirm(suspects, slower=True)
    assert found.suspects.last == 1
    assert found.suspects.probability > 0.95


def test_the_number_of_answers_is_told_in_advance() -> None:
    _, asked = search(24, 9, set(), Rates(0.02, 0.02))
    assert abs(expected_answers(24, Rates(0.02, 0.02)) - len(asked)) <= 3
