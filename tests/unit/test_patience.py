"""Programs that a command runs."""

from __future__ import annotations

import sys

from pytest_rwkvperf import patience


def test_what_a_program_says_may_be_anything() -> None:
    line = r"import sys; sys.stdout.buffer.write(b'caf\xe9\n')"
    ended = patience.run([sys.executable, "-c", line], capture=True)
    assert (ended.returncode, ended.stdout.strip()) == (0, "caf\N{REPLACEMENT CHARACTER}")
