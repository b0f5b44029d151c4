"""Percent slower means the same wherever it is printed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_rwkvperf.stats.slowdown import percent_slower, slowdown
from pytest_rwkvperf.stats.verdicts import classify

PACKAGE = Path(__file__).parents[3] / "pytest_rwkvperf"


@pytest.mark.parametrize(
    ("ratio", "share", "words"),
    [
        (0.8, 0.25, "25.0% slower"),
        (1.0, 0.0, "0.0% slower"),
        (1.25, -0.25, "25.0% faster"),
        (0.5, 1.0, "100.0% slower"),
    ],
)
def test_a_slowdown_is_a_share_of_the_time(ratio: float, share: float, words: str) -> None:
    assert slowdown(ratio) == pytest.approx(share)
    assert percent_slower(ratio) == words


@given(st.floats(0.01, 100))
def test_one_is_as_much_faster_as_the_other_is_slower(ratio: float) -> None:
    assert slowdown(1 / ratio) == pytest.approx(-slowdown(ratio), abs=1e-12)


@given(st.floats(0.3, 3), st.floats(0.01, 0.9))
def test_the_tolerance_is_in_the_same_percent(ratio: float, tolerance: float) -> None:
    if abs(abs(slowdown(ratio)) - tolerance) > 1e-9:
        assert (classify(ratio, ratio, tolerance) == "REGRESSION") == (slowdown(ratio) > tolerance)
        assert (classify(ratio, ratio, tolerance) == "IMPROVEMENT") == (slowdown(ratio) < -tolerance)


def test_no_other_place_words_a_slowdown_of_its_own() -> None:
    own = re.compile(r"""['"](?:slower|faster)['"]\s+if|if .* else ['"](?:slower|faster)['"]|%\} (?:slower|faster)""")
    found = [path.name for path in PACKAGE.rglob("*.py") if own.search(path.read_text(encoding="utf-8"))]
    assert found == ["slowdown.py"]
