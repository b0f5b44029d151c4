"""Settings of engines' own: which values they take, and how a case names them."""

from __future__ import annotations

import pytest

from pytest_rwkvperf.core.engine_settings import SWITCH, Setting, in_label, in_words

NUMBER = Setting("poll", "", numbers=(-1, 100))
MASK = Setting("cpu-mask", "", pattern="0x[1-9a-f][0-9a-f]{0,3}", example="0x3")
REFUSED = Setting("ctk", "", words=SWITCH, refused="there is none")


@pytest.mark.parametrize("value", ["-1", "0", "8", "100"])
def test_a_number_has_one_spelling_and_bounds(value: str) -> None:
    assert NUMBER.accepts(value)


@pytest.mark.parametrize("value", ["", "-2", "101", "08", "+8", "8.0", "1e1", "-0", "eight", "\u0668"])
def test_other_numbers_are_refused(value: str) -> None:
    assert not NUMBER.accepts(value)


def test_words_and_patterns() -> None:
    switch = Setting("mmap", "", words=SWITCH)
    assert [switch.accepts(value) for value in ("off", "on", "OFF", "yes", "")] == [True, True, False, False, False]
    assert [MASK.accepts(value) for value in ("0x3", "0xff", "0x03", "0xFF", "3", "0x3 ")] == [True, True] + 4 * [False]
    assert not REFUSED.accepts("on")


def test_messages_say_what_is_allowed() -> None:
    assert NUMBER.allowed == "a number from -1 to 100"
    assert Setting("fa", "", words=("off", "on", "auto")).allowed == "off, on, auto"
    assert MASK.allowed == "such as 0x3"


def test_values_are_readable_in_ids_and_in_words() -> None:
    values = (("cpu-mask", "0x3"), ("mmap", "off"), ("prio", "-1"), ("ubatch", "128"))
    assert in_label(values) == "-cpu-mask-0x3-mmap-off-prio-1-ubatch128"
    assert in_words(values) == "cpu-mask=0x3 mmap=off prio=-1 ubatch=128"
    assert in_label(()) == in_words(()) == ""
