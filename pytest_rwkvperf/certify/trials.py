"""One trial: a whole pytest run of the planted backend against a stored baseline, as the gate would make it."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_rwkvperf.certify import planted
from pytest_rwkvperf.core import subprocesses
from pytest_rwkvperf.core.errors import MeasurementError
from pytest_rwkvperf.stats.verdicts import Step, Verdict
from pytest_rwkvperf.store import recipe, record

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from pytest_rwkvperf.store.record import Record

UNCHANGED_FACTOR = 1.000000001
"""Factor of a trial with nothing planted. It differs from the baseline's, so that the software is not found to be the
same and speeds decide; a billionth of a call is no time."""

_LAST_LINES = 12
_BASELINES = "baselines"


@dataclass(frozen=True, slots=True)
class TrialItem:
    """A workload's verdict, what decided it, and the ratio of new to old speed; null where nothing was compared."""

    item: str
    verdict: Verdict | None
    step: Step
    ratio: float | None


@dataclass(frozen=True, slots=True)
class Trial:
    """One run: the planted slowdown as a share of the time, how many seconds it took, and its verdicts."""

    slowdown: float
    seconds: float
    items: tuple[TrialItem, ...]


class Trials:
    """Runs of one backend, as `trials` gives them."""

    def __init__(self, pytest: Sequence[str], folder: Path, location: str) -> None:
        self._pytest = tuple(pytest)
        self._folder = folder
        self._location = location
        self._last_lines: list[str] = []
        planted.offer(folder)

    def save_baseline(self, *options: str) -> Record:
        """Store the unchanged engine's figures, for trials with the same options to be compared with.

        Those from beside busy processes too: no verdict rests on them, and A/B against the same software decides, as it
        does where a gate runs on a machine that others use.

        Raises:
            MeasurementError: as `run`; or the run stored nothing.
        """
        done, _ = self.run(1.0, *options, "--rwkv-save-baseline=append,crowded")
        if not recipe.path_in(self._folder / _BASELINES).exists():
            lines = "\n  ".join(self._last_lines)
            raise MeasurementError(f"the unchanged engine's baseline was not stored; the run's last lines:\n  {lines}")
        return done

    def take(self, slowdown: float, *options: str) -> Trial:
        """Measure the engine made slower by this share of its time.

        Raises:
            MeasurementError: as `run`.
        """
        done, seconds = self.run(1 + slowdown if slowdown else UNCHANGED_FACTOR, *options)
        items = tuple(
            TrialItem(
                item=f"{case.case.quant} {item.workload}",
                verdict=item.verdict,
                step=item.step,
                ratio=round(item.comparison.deciding.ratio, 4) if item.comparison else None,
            )
            for case, item in done.items()
        )
        return Trial(slowdown, seconds, items)

    def run(self, factor: float, *options: str) -> tuple[Record, float]:
        """One run of pytest with calls that take `factor` times as long: its record, and how many seconds it took.

        Raises:
            MeasurementError: it ended without a verdict; with its last lines.
        """
        path, started = self._folder / "run.json", time.monotonic()
        path.unlink(missing_ok=True)
        own = ("-q", f"--rwkv-backend={planted.NAME}", f"--rwkv-baseline-dir={self._folder / _BASELINES}")
        ended = subprocesses.run(
            [*self._pytest, *own, f"--rwkv-report=json:{path}", *options],
            capture=True,
            environment=planted.variables(self._folder, self._location, factor),
        )
        seconds = round(time.monotonic() - started, 1)
        lines = (line for line in (ended.stdout + ended.stderr).splitlines() if line.strip())
        self._last_lines = [*lines][-_LAST_LINES:]
        done = record.read(path) if path.exists() else None
        if done is None or not any(item.verdict for _, item in done.items()):
            raise MeasurementError("a trial gave no verdict; its last lines:\n  " + "\n  ".join(self._last_lines))
        return done, seconds


@contextmanager
def trials(location: str) -> Iterator[Trials]:
    """Trials of the backend at a location (`module:attribute`), in a folder that ends with the block.

    No project's tests and settings are used, and relative paths in options are from the current folder.
    """
    with subprocesses.isolated_pytest(sys.executable, "certify") as (pytest, folder):
        yield Trials(pytest, folder, location)
