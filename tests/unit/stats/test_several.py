"""Holm's step-down: by hand against the textbook procedure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pytest_rwkvperf.stats.several import holm

if TYPE_CHECKING:
    from pytest_rwkvperf.stats.verdicts import Verdict

ALPHA = 0.05


def found(values: list[float]) -> set[int]:
    def judge(item: int, share: int) -> Verdict:
        return "REGRESSION" if values[item] <= ALPHA / share else "INCONCLUSIVE"

    return set(holm(range(len(values)), judge, ["REGRESSION"]))


def textbook(values: list[float]) -> set[int]:
    """Compare the i-th smallest with alpha / (m - i + 1) and stop at the first that is larger."""
    rejected: set[int] = set()
    for step, index in enumerate(np.argsort(values, kind="stable")):
        if values[index] > ALPHA / (len(values) - step):
            break
        rejected.add(int(index))
    return rejected


@given(st.lists(st.floats(0, 0.2), max_size=12))
def test_holm_finds_what_the_textbook_does(values: list[float]) -> None:
    assert found(values) == textbook(values)


def test_a_found_item_leaves_its_share_to_the_rest() -> None:
    assert found([0.001, 0.03]) == {0, 1}
    assert found([0.03, 0.03]) == set()
