from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "models" / "fuzz_headers.py"


@pytest.mark.skipif(sys.platform == "win32", reason="no timer signals there")
def test_header_readers_neither_hang_nor_crash_nor_allocate_more_than_the_file() -> None:
    """A small share of what `make prove` runs, with another seed; in a process of its own, which limits its memory."""
    command = [sys.executable, str(SCRIPT), "--examples", "50", "--seed", "2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    assert [line.split(":")[0] for line in done.stdout.splitlines()] == [".st", ".gguf"]
