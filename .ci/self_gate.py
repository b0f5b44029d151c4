"""The gate, gated: save a baseline, compare an unchanged engine with it, then one that takes twice as long.

The slowdown comes in through the entry point that third parties use, so the product knows nothing of it.
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
# Between the doubled time and what a shared machine does to an unchanged engine.
TOLERANCE = "--rwkv-tolerance=40%"
# One thread, as the documentation advises: its figure does not depend on where the host puts the processors.
ENGINE = ["--rwkv-backend=slowed", "--rwkv-quant=f16", "--rwkv-threads=1"]
CASE = [*ENGINE, "--rwkv-workload=pp128,tg32", TOLERANCE]
# Where noise hides the answer, the product asks for a larger budget: the second try takes that advice.
BUDGETS_SECONDS = (60, 240)


@dataclass(frozen=True, slots=True)
class Expected:
    """One run of pytest and how it must end."""

    what: str
    options: tuple[str, ...]
    slowdown: str
    exit_code: int
    said: str
    not_said: str = "INVALID"


RUNS = (
    Expected("saving a baseline", ("--rwkv-save-baseline",), "1", 0, "NO-BASELINE"),
    Expected("comparing the unchanged engine", (), "1", 0, "slowed", not_said="NO-BASELINE"),
    Expected("comparing an engine that takes twice as long", (), "2", 1, "REGRESSION"),
)


def offer_backend(folder: Path) -> None:
    """Write what a distribution with the entry point leaves in site-packages."""
    info = folder / "slowed_backend-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: slowed-backend\nVersion: 1.0\n", encoding="utf-8")
    entry = "[pytest_rwkvperf.backends]\nslowed = slowed_backend:BACKEND\n"
    (info / "entry_points.txt").write_text(entry, encoding="utf-8")


def run(expected: Expected, folder: Path, budget: int) -> bool:
    """Run pytest once; say how it ended, with all of its output where that is not as expected."""
    started = time.monotonic()
    paths = os.pathsep.join([str(folder), str(HERE)])
    command = [sys.executable, "-m", "pytest", "--rootdir", str(folder), *CASE, f"--rwkv-budget={budget}"]
    ended = subprocess.run(
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
    words = expected.said in ended.stdout and expected.not_said not in ended.stdout
    good = ended.returncode == expected.exit_code and words
    seconds = time.monotonic() - started
    print(f"{expected.what}: exit {ended.returncode} after {seconds:.0f} s, {'as' if good else 'NOT as'} expected")
    if not good:
        print(f"expected exit {expected.exit_code}, {expected.said!r} and no {expected.not_said!r} in:\n{ended.stdout}")
    return good


def gate(budget: int) -> bool:
    """Run the three in order with a new baseline, and stop at the first surprise."""
    with tempfile.TemporaryDirectory(prefix="rwkvperf gate ") as name:
        folder = Path(name)
        offer_backend(folder)
        return all(run(expected, folder, budget) for expected in RUNS)


if __name__ == "__main__":
    sys.exit(0 if any(map(gate, BUDGETS_SECONDS)) else 1)
