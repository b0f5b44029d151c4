"""Damaged files: readers neither hang nor crash, allocate no more than the file's size, and lose nothing silently."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.unit.store.damage import damaged, outcome

HEADER_FUZZER = Path(__file__).with_name("header_fuzzer.py")


@pytest.mark.skipif(sys.platform == "win32", reason="no timer signals there")
@pytest.mark.parametrize("examples", [50, pytest.param(10_000, marks=pytest.mark.prove)])
def test_readers_of_model_headers_survive_damage(examples: int) -> None:
    """In a subprocess, which limits its own memory."""
    command = [sys.executable, str(HEADER_FUZZER), "--examples", str(examples), "--seed", "2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    assert [line.split(":")[0] for line in done.stdout.splitlines()] == [".st", ".gguf"]


@pytest.mark.prove
@seed(1)
@settings(
    max_examples=10_000, deadline=None, database=None, phases=[Phase.generate], suppress_health_check=[*HealthCheck]
)
@given(damaged())
def test_10000_damaged_baselines_are_refused_or_read_whole(text: str) -> None:
    """tests/unit/store/test_baseline.py has a small share of these."""
    outcome(text)
