"""Reading and writing baseline files under a lock, atomically: concurrent runs and power cuts lose nothing."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_rwkvperf.core.errors import BaselineError
from pytest_rwkvperf.store import baseline as baselines

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from pytest_rwkvperf.core.cases import WorkloadKind
    from pytest_rwkvperf.machine.fingerprint import Fingerprint
    from pytest_rwkvperf.store.baseline import Baseline, Noise, StoredCase


def path_for(folder: Path, fingerprint: Fingerprint) -> Path:
    """The path of a machine's baseline."""
    return folder / f"{fingerprint.id}.json"


def read(path: Path) -> Baseline | None:
    """The baseline at a path; None if there is no file.

    Raises:
        BaselineError: the file is unusable; the message names it.
    """
    return baselines.FORMAT.read(path)


def others(folder: Path, fingerprint: Fingerprint) -> list[Fingerprint]:
    """Fingerprints of the other machines in a folder, those with the fewest differing fields first.

    Files that are no readable baseline are skipped: this run does not need them.
    """
    here = path_for(folder, fingerprint)
    machines = []
    for path in sorted(folder.glob("*.json")):
        with suppress(BaselineError):
            if path != here and (baseline := read(path)) is not None:
                machines.append(baseline.fingerprint)
    return sorted(machines, key=lambda other: len(fingerprint.differences(other)))


def save(folder: Path, fingerprint: Fingerprint, stored: Iterable[StoredCase], *, replacing: bool) -> Path:
    """Merge the cases of a run that ends now into a machine's baseline.

    Raises:
        BaselineError: as `update`.
        StorageError: as `update`.
    """

    def with_cases(baseline: Baseline) -> Baseline:
        for case in stored:
            baseline = baseline.with_case(baseline.dated_last(case), replacing=replacing)
        return baseline

    update(folder, fingerprint, with_cases)
    return path_for(folder, fingerprint)


def save_noise(folder: Path, fingerprint: Fingerprint, noise: Mapping[WorkloadKind, Noise]) -> Path:
    """Store what an A/A run measured of a machine's noise, in place of an earlier run's.

    Raises:
        BaselineError: as `update`.
        StorageError: as `update`.
    """
    update(folder, fingerprint, lambda baseline: replace(baseline, noise={**baseline.noise, **noise}))
    return path_for(folder, fingerprint)


def update(folder: Path, fingerprint: Fingerprint, change: Callable[[Baseline], Baseline]) -> Path | None:
    """Apply `change` to a machine's baseline under its lock; None if that changed nothing, else the file's path.

    Raises:
        BaselineError: as `VersionedFormat.update`.
        StorageError: as `VersionedFormat.update`.
    """
    path = path_for(folder, fingerprint)
    return path if baselines.FORMAT.update(path, baselines.Baseline(fingerprint), change) else None
