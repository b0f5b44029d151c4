"""Records of many machines, joined: each run once, whoever is missing named, figures stored per machine."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pytest_rwkvperf.core.errors import OptionError, RecordError, RwkvPerfError
from pytest_rwkvperf.store import baseline as baselines
from pytest_rwkvperf.store import files
from pytest_rwkvperf.store import record as records
from pytest_rwkvperf.verdict import accept

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from pytest_rwkvperf.store.baseline import Baseline, StoredCase
    from pytest_rwkvperf.store.record import Record, RecordedItem


@dataclass(frozen=True, slots=True)
class Missing:
    """A machine, or a file, that gave no record, and why."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Merged:
    """The runs of a fleet, in the order of their machines' names, and what is missing."""

    runs: tuple[Record, ...]
    missing: tuple[Missing, ...]

    @property
    def fails(self) -> bool:
        """Whether anything failed its test, ended badly, or is missing."""
        return bool(self.missing) or any(run.exit_status for run in self.runs)


def read(paths: Sequence[Path], expected: int | None = None) -> Merged:
    """Every record in these files, and in the `.json` files below these folders.

    Args:
        paths: files and folders.
        expected: how many machines there should be.

    Raises:
        OptionError: a path is not there, or holds no record at all.
    """
    found: list[tuple[str, Record]] = []
    missing: list[Missing] = []
    for path in _files(paths):
        try:
            found.append((str(path), records.read(path)))
        except RecordError as error:  # noqa: PERF203 - a file of many; reading is what takes long
            missing.append(Missing(path.name, str(error)))
    if not found and not missing:
        raise OptionError(f"no record in {', '.join(map(str, paths))}; give files that --rwkv-report=FILE.json wrote")
    return _joined(found, missing, expected)


def join(runs: Iterable[Record], missing: Iterable[Missing]) -> Merged:
    """The same from records at hand."""
    return _joined(((f"the record of {run.fingerprint.id}", run) for run in runs), missing, None)


def _joined(named: Iterable[tuple[str, Record]], missing: Iterable[Missing], expected: int | None) -> Merged:
    """A run that comes twice, in two artefacts say, counts once; of two that share an id and differ, the first."""
    once: dict[str, Record] = {}
    names: dict[str, str] = {}
    lost = [*missing]
    for name, run in named:
        first = names.setdefault(run.id, name)
        if once.setdefault(run.id, run) != run:
            told = f"{name} has the id of {first}, {run.id}, and another content, so it does not count"
            lost.append(Missing(f"another run {run.id[:8]}", f"{told}: take one of them out"))
    if expected is not None and len(once) + len(lost) < expected:
        absent = expected - len(once) - len(lost)
        lost.append(Missing(f"{absent} of {expected} machines", "no record of theirs was given"))
    ordered = sorted(once.values(), key=lambda run: (run.fingerprint.id, run.started, run.id))
    return Merged(tuple(ordered), tuple(lost))


def _files(paths: Sequence[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            yield from sorted(path.rglob("*.json"))
        elif path.exists():
            yield path
        else:
            raise OptionError(f"{path} is not there; give records, or folders with records in them")


def save(merged: Merged, folder: Path, *, replacing: bool) -> tuple[list[Path], list[Missing]]:
    """Store each run's sound figures in its own machine's baseline; the files, and what could not be stored.

    As after a run: INVALID never, REGRESSION only when replacing. A session that is stored already is not stored again,
    so that merging twice does no harm.
    """
    written: dict[Path, None] = {}
    failed: list[Missing] = []
    for run in merged.runs:
        try:
            path = _save_one(run, folder, replacing=replacing)
        except RwkvPerfError as error:  # noqa: PERF203 - a machine that is refused must not cost the others
            failed.append(Missing(run.fingerprint.id, str(error)))
        else:
            written.update({path: None} if path else {})
    return [*written], failed


def _save_one(run: Record, folder: Path, *, replacing: bool) -> Path | None:
    keep: dict[str, set[str]] = {}
    for case, item in run.items():
        if _is_sound(item, replacing=replacing):
            keep.setdefault(case.case.key, set()).add(item.workload)
    measured = [case.measured for case in run.cases if case.measured is not None and case.old is None]
    stored = accept.stored_cases([one for one in measured if not one.doubt], keep, run.started)

    def with_fresh(baseline: Baseline) -> Baseline:
        """Chosen under the lock: another merge may have stored the same since this one began."""
        for one in stored:
            if (new := _fresh(one, baseline.cases.get(one.case.key), replacing=replacing)) is not None:
                baseline = baseline.adding(new, replacing=replacing)
        return baseline

    return files.update(folder, run.fingerprint, with_fresh) if stored else None


def _fresh(one: StoredCase, known: StoredCase | None, *, replacing: bool) -> StoredCase | None:
    """What of a case's one session is not stored yet; None when all of it is.

    By its times, to the nanosecond: the run itself may have saved them, under its end's date, and of a stored session
    some workloads may have gone since. To replace what is there, they have to be all that is.
    """
    times = one.sessions[0].workloads
    stored = [session.workloads for session in known.sessions] if known else []
    if replacing:
        only = all([there[name] for there in stored if name in there] == [times[name]] for name in times)
        return None if only else one
    again = {name for name in times if any(there.get(name) == times[name] for there in stored)}
    left = baselines.without(one.sessions, again)
    return replace(one, sessions=left) if left else None


def _is_sound(item: RecordedItem, *, replacing: bool) -> bool:
    return item.verdict not in {None, "INVALID"} and (replacing or item.verdict != "REGRESSION")
