"""Check the gate itself: an unchanged engine passes against its saved baseline, one that takes twice as long fails.

The slowed engine comes in through the entry point for third-party backends, so the product knows nothing of it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
# Less than the doubled time, more than a shared machine varies.
TOLERANCE = "--rwkv-tolerance=40%"
# One thread, as the documentation advises: the result does not depend on the placement of virtual processors.
ENGINE = ["--rwkv-backend=slowed", "--rwkv-quant=f16", "--rwkv-threads=1"]
CASE = [*ENGINE, "--rwkv-workload=pp128,tg32", TOLERANCE]
# The product asks for a larger budget where noise hides the answer; the second try follows that advice.
BUDGETS_SECONDS = (60, 240)


@dataclass(frozen=True, slots=True)
class Expected:
    """One run of pytest, its exit code, and text that its output must and must not contain."""

    title: str
    options: tuple[str, ...]
    slowdown: str
    exit_code: int
    text: str
    absent: str = "INVALID"


RUNS = (
    Expected("saving a baseline", ("--rwkv-save-baseline",), "1", 0, "NO-BASELINE"),
    Expected("comparing the unchanged engine", (), "1", 0, "slowed", absent="NO-BASELINE"),
    Expected("comparing an engine that takes twice as long", (), "2", 1, "REGRESSION"),
)


def offer_backend(folder: Path) -> None:
    """Write the metadata of an installed distribution with the entry point."""
    info = folder / "slowed_backend-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: slowed-backend\nVersion: 1.0\n", encoding="utf-8")
    entry = "[pytest_rwkvperf.backends]\nslowed = slowed_backend:BACKEND\n"
    (info / "entry_points.txt").write_text(entry, encoding="utf-8")


def run(expected: Expected, folder: Path, budget: int) -> bool:
    """Run pytest once and print its result, with all of its output where that is not as expected."""
    started = time.monotonic()
    paths = os.pathsep.join([str(folder), str(HERE)])
    command = [sys.executable, "-m", "pytest", "--rootdir", str(folder), *CASE, f"--rwkv-budget={budget}"]
    done = subprocess.run(
        [*command, *expected.options],
        cwd=folder,
        env={**os.environ, "COLUMNS": "160", "PYTHONPATH": paths, "GATE_SLOWDOWN": expected.slowdown},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        check=False,
    )
    good = done.returncode == expected.exit_code and expected.text in done.stdout and expected.absent not in done.stdout
    seconds = time.monotonic() - started
    print(f"{expected.title}: exit {done.returncode} after {seconds:.0f} s, {'as' if good else 'NOT as'} expected")
    if not good:
        print(f"expected exit {expected.exit_code}, {expected.text!r} and no {expected.absent!r} in:\n{done.stdout}")
    return good


def gate(budget: int) -> bool:
    """Do the three runs in order with a new baseline; stop at the first that does not end as expected."""
    with tempfile.TemporaryDirectory(prefix="rwkvperf gate ") as name:
        folder = Path(name)
        offer_backend(folder)
        return all(run(expected, folder, budget) for expected in RUNS)


if __name__ == "__main__":
    sys.exit(0 if any(map(gate, BUDGETS_SECONDS)) else 1)
