"""The protocol's lines: what one end writes the other reads, and nothing else is read."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_rwkvperf.core.errors import ProtocolError
from pytest_rwkvperf.worker.messages import MAX_LINE_BYTES, decode, encode

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner),
    max_leaves=10,
)
MESSAGES = st.dictionaries(st.text(st.characters(codec="utf-8")), VALUES)


@settings(max_examples=30)
@given(MESSAGES)
def test_a_message_survives_the_trip_on_one_line(message: dict[str, Any]) -> None:
    line = encode(message)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert line.isascii()
    assert decode(line) == message


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_nan_and_infinity_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        encode({"done": [value]})


@given(st.binary())
def test_any_bytes_are_a_message_or_a_protocol_error(line: bytes) -> None:
    try:
        message = decode(line)
    except ProtocolError:
        return
    assert isinstance(message, dict)
    assert json.loads(line) == message


@pytest.mark.parametrize("line", [b"", b"\n", b"llama_model_loader: loaded\n", b'{"id": 1', b"\xff\xfe{}\n", b"{}{}\n"])
def test_garbage_is_quoted_in_the_error(line: bytes) -> None:
    with pytest.raises(ProtocolError, match="not JSON") as raised:
        decode(line)
    assert repr(line) in str(raised.value)


@pytest.mark.parametrize("line", [b"[]\n", b"3\n", b'"done"\n', b"null\n"])
def test_json_that_is_no_object_is_refused(line: bytes) -> None:
    with pytest.raises(ProtocolError, match="not an object"):
        decode(line)


@pytest.mark.parametrize("word", [b"NaN", b"Infinity", b"-Infinity"])
def test_figures_that_are_no_json_are_refused(word: bytes) -> None:
    with pytest.raises(ProtocolError, match="not JSON"):
        decode(b'{"id": 1, "done": ' + word + b"}\n")


def test_deep_nesting_is_a_protocol_error() -> None:
    with pytest.raises(ProtocolError, match="not JSON"):
        decode(b'{"done": ' + b"[" * 200_000 + b"]" * 200_000 + b"}")


def test_the_largest_line_passes_and_one_more_byte_does_not() -> None:
    padding = MAX_LINE_BYTES - len(encode({"done": ""}))
    line = encode({"done": "x" * padding})
    assert len(line) == MAX_LINE_BYTES
    assert decode(line)["done"] == "x" * padding
    with pytest.raises(ProtocolError, match=f"more than {MAX_LINE_BYTES} bytes"):
        decode(encode({"done": "x" * (padding + 1)}))
