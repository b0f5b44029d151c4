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
CASE = ["--rwkv-backend=slowed", "--rwkv-quant=f16", "--rwkv-workload=pp256,tg64", "--rwkv-budget=60", TOLERANCE]


@dataclass(frozen=True, slots=True)
class Expected:
    """One run of pytest and how it must end."""

    what: str
    options: tuple[str, ...]
    slowdown: str
    exit_code: int
    words: str


RUNS = (
    Expected("saving a baseline", ("--rwkv-save-baseline",), "1", 0, ""),
    Expected("comparing the unchanged engine", (), "1", 0, "PASS"),
    Expected("comparing an engine that takes twice as long", (), "2", 1, "REGRESSION"),
)


def offer_backend(folder: Path) -> None:
    """Write what a distribution with the entry point leaves in site-packages."""
    info = folder / "slowed_backend-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: slowed-backend\nVersion: 1.0\n", encoding="utf-8")
    entry = "[pytest_rwkvperf.backends]\nslowed = slowed_backend:BACKEND\n"
    (info / "entry_points.txt").write_text(entry, encoding="utf-8")


def run(expected: Expected, folder: Path) -> bool:
    """Run pytest once; say how it ended, with all of its output where that is not as expected."""
    started = time.monotonic()
    paths = os.pathsep.join([str(folder), str(HERE)])
    command = [sys.executable, "-m", "pytest", "--rootdir", str(folder), *CASE, *expected.options]
    ended = subprocess.run(
        [*command, f"--rwkv-baseline-dir={folder / 'baselines'}", "-p", "no:cacheprovider"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": paths, "GATE_SLOWDOWN": expected.slowdown},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        check=False,
    )
    good = ended.returncode == expected.exit_code and expected.words in ended.stdout
    seconds = time.monotonic() - started
    print(f"{expected.what}: exit {ended.returncode} after {seconds:.0f} s, {'as' if good else 'NOT as'} expected")
    if not good:
        print(f"expected exit {expected.exit_code} and {expected.words!r} in:\n{ended.stdout}")
    return good


def main() -> int:
    """Run the three in order and stop at the first surprise."""
    with tempfile.TemporaryDirectory(prefix="rwkvperf gate ") as name:
        folder = Path(name)
        offer_backend(folder)
        return 0 if all(run(expected, folder) for expected in RUNS) else 1


if __name__ == "__main__":
    sys.exit(main())
