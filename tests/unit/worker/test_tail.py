"""The end of stderr: the last lines whatever came before, bounded, and without a secret even where a cut runs."""

from __future__ import annotations

import os

import pytest

from pytest_rwkvperf.worker.tail import Tail


def tail_of(data: bytes) -> list[str]:
    reading, writing = os.pipe()
    tail = Tail(os.fdopen(reading, "rb"))
    with os.fdopen(writing, "wb") as pipe:
        pipe.write(data)
    assert tail.join(60)
    return tail.lines()


def test_the_last_thirty_lines_without_empty_ones() -> None:
    data = b"".join(b"line %d\n\r\n\n" % number for number in range(20_000))
    assert tail_of(data) == [f"line {number}" for number in range(19_970, 20_000)]


def test_a_last_line_without_its_end_is_told() -> None:
    assert tail_of(b"first\nlast words") == ["first", "last words"]
    assert tail_of(b"") == []


def test_an_endless_line_is_cut() -> None:
    (line,) = tail_of(b"x" * 1_000_000)
    assert len(line) < 1100
    assert line.endswith(" ...")


def test_invalid_utf8_is_replaced() -> None:
    assert tail_of(b"caf\xe9 \x1b[31mred\x07\n") == ["caf\ufffd \\x1b[31mred\\x07"]


@pytest.mark.parametrize("before", [0, 65_500, 65_530, 65_536, 100_000])
def test_tokens_are_hidden_wherever_the_text_is_cut(before: int) -> None:
    token = b"ghp_" + b"S3cr" * 9
    told = "\n".join(tail_of(b"y" * before + b" " + token + b"\n" + b"z" * 65_500 + b" " + token + b" end\n"))
    assert "S3crS3cr" not in told


def test_private_keys_of_many_lines_are_hidden() -> None:
    key = (
        b"-----BEGIN OPENSSH PRIVATE KEY-----\n"
        + b"b3BlbnNzaC1rZXktdjEAAAA\n" * 20
        + b"-----END OPENSSH PRIVATE KEY-----\n"
    )
    assert tail_of(b"loading\n" + key + b"failed\n") == ["loading", "[redacted]", "failed"]
