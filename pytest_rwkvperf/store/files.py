"""Reading and writing baseline files: nothing lost, whoever else writes and whenever the power goes."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_rwkvperf.core import locks
from pytest_rwkvperf.core.atomic import destination, remove_leftovers, write_atomically
from pytest_rwkvperf.core.errors import BaselineError, LockedError
from pytest_rwkvperf.core.folders import lock_for
from pytest_rwkvperf.store import baseline as baselines

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from pytest_rwkvperf.core.cases import WorkloadKind
    from pytest_rwkvperf.machine.fingerprint import Fingerprint
    from pytest_rwkvperf.store.baseline import Baseline, Noise, StoredCase

LOCK_SECONDS = 60.0


def path_for(folder: Path, fingerprint: Fingerprint) -> Path:
    """Where a machine's baseline lives."""
    return folder / f"{fingerprint.id}.json"


def read(path: Path) -> Baseline | None:
    """The baseline at a path, None when there is no file.

    Raises:
        BaselineError: there is a file and it cannot be used; the message names it.
    """
    return baselines.read(path)


def others(folder: Path, fingerprint: Fingerprint) -> list[Fingerprint]:
    """Fingerprints of the other machines in a folder, those with the fewest differing fields first.

    What is no baseline there is passed over: it is another machine's to mend, or a record that lies beside.
    """
    here = path_for(folder, fingerprint)
    found = []
    for path in sorted(folder.glob("*.json")):
        with suppress(BaselineError):
            if path != here and (baseline := read(path)) is not None:
                found.append(baseline.fingerprint)
    return sorted(found, key=lambda other: len(fingerprint.differences(other)))


def save(folder: Path, fingerprint: Fingerprint, stored: Iterable[StoredCase], *, replacing: bool) -> Path:
    """Merge cases into a machine's baseline under its lock; the old file stays whole until the new one is.

    Raises:
        BaselineError: the lock is taken, the existing file is unusable, or the disk refuses; the old file is as it was.
        StorageError: the new file is in place, and the disk does not say that it will stay.
    """

    def with_cases(baseline: Baseline) -> Baseline:
        for case in stored:
            baseline = baseline.adding(case, replacing=replacing)
        return baseline

    update(folder, fingerprint, with_cases)
    return path_for(folder, fingerprint)


def save_noise(folder: Path, fingerprint: Fingerprint, noise: Mapping[WorkloadKind, Noise]) -> Path:
    """Store what an A/A run found out about a machine, in place of what an earlier one did; cases stay as they are.

    Raises:
        BaselineError: as `save`.
    """
    update(folder, fingerprint, lambda baseline: replace(baseline, noise={**baseline.noise, **noise}))
    return path_for(folder, fingerprint)


def update(folder: Path, fingerprint: Fingerprint, change: Callable[[Baseline], Baseline]) -> Path | None:
    """Put what `change` makes of a machine's baseline, read under its lock, in its place; None where it is the same.

    Raises:
        BaselineError: as `save`.
        StorageError: as `save`.
    """
    path = path_for(folder, fingerprint)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locks.hold(lock_for(path), LOCK_SECONDS):
            before = read(path) or baselines.Baseline(fingerprint)
            if (after := change(before)) == before:
                return None
            text = baselines.dumps(after)
            changed = text.encode()
            # What the next run would refuse must not take a good file's place.
            baselines.loads(text, path, "nothing was saved, since it could not be read again")
            target = destination(path)
            remove_leftovers(target)
            write_atomically(target, changed)
    except LockedError as error:
        message = (
            f"baseline {path} has been locked by {error}, for more than {LOCK_SECONDS:.0f} s; it was left as it is"
        )
        raise BaselineError(f"{message}: try again when that has ended") from error
    except (OSError, UnicodeEncodeError) as error:
        message = f"baseline {path} cannot be written: {error}; it was left as it is"
        raise BaselineError(f"{message}; make that possible, or name another folder") from error
    return path
